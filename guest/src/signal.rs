//! Signals to an exec and the size of its terminal. Modal has calls for neither: a second exec, a shell script, finds the
//! process tree and does it (fact sheet, section 7.4).

use std::time::Duration;

use crate::{
    bindings::{ErrorKind, ExecRef, ExecSpec, Keep, OutputLimits, Pty, RunResult, Verdict},
    error::{Error, Result},
    execs::{check_ref, plain_spec},
    ids,
    provider::Provider,
};

/// Set in each exec's environment, and so inherited by its whole process tree: how the scripts find it.
pub(crate) const MARKER: &str = "SANDBOX_EXEC_ID";

/// Sends signal `$2` to the exec whose marker is `$1`: to every process whose environment carries it, to all their
/// descendants, and to all groups and sessions that one of them leads. A process that cleared its environment is missed
/// only when nothing above it is left. SIGKILL is repeated until nobody is left, so that a tree that forks while it is
/// being killed does not get away, but not for ever: a process may be stuck in the kernel.
const SIGNAL_SCRIPT: &str = r#"
marker=$1 signal=$2 rounds=0
while [ "$rounds" -lt 50 ]; do
  rounds=$((rounds + 1)) members=' '
  for dir in /proc/[0-9]*; do
    pid=${dir#/proc/}
    [ "$pid" = 1 ] && continue
    if tr '\0' '\n' <"$dir/environ" 2>/dev/null | grep -q "^SANDBOX_EXEC_ID=$marker\$"; then
      members="$members$pid "
    fi
  done
  if [ "$members" = ' ' ]; then
    [ "$rounds" -gt 1 ] || exit 3
    break
  fi
  grown=yes
  while [ -n "$grown" ]; do
    grown=
    for dir in /proc/[0-9]*; do
      pid=${dir#/proc/}
      [ "$pid" = 1 ] && continue
      case $members in *" $pid "*) continue;; esac
      { read -r line <"$dir/stat"; } 2>/dev/null || continue
      # After the name, which may hold anything: state, parent, group, session.
      set -- ${line##*) }
      [ "$1" = Z ] && continue
      for above in "$2" "$3" "$4"; do
        case $members in *" $above "*) members="$members$pid " grown=yes; break;; esac
      done
    done
  done
  for pid in $members; do
    kill -"$signal" "$pid" 2>/dev/null
  done
  [ "$signal" = 9 ] || break
done
"#;

/// Gives the terminal of the exec whose marker is `$1` `$2` rows and `$3` columns. The kernel tells whoever runs in it.
const RESIZE_SCRIPT: &str = r#"
for dir in /proc/[0-9]*; do
  if tr '\0' '\n' <"$dir/environ" 2>/dev/null | grep -q "^SANDBOX_EXEC_ID=$1\$"; then
    for fd in 0 1 2; do
      if { [ -t 3 ] 3<"$dir/fd/$fd"; } 2>/dev/null; then
        exec stty rows "$2" cols "$3" <"$dir/fd/$fd"
      fi
    done
  fi
done
exit 3
"#;

/// How both end when they find nobody.
const NOBODY: i32 = 3;

/// How often an exec that has not ended is looked for. One that was just started, or is just becoming another program, has no
/// marker for a moment, which on a busy machine is seconds. With [`FIRST_PAUSE`] the looks take five seconds.
const LOOKS: u32 = 8;

/// Pause behind the first look; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

impl Provider {
    /// See `signal` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there; `unsupported` where the image lacks a shell, `tr` or `grep`.
    pub async fn signal(&self, exec: ExecRef, signal: u32) -> Result<()> {
        check_ref(&exec)?;
        if !(1..=64).contains(&signal) {
            return Err(Error::invalid(format!("{signal} is not a signal: Linux has 1 to 64.")));
        }
        if exec.exec == ids::MAIN {
            return Err(Error::unsupported(
                "exec.signal",
                "The entry-point command cannot be signalled: terminate the sandbox.",
            ));
        }
        for look in 0..LOOKS {
            let result = self.script(&exec, SIGNAL_SCRIPT, &[signal.to_string()]).await?;
            match result.verdict {
                Verdict::Exited(0) | Verdict::SandboxEnded(_) => return Ok(()),
                // It has ended, or there never was one.
                Verdict::Exited(NOBODY) if self.has_ended(&exec).await? => return Ok(()),
                Verdict::Exited(NOBODY) => self.transport().sleep(FIRST_PAUSE * (1 << look)).await,
                verdict => return Err(failed("exec.signal", "tr and grep", &verdict, &result.stderr.data)),
            }
        }
        let text = format!(
            "No process of the exec {} can be found: it has cleared its environment. Terminating the sandbox ends it.",
            exec.exec
        );
        Err(Error::new(ErrorKind::Conflict, text).about(&exec.exec))
    }

    /// See `resize` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there; `unsupported` where the image lacks a shell, `tr`, `grep` or `stty`.
    pub async fn resize(&self, exec: ExecRef, size: Pty) -> Result<()> {
        check_ref(&exec)?;
        if size.rows == 0 || size.columns == 0 {
            return Err(Error::invalid("A terminal has at least one row and one column."));
        }
        if exec.exec == ids::MAIN {
            return Err(Error::unsupported("exec.resize", "The terminal of the entry-point command has a fixed size."));
        }
        let words = [size.rows.to_string(), size.columns.to_string()];
        let result = self.script(&exec, RESIZE_SCRIPT, &words).await?;
        match result.verdict {
            Verdict::Exited(0) | Verdict::SandboxEnded(_) => Ok(()),
            Verdict::Exited(NOBODY) if self.has_ended(&exec).await? => Ok(()),
            Verdict::Exited(NOBODY) => {
                Err(Error::new(ErrorKind::Conflict, format!("The exec {} has no terminal.", exec.exec))
                    .about(&exec.exec))
            }
            verdict => Err(failed("exec.resize", "tr, grep and stty", &verdict, &result.stderr.data)),
        }
    }

    async fn has_ended(&self, exec: &ExecRef) -> Result<bool> {
        let exit = self.wait_exit(&exec.sandbox, &ids::wire_uuid(&exec.exec), Duration::ZERO).await?;
        Ok(exit.is_some())
    }

    /// Runs a script about an exec: its marker is `$1`, then come `words`.
    async fn script(&self, exec: &ExecRef, script: &str, words: &[String]) -> Result<RunResult> {
        let mut argv: Vec<String> =
            ["/bin/sh", "-c", script, "sh", &ids::wire_uuid(&exec.exec)].map(str::to_string).into();
        argv.extend_from_slice(words);
        let spec = ExecSpec { argv, container: exec.container.clone(), ..plain_spec(self.new_uuid()) };
        let limits = OutputLimits { stdout_max: 0, stderr_max: 4096, keep: Keep::Tail };
        // Boxed: `run` ends what has outlived its time limit, and so comes here.
        Box::pin(self.run(&exec.sandbox, spec, Vec::new(), limits)).await
    }
}

fn failed(capability: &str, tools: &str, verdict: &Verdict, complaint: &[u8]) -> Error {
    if matches!(verdict, Verdict::Exited(126 | 127)) {
        return Error::unsupported(
            capability,
            format!("This is done by a shell inside the sandbox, and the image has no /bin/sh with {tools}."),
        );
    }
    let text = crate::error::clip(String::from_utf8_lossy(complaint).trim());
    let end = match verdict {
        Verdict::Exited(code) => format!("exit code {code}"),
        Verdict::Signaled(signal) => format!("signal {signal}"),
        Verdict::Deadline | Verdict::SandboxEnded(_) | Verdict::Lost(_) => "it did not end by itself".to_string(),
    };
    Error::internal(format!("The script inside the sandbox failed ({end}): {text}"))
}
