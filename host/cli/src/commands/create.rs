//! `sandbox-host create`: creates a sandbox and prints its id.

use anyhow::Result;
use sandbox_host::types::{EntryPoint, ImageSpec};
use sandbox_host::{InstancesWish, OWNER_TAG, RUN_TAG, fresh_id};

use crate::args::Create;
use crate::output::results::Created;
use crate::output::{self, Failure};
use crate::session::Session;
use crate::steps::image::prepare_image;
use crate::steps::sandbox::{default_owner, refuse_early, sandbox_spec};
use crate::steps::terminal::terminal;

/// Runs `sandbox-host create`. Returns the exit code.
pub async fn create(session: &Session, args: Create) -> Result<i32> {
    let provider = session.provider().await?;
    let mut spec = sandbox_spec(&args.sandbox, ImageSpec::default())?;
    spec.entry_point = match args.argv {
        _ if args.keep_alive => EntryPoint::KeepAlive,
        argv if argv.is_empty() => EntryPoint::Image,
        argv => EntryPoint::Command(argv),
    };
    spec.key = args.key;
    spec.pty = args.tty.then(terminal);
    if args.wait_ready.is_some() && spec.readiness.is_none() {
        return Err(Failure::new("wait until the sandbox is ready", "it has no readiness check")
            .hint("add --ready-port or --ready-command")
            .into());
    }
    refuse_early(&provider, &spec).await?;
    spec.image = prepare_image(session, &provider, &args.image, false).await?;
    let tag = (RUN_TAG.to_owned(), fresh_id());
    let spec = spec.tag(OWNER_TAG, default_owner()).tag(&tag.0, &tag.1);
    let step = session.voice.step("creating the sandbox");
    let creating = session.register_creation(&provider, tag);
    let sandbox = match provider.create(spec).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            creating.done_if_no_effect(&error);
            return Err(error.into());
        }
    };
    drop(step);
    if let Some(time) = args.wait_ready {
        let _step = session.voice.step("waiting until the sandbox is ready");
        if !sandbox.wait_ready(time).await? {
            return Err(Failure::new(
                format!("wait until {} is ready", sandbox.id()),
                "it was not ready within the time of --wait-ready",
            )
            .hint("use a longer --wait-ready TIME, or check the program that --ready-port or --ready-command waits for")
            .into());
        }
    }
    // The id is printed before the obligation to clean up is released: a sandbox whose id was not printed would keep
    // running unnoticed.
    if session.voice.json {
        output::print_json(&Created { sandbox: sandbox.id() })?;
    } else {
        output::print(sandbox.id())?;
    }
    creating.done();
    if provider.plugin().manifest().instances == InstancesWish::One {
        session.voice.say("the plugin keeps its sandboxes in its memory: this one is gone when this program has ended");
    }
    Ok(0)
}
