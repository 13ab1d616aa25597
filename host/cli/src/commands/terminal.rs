//! Commands in a terminal: our own in raw mode, its size passed on, its keys unchanged.

use std::io::IsTerminal;
use std::mem::MaybeUninit;

use anyhow::Result;
use sandbox_host::Sandbox;
use sandbox_host::types::ExecSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::output::{self, Failure};
use crate::session::Session;

/// Rows and columns of our terminal.
pub fn size() -> Option<(u16, u16)> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: the request writes a `winsize` to the pointer, and nothing on failure; zeroes are a valid one.
    let size = unsafe {
        if libc::ioctl(libc::STDIN_FILENO, libc::TIOCGWINSZ, size.as_mut_ptr()) != 0 {
            return None;
        }
        size.assume_init()
    };
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Our terminal in raw mode, until dropped.
struct Raw(libc::termios);

impl Raw {
    fn enter() -> std::io::Result<Raw> {
        let mut settings = MaybeUninit::<libc::termios>::zeroed();
        // SAFETY: `tcgetattr` fills the structure; on failure it is not used.
        let saved = unsafe {
            if libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            settings.assume_init()
        };
        let mut raw = saved;
        // SAFETY: both work on structures that are filled in.
        unsafe {
            libc::cfmakeraw(&mut raw);
            if libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw) != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(Raw(saved))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: these are the settings that `tcgetattr` gave.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &self.0) };
    }
}

/// Runs a command in a terminal with our streams, and gives its exit code.
pub async fn run(session: &Session, sandbox: &Sandbox, command: ExecSpec) -> Result<i32> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("run the command in a terminal", "standard input is not a terminal")
            .hint("leave -t away, or run it from a terminal")
            .into());
    }
    let owed = session.owe_exec(sandbox, &command.id);
    let mut process = {
        let _step = session.voice.step("starting the command");
        match sandbox.spawn(command).await {
            Ok(process) => process,
            Err(error) => {
                owed.unless_happened(&error);
                return Err(error.into());
            }
        }
    };
    let (Some(mut stdout), Some(mut stdin)) = (process.stdout.take(), process.stdin.take()) else {
        return Err(Failure::new("run the command", "it has no streams").into());
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
                    return Err(crate::commands::run::unwrap(error));
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
    owed.paid();
    crate::commands::run::exit_code(session, verdict?)
}

/// `sandbox shell`
pub async fn shell(session: &Session, args: crate::args::Shell) -> Result<i32> {
    let provider = session.provider().await?;
    let (sandbox, owed) = match &args.id {
        Some(id) => (crate::commands::run::container(provider.sandbox(id), args.container.as_deref()), None),
        None => {
            let image = crate::commands::run::build_image(session, &provider, &args.image).await?;
            let spec = sandbox_host::types::SandboxSpec::new(sandbox_host::types::ImageSpec::id(image));
            let (sandbox, owed, keeper) = crate::commands::run::create_sandbox(session, &provider, spec).await?;
            (sandbox, Some((owed, keeper)))
        }
    };
    let mut command = match &args.shell {
        Some(shell) => ExecSpec::new([shell.as_str(), "-l"]),
        // One exec instead of a look and an exec.
        None => ExecSpec::shell("if command -v bash >/dev/null; then exec bash -l; else exec sh -l; fi"),
    };
    command.user = args.user.clone();
    let (rows, columns) = size().unwrap_or((24, 80));
    let term = std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".into());
    let command = command.pty(rows, columns, term);
    let code = run(session, &sandbox, command).await;
    if let Some((owed, _keeper)) = owed {
        let _step = session.voice.step(format!("terminating {}", sandbox.id()));
        sandbox.terminate().await?;
        owed.paid();
    }
    if session.voice.json {
        output::print_json(serde_json::json!({ "exit_code": code.as_ref().ok() }))?;
    }
    code
}
