//! Commands. The helper program in the container starts each of them once, keeps its output, and remembers its end.

mod output;
mod reader;

use bytes::Bytes;
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::clip,
        ids, needs,
        time::bounded_wait,
        wit::{
            EndReason, ErrorKind, ExecInfo, ExecPage, ExecRef, ExecSpec, Happened, InputState, Output, OutputLimits,
            OutputMode, Pty, ReadRequest, RunResult, Verdict,
        },
    },
    call::json::Value,
};

use crate::{
    container,
    describe::describe,
    engine::items,
    helper::{Frame, Helper, LONGEST_WAIT, Verb},
    inspect,
};

pub use output::Outputs;

/// Most bytes that are written to standard input by one call. The interface has the same bound.
const MAX_INPUT_BYTES: usize = 16 * 1024 * 1024;

/// The commands of all sandboxes, as far as this instance knows them.
pub struct Commands {
    helper: Helper,
    outputs: Outputs,
}

impl Commands {
    /// Makes commands that are run by this helper.
    #[must_use]
    pub fn new(helper: Helper) -> Commands {
        Commands { outputs: Outputs::new(helper.clone()), helper }
    }

    /// Implements `start`.
    ///
    /// # Errors
    ///
    /// `unsupported` or `invalid-argument` for a specification that is not accepted, before anything is sent; otherwise the
    /// error of the helper.
    pub async fn start(&self, sandbox: &str, spec: &ExecSpec) -> Result<()> {
        needs::check_exec(&describe(), spec)?;
        inspect::check_id(sandbox)?;
        self.outputs.start(sandbox, &spec.id, start_verb(spec, Bytes::new(), false)).await
    }

    /// Implements `run`.
    ///
    /// # Errors
    ///
    /// As for [`Commands::start`] and [`Commands::read`].
    pub async fn run(&self, sandbox: &str, spec: &ExecSpec, stdin: Vec<u8>, limits: OutputLimits) -> Result<RunResult> {
        needs::check_exec(&describe(), spec)?;
        inspect::check_id(sandbox)?;
        self.outputs.run(sandbox, &spec.id, start_verb(spec, stdin.into(), true), limits).await
    }

    /// Implements `read-output`.
    ///
    /// # Errors
    ///
    /// `not-found` for an unknown sandbox or command, otherwise the error of the helper.
    pub async fn read(&self, exec: &ExecRef, request: ReadRequest) -> Result<Output> {
        check_exec(exec)?;
        self.outputs.read(exec, request).await
    }

    /// Implements `wait-exec`.
    ///
    /// # Errors
    ///
    /// `not-found` for an unknown sandbox or command, otherwise the error of the helper.
    pub async fn wait(&self, exec: &ExecRef, wait: u64) -> Result<Option<Verdict>> {
        check_exec(exec)?;
        let until = self.helper.engine().now() + bounded_wait(wait);
        loop {
            let left = until.saturating_sub(self.helper.engine().now());
            let verb = Verb::new("wait").with("id", &exec.exec).waits(left.min(LONGEST_WAIT));
            let frames = match self.helper.call(&exec.sandbox, &verb).await {
                Ok(frames) => frames,
                Err(error) => {
                    return Ok(Some(match ended(&self.helper, &exec.sandbox, error).await? {
                        Verdict::SandboxEnded(EndReason::Finished(code)) if exec.exec == ids::MAIN => {
                            Verdict::Exited(code)
                        }
                        verdict => verdict,
                    }));
                }
            };
            let verdict =
                frames.iter().find_map(|frame| if let Frame::Verdict(text) = frame { Some(text) } else { None });
            match verdict {
                Some(text) => return Ok(Some(verdict_of(text))),
                None if self.helper.engine().now() < until => {}
                None => return Ok(None),
            }
        }
    }

