//! Runs commands in a terminal: sets the local terminal to raw mode and forwards its size and all keys.

use std::io::IsTerminal;

use anyhow::Result;
use rustix::termios::{self, OptionalActions, Termios};
use sandbox_host::Sandbox;
use sandbox_host::types::{self, ExecSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::output::Failure;
use crate::session::Session;
use crate::steps::verdict::{exit_code, unwrap};

/// Returns the rows and columns of the local terminal. Returns `None` if standard input is not a terminal.
pub fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(std::io::stdin()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Returns a terminal specification with the size and type of the local terminal.
pub fn terminal() -> types::Pty {
    let (rows, columns) = size().unwrap_or((24, 80));
    types::Pty { rows, columns, term: std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".into()) }
}

/// Sets the local terminal to raw mode until dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> std::io::Result<Raw> {
        let saved = termios::tcgetattr(std::io::stdin())?;
        let mut raw = saved.clone();
        raw.make_raw();
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw(saved))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Runs a command in a terminal and returns its exit code. Fails if standard input is not a terminal.
pub async fn run(session: &Session, sandbox: &Sandbox, command: ExecSpec) -> Result<i32> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("run the command in a terminal", "standard input is not a terminal")
            .hint("omit -t, or run this program in a terminal")
            .into());
    }
    let cleanup = session.register_exec(sandbox, &command.id);
    let mut process = {
        let _step = session.voice.step("starting the command");
        match sandbox.spawn(command).await {
            Ok(process) => process,
            Err(error) => {
                cleanup.done_if_no_effect(&error);
                return Err(error.into());
            }
        }
    };
    let (Some(mut stdout), Some(mut stdin)) = (process.stdout.take(), process.stdin.take()) else {
        return Err(Failure::new("run the command", "the provider returned no streams for it").into());
    };
    drop(process.stderr.take());
    let raw = Raw::enter()?;
    let keys = tokio::spawn(async move {
        let mut source = tokio::io::stdin();
        let mut piece = vec![0; 4096];
        while let Ok(size @ 1..) = source.read(&mut piece).await {
            if stdin.write_all(&piece[..size]).await.is_err() || stdin.flush().await.is_err() {
                break;
            }
        }
        stdin
    });
    let mut resized = signal(SignalKind::window_change())?;
    let mut screen = tokio::io::stdout();
    let mut piece = vec![0; 64 << 10];
    loop {
        tokio::select! {
            read = stdout.read(&mut piece) => match read {
                Ok(0) => break,
                Ok(size) => {
                    screen.write_all(&piece[..size]).await?;
                    screen.flush().await?;
                }
                Err(error) => {
                    drop(raw);
                    return Err(unwrap(error));
                }
            },
            Some(()) = resized.recv() => {
                if let Some((rows, columns)) = size()
                    && let Err(error) = process.resize(rows, columns).await
                {
                    tracing::debug!(%error, "not resized");
                }
            }
        }
    }
    let verdict = process.wait().await;
    keys.abort();
    drop(raw);
    cleanup.done();
    exit_code(session, verdict?)
}
