//! Signals to a command and the size of its terminal, for services without such calls. A script in the sandbox finds
//! the process tree by a marker in the environment of its processes.

use super::script::Script;

/// An environment variable that is set for each command and inherited by its process tree. The scripts find processes
/// by it. Its name does not tell programs in the sandbox where they run.
pub const MARKER: &str = "PROCESS_TAG";

/// Defines `marked DIRECTORY`, which returns whether the process of this directory of `/proc` has the marker. Without
/// `tr` and `grep`, the shell itself reads the environment, byte by byte and without the zero bytes. Without
/// `CAP_SYS_PTRACE`, even root may not read the environment of another user's process, so `grep` runs as that user.
/// Such a user can only hide or fake its own processes.
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

/// Sends the signal `$2` to the exec with the marker `$1`: to each process with the marker, to all descendants of
/// these, and to all groups and sessions that one of them leads. Misses a process that cleared its environment only if
/// all processes above it have ended. After `$3` tenths of a second, the remaining processes get SIGKILL; 0 for never.
/// SIGKILL is repeated until no process is left, because a tree can fork while it is being killed, but at most for 50
/// rounds, because a process can hang in the kernel.
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

/// Sets the terminal of the exec with the marker `$1` to `$2` rows and `$3` columns. The kernel then notifies its
/// programs.
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

/// Exit code of both scripts if they find no process.
pub const NOT_FOUND: i32 = 3;

/// Returns the script that sends `signal` to a command and all its processes. `marker` is the value of [`MARKER`].
/// After `grace` tenths of a second, the remaining processes get SIGKILL; 0 for never.
#[must_use]
pub fn signal(marker: &str, signal: u32, grace: u32) -> Script {
    Script::new(format!("{MARKED}{SIGNAL_SCRIPT}"), &[marker, &signal.to_string(), &grace.to_string()])
}

/// Returns the script that sets the size of the terminal of a command. `marker` is the value of [`MARKER`].
#[must_use]
pub fn resize(marker: &str, rows: u16, columns: u16) -> Script {
    Script::new(format!("{MARKED}{RESIZE_SCRIPT}"), &[marker, &rows.to_string(), &columns.to_string()])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_scripts_look_for_the_marker() {
        assert_eq!(super::MARKED.matches(&format!("{}=$marker", super::MARKER)).count(), 3);
    }
}