    /// Implements `write-input`.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for a gap or too much data; otherwise the error of the helper.
    pub async fn write(&self, exec: &ExecRef, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState> {
        check_exec(exec)?;
        if data.len() > MAX_INPUT_BYTES {
            return Err(Error::invalid(format!(
                "{} bytes are too many for one call: write at most {MAX_INPUT_BYTES}.",
                data.len()
            )));
        }
        let verb = Verb::new("input").with("id", &exec.exec).with("offset", offset).flag("eof", eof);
        let end = offset + data.len() as u64;
        let verb = verb.data(data);
        let state = match self.helper.json(&exec.sandbox, &verb).await {
            Ok(state) => state,
            // The sandbox ended with the program that read the input.
            Err(error)
                if matches!((error.kind.clone(), error.happened), (ErrorKind::SandboxEnded, Happened::Unknown)) =>
            {
                return Ok(InputState { accepted: end, closed: true });
            }
            Err(error) => return Err(error),
        };
        let accepted = state.get("accepted").whole().unwrap_or(offset);
        Ok(InputState { accepted, closed: state.get("closed").flag().unwrap_or(false) })
    }

    /// Implements `signal`, also for transfers and watches.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for a wrong number, `conflict` if no process can be found.
    pub async fn signal(&self, exec: &ExecRef, signal: u32) -> Result<()> {
        check::signal(&exec.exec, signal)?;
        check_exec(exec)?;
        let verb = Verb::new("signal").with("id", &exec.exec).with("signal", signal);
        self.helper.call(&exec.sandbox, &verb).await.map(drop)
    }

    /// Implements `resize`.
    ///
    /// # Errors
    ///
    /// `conflict` if the command has no terminal; otherwise the error of the helper.
    pub async fn resize(&self, exec: &ExecRef, size: &Pty) -> Result<()> {
        check_exec(exec)?;
        let verb = Verb::new("resize").with("id", &exec.exec).with("rows", size.rows).with("columns", size.columns);
        self.helper.call(&exec.sandbox, &verb).await.map(drop)
    }

    /// Implements `list-execs`. The cursor is the id of the last command of a page.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for a wrong cursor; otherwise the error of the helper.
    pub async fn list(&self, sandbox: &str, cursor: Option<&str>, max: u32) -> Result<ExecPage> {
        inspect::check_id(sandbox)?;
        if max == 0 {
            return Err(Error::invalid("max is 0: ask for at least one command.").about("max"));
        }
        let answer = self.helper.json(sandbox, &Verb::new("execs")).await?;
        let mut all = items(answer.get("execs")).iter();
        if let Some(cursor) = cursor
            && !all.any(|exec| exec.get("id").text() == Some(cursor))
        {
            return Err(Error::invalid("The cursor is unknown: give the one of the last page.").about("cursor"));
        }
        let items: Vec<_> = all.by_ref().take(max.min(1000) as usize).map(info).collect();
        let next = items.last().filter(|_| all.next().is_some()).map(|last| last.id.clone());
        Ok(ExecPage { items, next })
    }
}

fn info(exec: &Value) -> ExecInfo {
    ExecInfo {
        id: exec.get("id").text().unwrap_or_default().to_string(),
        argv: crate::engine::strings(exec.get("argv")),
        started: exec.get("started").whole(),
        verdict: exec.get("verdict").text().map(verdict_of),
        container: None,
    }
}

/// Checks the ids of a call about a command.
fn check_exec(exec: &ExecRef) -> Result<()> {
    inspect::check_id(&exec.sandbox)?;
    check::absent(exec.container.is_some(), "sidecars")?;
    ids::check_chosen("an exec id", &exec.exec)
}

/// Returns the call of the helper that starts a command. With `run`, `stdin` is its whole input.
fn start_verb(spec: &ExecSpec, stdin: Bytes, run: bool) -> Verb {
    let discarded = |mode| (mode == OutputMode::Discard).then_some("discard");
    let mut verb = Verb::new("run")
        .with("id", &spec.id)
        .maybe("user", spec.user.as_ref())
        .maybe("cwd", spec.cwd.as_ref())
        .maybe("timeout", spec.timeout)
        .maybe("out", discarded(spec.stdout))
        .maybe("err", discarded(spec.stderr))
        .flag("merge", spec.merge_stderr);
    if let Some(pty) = &spec.pty {
        verb = verb.with("pty", format_args!("{}x{}", pty.rows, pty.columns)).with("term", &pty.term);
    }
    for (name, value) in &spec.env {
        verb = verb.with("env", format_args!("{name}={value}"));
    }
    if run && stdin.is_empty() {
        verb = verb.with("stdin", "none");
    } else if run {
        verb = verb.with("eof", 1).data(stdin);
    }
    verb.words(&spec.argv)
}

/// Parses the text of a verdict.
fn verdict_of(text: &str) -> Verdict {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match (word, rest.parse::<i32>(), rest.parse::<u32>()) {
        ("exited", Ok(code), _) => Verdict::Exited(code),
        ("signaled", _, Ok(signal)) => Verdict::Signaled(signal),
        ("deadline", ..) => Verdict::Deadline,
        ("out-of-memory", ..) => Verdict::OutOfMemory,
        ("lost", ..) => Verdict::Lost(clip(rest)),
        _ => Verdict::Other(clip(text)),
    }
}

/// Returns the verdict of a command whose sandbox has ended, or the error if that is not why the call failed.
async fn ended(helper: &Helper, sandbox: &str, error: Error) -> Result<Verdict> {
    if !matches!(error.kind, sandbox_provider_kit::api::wit::ErrorKind::SandboxEnded) {
        return Err(error);
    }
    let reason = match container::end(helper, sandbox).await {
        Ok(Some(reason)) => reason,
        Ok(None) | Err(_) => EndReason::Terminated,
    };
    Ok(Verdict::SandboxEnded(reason))
}

/// Marks an error of a command that was started.
fn after_start(error: Error) -> Error {
    error.with_happened(Happened::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read() {
        assert!(matches!(verdict_of("exited 3"), Verdict::Exited(3)));
        assert!(matches!(verdict_of("signaled 15"), Verdict::Signaled(15)));
        assert!(matches!(verdict_of("deadline"), Verdict::Deadline));
        assert!(matches!(verdict_of("out-of-memory"), Verdict::OutOfMemory));
        assert!(
            matches!(verdict_of("lost the supervisor was killed"), Verdict::Lost(text) if text.starts_with("the "))
        );
        assert!(matches!(verdict_of("exited x"), Verdict::Other(_)));
    }
}
