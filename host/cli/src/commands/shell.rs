//! `sandbox-host shell`: opens a shell in a terminal, in a running or a new sandbox.

use anyhow::Result;
use sandbox_host::types::ExecSpec;

use crate::args::Shell;
use crate::output;
use crate::output::results::ShellEnded;
use crate::session::Session;
use crate::steps::image::build_image;
use crate::steps::sandbox::{container, create_sandbox};
use crate::steps::terminal::{run, size};

/// Runs `sandbox-host shell`. Returns the exit code of the shell.
pub async fn shell(session: &Session, args: Shell) -> Result<i32> {
    let provider = session.provider().await?;
    let (sandbox, cleanup) = match &args.id {
        Some(id) => (container(provider.sandbox(id), args.container.as_deref()), None),
        None => {
            let image = build_image(session, &provider, &args.image).await?;
            let spec = sandbox_host::types::SandboxSpec::new(sandbox_host::types::ImageSpec::id(image));
            let (sandbox, cleanup, keeper) = create_sandbox(session, &provider, spec).await?;
            (sandbox, Some((cleanup, keeper)))
        }
    };
    let mut command = match &args.shell {
        Some(shell) => ExecSpec::new([shell.as_str(), "-l"]),
        // A single exec, instead of one that looks for `bash` and another one for the shell.
        None => ExecSpec::shell("if command -v bash >/dev/null; then exec bash -l; else exec sh -l; fi"),
    };
    command.user = args.user.clone();
    let (rows, columns) = size().unwrap_or((24, 80));
    let term = std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".into());
    let command = command.pty(rows, columns, term);
    let code = run(session, &sandbox, command).await;
    if let Some((cleanup, _keeper)) = cleanup {
        let _step = session.voice.step(format!("terminating {}", sandbox.id()));
        sandbox.terminate().await?;
        cleanup.done();
    }
    if session.voice.json {
        output::print_json(&ShellEnded { exit_code: code.as_ref().ok().copied() })?;
    }
    code
}
