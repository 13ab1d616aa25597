//! Runs a command in a sandbox with the streams of this program.

use anyhow::Result;
use base64::Engine as _;
use sandbox_host::types::{self, ExecSpec};
use sandbox_host::{Kind, Process, Sandbox};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::args::CommandArgs;
use crate::output::results::CommandResult;
use crate::output::{self, Failure};
use crate::session::Session;
use crate::steps::terminal::{self, terminal};
use crate::steps::verdict::{code_of, exit_code, unwrap, verdict_name};

/// Maximum number of bytes that `--json` keeps per stream.
const COLLECTED: u64 = 10 << 20;

/// Buffer size for copying streams, in bytes.
const PIECE: usize = 64 << 10;

/// Fails if the command is empty.
pub fn require_argv(argv: &[String]) -> Result<()> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(Failure::new("run a command", "the command is empty")
            .hint("give a program and its arguments after `--`, such as `-- echo hello`")
            .into());
    }
    Ok(())
}

/// Applies the options for user, time limit and terminal to a command.
pub fn apply(command: &mut ExecSpec, how: &CommandArgs) -> Result<()> {
    command.user = how.user.clone();
    command.timeout = how.timeout.map(|time| time.as_millis() as u64);
    command.pty = how.tty.then(terminal);
    Ok(())
}

/// Runs a command with the streams of this program. Returns its exit code.
pub async fn execute(session: &Session, sandbox: &Sandbox, command: ExecSpec, how: &CommandArgs) -> Result<i32> {
    if how.tty {
        return terminal::run(session, sandbox, command).await;
    }
    if session.voice.json {
        return collect(session, sandbox, command, how).await;
    }
    let started = session.voice.step("starting the command");
    let cleanup = session.register_exec(sandbox, &command.id);
    let mut process = match sandbox.spawn(command.clone()).await {
        Ok(process) => process,
        Err(error) => {
            cleanup.done_if_no_effect(&error);
            if *error.kind() == Kind::Unsupported && error.subject() == Some("processes") {
                drop(started);
                return print_at_the_end(session, sandbox, command, how).await;
            }
            return Err(error.into());
        }
    };
    drop(started);
    let feeding = feed(&mut process, how.interactive);
    let stdout = process.stdout.take();
    let stderr = process.stderr.take();
    let streams = async { tokio::try_join!(pass(stdout, tokio::io::stdout()), pass(stderr, tokio::io::stderr())) };
    let passed = streams.await;
    if let Err(error) = passed {
        if output::is_broken_pipe(&error) {
            // The reader of standard output is gone. The command is killed, and the exit code is that of a program that
            // SIGPIPE has killed, because the command did not finish.
            process.kill().await?;
            cleanup.done();
            return Ok(output::UNREAD);
        }
        return Err(error);
    }
    let verdict = process.wait().await?;
    feeding.abort();
    cleanup.done();
    exit_code(session, verdict)
}

/// Starts a task that copies standard input to the command until either side ends. Without `interactive`, closes the
/// command's input at once.
fn feed(process: &mut Process, interactive: bool) -> tokio::task::JoinHandle<()> {
    let stdin = process.stdin.take();
    tokio::spawn(async move {
        let Some(mut stdin) = stdin else { return };
        if interactive {
            let mut source = tokio::io::stdin();
            let mut piece = vec![0; PIECE];
            loop {
                match source.read(&mut piece).await {
                    Ok(0) | Err(_) => break,
                    // A program may close its input early; this is not an error.
                    Ok(size) => {
                        if stdin.write_all(&piece[..size]).await.is_err() {
                            break;
                        }
                    }
                }
            }
        }
        if let Err(error) = stdin.shutdown().await {
            tracing::debug!(%error, "input not closed");
        }
    })
}

/// Copies a stream as it arrives.
async fn pass(from: Option<impl AsyncRead + Unpin>, mut to: impl AsyncWrite + Unpin) -> Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut piece = vec![0; PIECE];
    loop {
        let size = match from.read(&mut piece).await {
            Ok(0) => return Ok(()),
            Ok(size) => size,
            Err(error) => return Err(unwrap(error)),
        };
        to.write_all(&piece[..size]).await?;
        to.flush().await?;
    }
}

/// Runs a command with all of standard input until it ends, and returns the last [`COLLECTED`] bytes of each stream.
async fn run_whole(
    session: &Session,
    sandbox: &Sandbox,
    command: ExecSpec,
    how: &CommandArgs,
) -> Result<types::RunResult> {
    let mut stdin = Vec::new();
    if how.interactive {
        tokio::io::stdin().read_to_end(&mut stdin).await?;
    }
    let cleanup = session.register_exec(sandbox, &command.id);
    let limits = types::OutputLimits { stdout_max: COLLECTED, stderr_max: COLLECTED, keep: types::Keep::Tail };
    match sandbox.run_with(command, stdin, limits).await {
        Ok(result) => {
            cleanup.done();
            Ok(result)
        }
        Err(error) => {
            cleanup.done_if_no_effect(&error);
            Err(error.into())
        }
    }
}

/// Runs a command and prints its output when it has ended, for a provider without the interface `processes`.
async fn print_at_the_end(session: &Session, sandbox: &Sandbox, command: ExecSpec, how: &CommandArgs) -> Result<i32> {
    let result = run_whole(session, sandbox, command, how).await?;
    for (name, stream) in [("stdout", &result.stdout), ("stderr", &result.stderr)] {
        let lost = stream.total - stream.data.len() as u64;
        if lost > 0 {
            session.voice.say(format_args!("the first {lost} bytes of {name} were discarded"));
        }
    }
    pass(Some(&result.stdout.data[..]), tokio::io::stdout()).await?;
    pass(Some(&result.stderr.data[..]), tokio::io::stderr()).await?;
    exit_code(session, result.verdict)
}

/// Runs a command until it ends and prints its result as a JSON object.
async fn collect(session: &Session, sandbox: &Sandbox, command: ExecSpec, how: &CommandArgs) -> Result<i32> {
    let exec = command.id.clone();
    let result = run_whole(session, sandbox, command, how).await?;
    let (stdout_bytes, stderr_bytes) = (result.stdout.total, result.stderr.total);
    let (stdout, stdout_base64) = text_of(session, "stdout", result.stdout);
    let (stderr, stderr_base64) = text_of(session, "stderr", result.stderr);
    output::print_json(&CommandResult {
        sandbox: sandbox.id(),
        exec: &exec,
        verdict: verdict_name(&result.verdict),
        exit_code: code_of(&result.verdict),
        duration_ms: result.duration,
        stdout_bytes,
        stderr_bytes,
        stdout,
        stdout_base64,
        stderr,
        stderr_base64,
    })?;
    Ok(code_of(&result.verdict))
}

/// Returns the captured output: as text if it is UTF-8, otherwise in base64.
fn text_of(session: &Session, name: &str, captured: types::Captured) -> (Option<String>, Option<String>) {
    let kept = captured.data.len() as u64;
    if kept < captured.total {
        session.voice.warn(format_args!("{name}: only the last {kept} of {} bytes are in the result", captured.total));
    }
    match String::from_utf8(captured.data) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(base64::engine::general_purpose::STANDARD.encode(error.as_bytes()))),
    }
}
