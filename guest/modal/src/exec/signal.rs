//! Signals to an exec and the size of its terminal. Modal has calls for neither: a second exec, a shell script, finds the
//! process tree and does it (fact sheet, section 7.4).

use std::time::Duration;

use crate::{
    exec::{inside, process::check_ref},
    provider::Provider,
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        error::clip,
        ids,
        wit::{ErrorKind, ExecRef, Keep, OutputLimits, Pty, RunResult, Verdict},
    },
};

/// Set in each exec's environment, and so inherited by its whole process tree: how the scripts find it. Its name is one
/// that tells programs in the sandbox nothing of where they run.
pub(crate) const MARKER: &str = "PROCESS_TAG";

/// `marked DIRECTORY`: whether the process of that directory of /proc carries the marker. Without `tr` and `grep` the shell
/// reads the environment itself, byte by byte and leaving out the zero bytes. That of another user's process even root may
/// not read without CAP_SYS_PTRACE, so that user looks at it; such a user can lie about processes of its own, and no more.
const MARKED: &str = r#"
marker=$1 switch=
command -v tr >/dev/null 2>&1 && command -v grep >/dev/null 2>&1 && fast=yes || fast=
marked() {
  if ! { true <"$1/environ"; } 2>/dev/null; then
    owned "$1"
    return
  fi
  if [ -n "$fast" ]; then
    tr '\0' '\n' 2>/dev/null <"$1/environ" | grep -q "^PROCESS_TAG=$marker\$"
    return
  fi
  while read -r line || [ -n "$line" ]; do
    case $line in *"PROCESS_TAG=$marker"*) return 0;; esac
  done <"$1/environ"
  return 1
}
owned() {
  uid= gid=
  while read -r key id _; do
    case $key in Uid:) uid=$id;; Gid:) gid=$id;; esac
  done 2>/dev/null <"$1/status"
  [ -n "$uid" ] && [ "$uid" != 0 ] || return 1
  if [ -z "$switch" ]; then
    if setpriv --reuid=1 --regid=1 --clear-groups true; then switch=setpriv
    elif chroot --userspec=1:1 / true; then switch=chroot
    else switch=su; fi >/dev/null 2>&1
  fi
  set -- grep -qzF "PROCESS_TAG=$marker" "$1/environ"
  case $switch in
    setpriv) setpriv --reuid="$uid" --regid="$gid" --clear-groups "$@";;
    chroot) chroot --userspec="$uid:$gid" / "$@";;
    su)
      name=
      while IFS=: read -r name _ id _; do [ "$id" = "$uid" ] && break; name=; done </etc/passwd
      [ -n "$name" ] && su -s /bin/sh -c "$*" "$name";;
  esac 2>/dev/null
}
"#;

