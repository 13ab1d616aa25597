//! `sandbox-host exec`: runs a command in a running sandbox.

use anyhow::Result;
use sandbox_host::types::ExecSpec;

use crate::args::Exec;
use crate::output::results::Started;
use crate::output::text::end_text;
use crate::output::{self, Failure};
use crate::session::Session;
use crate::steps::execution::{apply, execute, require_argv};
use crate::steps::sandbox::container;
use crate::steps::verdict::{STAY_HINT, not_begun};

/// Runs `sandbox-host exec`. Returns the exit code of the command.
pub async fn exec(session: &Session, args: Exec) -> Result<i32> {
    require_argv(&args.argv)?;
    let sandbox = container(session.provider().await?.sandbox(&args.id), args.container.as_deref());
    let mut command = ExecSpec::new(args.argv);
    apply(&mut command, &args.how)?;
    command.env = args.env;
    if let Some(directory) = args.workdir.as_ref().filter(|directory| !directory.starts_with('/')) {
        return Err(Failure::new("run the command", format!("the directory {directory:?} is not absolute"))
            .hint("give --workdir an absolute path")
            .into());
    }
    command.cwd = args.workdir;
    if args.detach {
        let process = sandbox.spawn(command).await?;
        let id = process.detach();
        if session.voice.json {
            output::print_json(&Started { sandbox: sandbox.id(), exec: &id })?;
        } else {
            output::print(id)?;
        }
        return Ok(0);
    }
    let code = execute(session, &sandbox, command, &args.how).await;
    if let Err(error) = &code
        && let Some(reason) = not_begun(&sandbox, error).await
    {
        let why = format!("the entry-point command of the sandbox ended first: {}", end_text(&reason));
        return Err(Failure::new("run the command", why).hint(STAY_HINT).into());
    }
    code
}
