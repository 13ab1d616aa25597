//! `sandbox-host run`: runs a command in a new sandbox, and terminates the sandbox unless `--keep` is given.

use anyhow::Result;
use sandbox_host::types::{self, ExecSpec, ImageSource, ImageSpec, SandboxSpec};
use sandbox_host::{LEASE_TAG, Provider};

use crate::args::Run;
use crate::output::Failure;
use crate::output::text::end_text;
use crate::session::Session;
use crate::steps::execution::{apply, execute, require_argv};
use crate::steps::image::{NO_ENTRYPOINT, follow, prepare_image};
use crate::steps::sandbox::{create_sandbox, refuse_early, sandbox_spec};
use crate::steps::verdict::{STAY_HINT, not_begun};

/// The first process of a sandbox that `run` creates. `run` tries the variants in this order.
#[derive(Clone, Copy, PartialEq)]
enum Life {
    /// The provider's own process that does nothing. With some providers the image's `ENTRYPOINT` runs it.
    Kept,
    /// The same in an image without `ENTRYPOINT`, because the image's `ENTRYPOINT` did not run it.
    Alone,
    /// The image's own program, because the image may not contain what the provider keeps a sandbox alive with.
    Own,
}

/// Runs `sandbox-host run`. Returns the exit code of the command.
pub async fn run(session: &Session, args: Run) -> Result<i32> {
    require_argv(&args.argv)?;
    let provider = session.provider().await?;
    let spec = sandbox_spec(&args.sandbox, ImageSpec::default())?;
    refuse_early(&provider, &spec).await?;
    let image = prepare_image(session, &provider, &args.image, true).await?;
    // An image of a provider that builds none has no entry point whose program could end.
    let built = matches!(image.source, ImageSource::Id(_));
    let lives: &[Life] = if built { &[Life::Kept, Life::Alone, Life::Own] } else { &[Life::Kept] };
    let mut ended = String::new();
    for &life in lives {
        let mut spec = spec.clone();
        spec.image = match life {
            Life::Kept | Life::Own => image.clone(),
            Life::Alone => {
                let without = image.clone().command(NO_ENTRYPOINT);
                ImageSpec::id(follow(session, provider.build(without).await?).await?)
            }
        };
        if life == Life::Own {
            spec = spec.image_command();
        }
        match run_once(session, &provider, spec, &args).await? {
            Ran::Ended(code) => return Ok(code),
            Ran::NotBegun(reason) => ended = end_text(&reason),
        }
    }
    Err(Failure::new("run the command", format!("the sandbox ended first: {ended}")).hint(STAY_HINT).into())
}

/// The outcome of a command in a new sandbox.
enum Ran {
    /// The command ended; the value is the exit code of this program.
    Ended(i32),
    /// The command could not start because the sandbox's own program had ended.
    NotBegun(types::EndReason),
}

/// Creates a sandbox, runs the command in it, and terminates the sandbox.
async fn run_once(session: &Session, provider: &Provider, spec: SandboxSpec, args: &Run) -> Result<Ran> {
    let (sandbox, cleanup, keeper) = create_sandbox(session, provider, spec).await?;
    let mut command = ExecSpec::new(args.argv.clone());
    apply(&mut command, &args.how)?;
    let code = execute(session, &sandbox, command, &args.how).await;
    if let Err(error) = &code
        && let Some(reason) = not_begun(&sandbox, error).await
    {
        cleanup.done();
        return Ok(Ran::NotBegun(reason));
    }
    if args.keep && code.is_ok() {
        // The lease is not renewed from here on. Without its tag, no sweep considers the sandbox as abandoned.
        let tags = sandbox.tags().await?.into_iter().filter(|(name, _)| name != LEASE_TAG).collect();
        keeper.release(&sandbox);
        sandbox.set_tags(tags).await?;
        session.voice.say(format_args!("kept: {}", sandbox.id()));
        cleanup.done();
        return code.map(Ran::Ended);
    }
    // Waits for the termination, so that nothing is left when the exit code is returned. A failure of the command takes
    // precedence over a failure of the termination.
    let ended = {
        let _step = session.voice.step(format!("terminating {}", sandbox.id()));
        sandbox.terminate().await
    };
    match ended {
        Ok(()) => cleanup.done(),
        Err(error) if error.is_not_found() || error.is_sandbox_ended() => cleanup.done(),
        Err(error) if code.is_ok() => return Err(error.into()),
        Err(_) => {}
    }
    code.map(Ran::Ended)
}
