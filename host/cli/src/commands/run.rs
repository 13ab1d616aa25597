//! `sandbox run`

use anyhow::Result;
use sandbox_host::types::{self, ExecSpec, ImageSpec, SandboxSpec};
use sandbox_host::{LEASE_TAG, Provider};

use crate::args::Run;
use crate::output::Failure;
use crate::output::text::end_text;
use crate::session::Session;
use crate::steps::execution::{apply, execute, require_argv};
use crate::steps::image::{NO_ENTRYPOINT, build_for, follow};
use crate::steps::sandbox::{create_sandbox, refuse_early, sandbox_spec};
use crate::steps::verdict::{STAY_HINT, not_begun};

/// The command of a sandbox that is there for other commands: that of the service's own default image, which lasts longer than
/// any sandbox. It takes the place of the image's CMD, which may end at any time.
const KEEP_ALIVE: [&str; 2] = ["sleep", "172800"];

/// What the first process of a sandbox of `run` is.
#[derive(Clone, Copy, PartialEq)]
enum Life {
    /// The image's ENTRYPOINT with a command that stays.
    Kept,
    /// That command alone: the ENTRYPOINT does not run it.
    Alone,
    /// The image's own program: there may be no `sleep` in it.
    Own,
}

/// `sandbox run`
pub async fn run(session: &Session, args: Run) -> Result<i32> {
    require_argv(&args.argv)?;
    let provider = session.provider().await?;
    let spec = sandbox_spec(&args.sandbox, ImageSpec::default())?;
    refuse_early(&provider, &spec).await?;
    let built = build_for(session, &provider, &args.image, true).await?;
    let mut ended = String::new();
    for life in [Life::Kept, Life::Alone, Life::Own] {
        let mut spec = spec.clone();
        spec.image = match life {
            Life::Kept | Life::Own => ImageSpec::id(&built),
            Life::Alone => {
                let without = ImageSpec { commands: vec![NO_ENTRYPOINT.to_owned()], ..ImageSpec::id(&built) };
                ImageSpec::id(follow(session, provider.build(without).await?).await?)
            }
        };
        if life != Life::Own {
            spec = spec.command(KEEP_ALIVE);
        }
        match run_once(session, &provider, spec, &args).await? {
            Ran::Ended(code) => return Ok(code),
            Ran::NotBegun(reason) => ended = end_text(&reason),
        }
    }
    Err(Failure::new("run the command", format!("the sandbox ended first: {ended}")).hint(STAY_HINT).into())
}

/// What became of the command of `run`.
enum Ran {
    /// It ended with this code.
    Ended(i32),
    /// The sandbox's own program had ended before.
    NotBegun(types::EndReason),
}

/// Makes a sandbox, runs the command in it, and ends the sandbox.
async fn run_once(session: &Session, provider: &Provider, spec: SandboxSpec, args: &Run) -> Result<Ran> {
    let (sandbox, owed, keeper) = create_sandbox(session, provider, spec).await?;
    let mut command = ExecSpec::new(args.argv.clone());
    apply(&mut command, &args.how)?;
    let code = execute(session, &sandbox, command, &args.how).await;
    if let Err(error) = &code
        && let Some(reason) = not_begun(&sandbox, error).await
    {
        owed.paid();
        return Ok(Ran::NotBegun(reason));
    }
    if args.keep && code.is_ok() {
        // From here on the lease is not renewed. Without its tag no sweep takes the sandbox for abandoned.
        let tags = sandbox.tags().await?.into_iter().filter(|(name, _)| name != LEASE_TAG).collect();
        keeper.release(&sandbox);
        sandbox.set_tags(tags).await?;
        session.voice.say(format_args!("kept: {}", sandbox.id()));
        owed.paid();
        return code.map(Ran::Ended);
    }
    // Waited for, so that the exit code comes when nothing is left; a failure of the command is reported, not hidden.
    let ended = {
        let _step = session.voice.step(format!("terminating {}", sandbox.id()));
        sandbox.terminate().await
    };
    match ended {
        Ok(()) => owed.paid(),
        Err(error) if error.is_not_found() || error.is_sandbox_ended() => owed.paid(),
        Err(error) if code.is_ok() => return Err(error.into()),
        Err(_) => {}
    }
    code.map(Ran::Ended)
}
