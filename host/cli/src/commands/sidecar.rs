//! `sandbox-host sidecar`: adds, lists, waits for and terminates sidecars.

use std::time::Duration;

use anyhow::Result;
use sandbox_host::types::{ImageSpec, SidecarSpec};

use crate::args::{SidecarAdd, SidecarCommand, SidecarName};
use crate::output;
use crate::output::results::{Sidecar, SidecarEnded, SidecarTerminated};
use crate::output::text::{end_text, state_text};
use crate::session::Session;
use crate::steps::image::build_image;
use crate::steps::verdict::end_code;

/// How long a single request waits for the end of a sidecar.
const WAIT: Duration = Duration::from_secs(300);

/// Runs `sandbox-host sidecar`. Returns the exit code.
pub async fn sidecar(session: &Session, command: SidecarCommand) -> Result<i32> {
    match command {
        SidecarCommand::Add(args) => add_sidecar(session, *args).await,
        SidecarCommand::List(args) => {
            let found = session.provider().await?.sandbox(args.id).sidecars().await?;
            if session.voice.json {
                output::print_json(&found.iter().map(Sidecar::from).collect::<Vec<_>>())?;
                return Ok(0);
            }
            let mut rows = vec![["NAME", "STATE", "ID"].map(str::to_owned).to_vec()];
            rows.extend(found.iter().map(|one| vec![one.name.clone(), state_text(&one.state), one.id.clone()]));
            output::table(&rows)?;
            Ok(0)
        }
        SidecarCommand::Wait(SidecarName { id, name }) => {
            let sandbox = session.provider().await?.sandbox(id);
            let _step = session.voice.step(format!("waiting for {name}"));
            let end = loop {
                if let Some(reason) = sandbox.wait_sidecar(&name, WAIT).await? {
                    break reason;
                }
            };
            let text = end_text(&end);
            session.voice.show(&SidecarEnded { sidecar: &name, end: &text }, [&text])?;
            Ok(end_code(&end))
        }
        SidecarCommand::Terminate(SidecarName { id, name }) => {
            session.provider().await?.sandbox(id).terminate_sidecar(&name).await?;
            session.voice.show(&SidecarTerminated { sidecar: &name, terminated: true }, [&name])?;
            Ok(0)
        }
    }
}

async fn add_sidecar(session: &Session, args: SidecarAdd) -> Result<i32> {
    let provider = session.provider().await?;
    let image = build_image(session, &provider, &args.image).await?;
    let mut spec = SidecarSpec::new(args.name, ImageSpec::id(image));
    if !args.argv.is_empty() {
        spec = spec.command(args.argv);
    }
    spec.env = args.env;
    spec.workdir = args.workdir;
    let made = provider.sandbox(args.id).create_sidecar(spec).await?;
    session.voice.show(&Sidecar::from(&made), [&made.id])?;
    Ok(0)
}
