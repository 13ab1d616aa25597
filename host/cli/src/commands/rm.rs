//! `sandbox-host rm`: removes files and directories of sandboxes.

use anyhow::Result;

use crate::args::Rm;
use crate::output::FAILED;
use crate::output::results::Removed;
use crate::session::Session;
use crate::steps::place::remote;

/// Runs `sandbox-host rm`. Returns the exit code.
pub async fn rm(session: &Session, args: Rm) -> Result<i32> {
    let provider = session.provider().await?;
    let places = args.paths.iter().map(|text| remote(&provider, text)).collect::<Result<Vec<_>>>()?;
    let mut code = 0;
    for (sandbox, path) in places {
        let step = session.voice.step(format!("removing {path}"));
        let removed = sandbox.remove(&path, args.recursive).await;
        drop(step);
        let was_there = match removed {
            Ok(()) => true,
            Err(error) if args.force && matches!(error.file_fault(), Some(sandbox_host::FileFault::NotFound)) => false,
            // Continues with the other paths after a file error. Errors of the sandbox itself end the command.
            Err(error) if error.file_fault().is_some() => {
                session.voice.fail(&error.into());
                code = FAILED;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        session.voice.result(&Removed { sandbox: sandbox.id(), path: &path, removed: was_there })?;
    }
    Ok(code)
}