/// Sends signal `$2` to the exec whose marker is `$1`: to every process whose environment carries it, to all their
/// descendants, and to all groups and sessions that one of them leads. A process that cleared its environment is missed
/// only when nothing above it is left. When `$3` tenths of a second have passed, those that are left get SIGKILL; 0 for
/// none. SIGKILL is repeated until no process is left, so that a tree that forks while it is being killed does not get away,
/// but not for ever: a process may be stuck in the kernel.
const SIGNAL_SCRIPT: &str = r#"
signal=$2 grace=$3 rounds=0
# Leaves those of $alive that live, by number and time of start, for numbers are given again.
living() {
  left=
  for one in $alive; do
    { read -r line <"/proc/${one%:*}/stat"; } 2>/dev/null || continue
    set -- ${line##*) }
    [ "$1" = Z ] && continue
    case $one in *:|*":${20}") left="$left${one%:*}:${20} ";; esac
  done
  alive=$left
  [ -n "$alive" ]
}
while [ "$rounds" -lt 50 ]; do
  rounds=$((rounds + 1)) members=' '
  for dir in /proc/[0-9]*; do
    pid=${dir#/proc/}
    [ "$pid" = 1 ] && continue
    if marked "$dir" 2>/dev/null; then
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
  if [ "$grace" -gt 0 ]; then
    alive=
    for pid in $members; do
      alive="$alive$pid: "
    done
    living
  fi
  for pid in $members; do
    kill -"$signal" "$pid" 2>/dev/null
  done
  if [ "$grace" -gt 0 ]; then
    while [ "$grace" -gt 0 ] && living; do
      if sleep 0.1 2>/dev/null; then
        grace=$((grace - 1))
      else
        sleep 1 2>/dev/null && grace=$((grace - 10)) || grace=0
      fi
    done
    signal=9 grace=0
    # Of those that are left, nothing above may be, so that the next look would not find them.
    for one in $alive; do
      kill -9 "${one%:*}" 2>/dev/null
    done
  fi
  [ "$signal" = 9 ] || break
done
"#;

/// Gives the terminal of the exec whose marker is `$1` `$2` rows and `$3` columns. The kernel tells whoever runs in it.
const RESIZE_SCRIPT: &str = r#"
need stty
rows=$2 columns=$3
for dir in /proc/[0-9]*; do
  if marked "$dir" 2>/dev/null; then
    { read -r line <"$dir/stat"; } 2>/dev/null || continue
    # The number of its terminal, for the files of another user's process may not be looked at: 136 and more are /dev/pts.
    set -- ${line##*) }
    terminal=${5:-0}
    [ $((terminal >> 8 & 0xff)) = 136 ] && terminal=/dev/pts/$((terminal & 0xff | terminal >> 12 & 0xfff00)) || terminal=
    for file in "$dir/fd/0" "$dir/fd/1" "$dir/fd/2" $terminal; do
      if { [ -t 3 ] 3<"$file"; } 2>/dev/null; then
        exec stty rows "$rows" cols "$columns" <"$file"
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
    /// As documented there; `unsupported` where the image lacks a shell.
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
        self.send(&exec, signal, 0).await
    }

    /// Ends an exec with all that it has started: by SIGTERM, and by SIGKILL what is left after a grace.
    pub(crate) async fn end(&self, exec: &ExecRef, grace_tenths: u32) -> Result<()> {
        self.send(exec, 15, grace_tenths).await
    }

    async fn send(&self, exec: &ExecRef, signal: u32, grace_tenths: u32) -> Result<()> {
        for look in 0..LOOKS {
            let words = [signal.to_string(), grace_tenths.to_string()];
            let result = self.script(exec, SIGNAL_SCRIPT, &words).await?;
            match result.verdict {
                Verdict::Exited(0) | Verdict::SandboxEnded(_) => return Ok(()),
                // It has ended, or there never was one.
                Verdict::Exited(NOBODY) if self.has_ended(exec).await? => return Ok(()),
                Verdict::Exited(NOBODY) => self.transport().sleep(FIRST_PAUSE * (1 << look)).await,
                verdict => return Err(failed("exec.signal", "", &verdict, &result.stderr.data)),
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
    /// As documented there; `unsupported` where the image lacks a shell or `stty`.
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
            verdict => Err(failed("exec.resize", " and stty", &verdict, &result.stderr.data)),
        }
    }

    async fn has_ended(&self, exec: &ExecRef) -> Result<bool> {
        let exit = self.wait_exit(&exec.sandbox, &ids::wire_uuid(&exec.exec), Duration::ZERO).await?;
        Ok(exit.is_some())
    }

    /// Runs a script about an exec: its marker is `$1`, then come `words`.
    async fn script(&self, exec: &ExecRef, script: &str, words: &[String]) -> Result<RunResult> {
        let id = ids::wire_uuid(&exec.exec);
        let words: Vec<&str> = std::iter::once(&*id).chain(words.iter().map(|word| &**word)).collect();
        let argv = inside::script(&format!("{MARKED}{script}"), &words);
        let limits = OutputLimits { stdout_max: 0, stderr_max: 4096, keep: Keep::Tail };
        self.run_script(&exec.sandbox, exec.container.as_deref(), argv, limits).await
    }
}

fn failed(capability: &str, tools: &str, verdict: &Verdict, complaint: &[u8]) -> Error {
    if matches!(verdict, Verdict::Exited(126 | 127)) {
        return Error::unsupported(
            capability,
            format!("This is done by a shell inside the sandbox, and the image has no /bin/sh{tools}."),
        );
    }
    let text = clip(String::from_utf8_lossy(complaint).trim());
    let end = match verdict {
        Verdict::Exited(code) => format!("exit code {code}"),
        Verdict::Signaled(signal) => format!("signal {signal}"),
        Verdict::Deadline | Verdict::SandboxEnded(_) | Verdict::Lost(_) => "it did not end by itself".to_string(),
    };
    Error::internal(format!("The script inside the sandbox failed ({end}): {text}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_scripts_look_for_the_marker() {
        assert_eq!(super::MARKED.matches(&format!("{}=$marker", super::MARKER)).count(), 3);
    }
}
