//! File operations by the image's own programs: mode, append, create-new, rename, links, trees. They run in the C locale, so
//! that their complaints are those of POSIX in words.

use super::script::Script;
use crate::api::{
    error::clip,
    wit::{FileFault, WriteMode, WriteOptions},
};

/// Writes standard input to the file `$1`, which appears or grows when all of it is there. `$2` is how, `$3` the mode or
/// empty, `$4` the name of the draft.
const WRITE: &str = r#"
fail() { echo "$1: $2" >&2; exit 1; }
path=$1 how=$2 mode=$3
need mkdir rm cat chmod mv
case $path in */) fail "$path" 'Is a directory';; esac
if [ -L "$path" ] && [ "$how" != create-new ]; then
  # Written through, as the kernel does it. The letter keeps line ends at the end of a name.
  need readlink
  path=$(readlink -f -- "$path" && echo x)
  path=${path%?x}
  [ -n "$path" ] || fail "$1" 'Too many levels of symbolic links'
fi
if [ "$how" = create-new ] && { [ -e "$path" ] || [ -L "$path" ]; }; then fail "$path" 'File exists'; fi
[ -d "$path" ] && fail "$path" 'Is a directory'
directory=${path%/*}/
mkdir -p -- "$directory" || exit 1
draft=$directory$4
trap 'rm -f -- "$draft"' EXIT
trap 'exit 1' HUP INT TERM
umask 077
# Nothing is written through what another user may have put there.
set -C
cat >"$draft" || exit 1
set +C
if [ "$how" = replace ] && { [ -f "$path" ] || [ ! -e "$path" ]; }; then
  chmod -- "$mode" "$draft" && mv -f -- "$draft" "$path"
  exit
fi
if [ "$how" = create-new ]; then
  need ln
  chmod -- "${mode:-00644}" "$draft" || exit 1
  # A link to what is there fails; where there are no links, so does the redirection.
  ln -- "$draft" "$path" 2>/dev/null && exit
  set -C
fi
[ -e "$path" ] || mode=${mode:-00644}
if [ "$how" = append ]; then cat -- "$draft" >>"$path"; else cat -- "$draft" >"$path"; fi || exit 1
[ -z "$mode" ] || chmod -- "$mode" "$path"
"#;

/// Moves `$1` to `$2`; `$3` is `yes` to replace. As rename(2) does it, while `mv` alone would move into a directory.
const RENAME: &str = r#"
need mv rmdir rm
fail() { echo "$1: $2" >&2; exit 1; }
real_directory() { [ -d "$1" ] && [ ! -L "$1" ]; }
[ -e "$1" ] || [ -L "$1" ] || fail "$1" 'No such file or directory'
if [ -e "$2" ] || [ -L "$2" ]; then
  [ "$3" = yes ] || fail "$2" 'File exists'
  [ ! -L "$1" ] && [ ! -L "$2" ] && [ "$1" -ef "$2" ] && exit 0
  if real_directory "$2"; then
    real_directory "$1" || fail "$2" 'Is a directory'
    rmdir -- "$2" || exit 1
  elif real_directory "$1"; then
    fail "$2" 'Not a directory'
  elif [ -d "$2" ]; then
    rm -f -- "$2" || exit 1
  fi
fi
exec mv -f -- "$1" "$2"
"#;

/// Makes the link `$2` that holds `$1`.
const LINK: &str = r#"
if [ -e "$2" ] || [ -L "$2" ]; then echo "$2: File exists" >&2; exit 1; fi
need ln
exec ln -s -- "$1" "$2"
"#;

/// Unpacks standard input into the directory `$1`. Owners are those of the unpacking process; `tar` refuses what would land
/// outside.
const UNPACK: &str = r#"need mkdir tar; mkdir -p -- "$1" && exec tar -C "$1" -xpof -"#;

/// Packs the directory `$1`.
const PACK: &str = r#"need tar; exec tar -C "$1" -cf - ."#;

/// Gives `$2` the mode `$1`.
const CHMOD: &str = r#"need chmod; exec chmod -- "$1" "$2""#;

/// Writes standard input to a file. `draft` names the temporary file beside it.
#[must_use]
pub fn write(path: &str, options: &WriteOptions, draft: &str) -> Script {
    let how = match options.mode {
        WriteMode::Replace => "replace",
        WriteMode::Append => "append",
        WriteMode::CreateNew => "create-new",
    };
    let mode = options.permissions.map(octal).unwrap_or_default();
    Script::new(WRITE, &[path, how, &mode, draft])
}

/// Moves a file or directory, as rename(2) does it.
#[must_use]
pub fn rename(from: &str, to: &str, replace: bool) -> Script {
    Script::new(RENAME, &[from, to, if replace { "yes" } else { "no" }])
}

/// Makes a symbolic link that holds `target`.
#[must_use]
pub fn link(path: &str, target: &str) -> Script {
    Script::new(LINK, &[target, path])
}

/// Gives a file these permissions.
#[must_use]
pub fn chmod(path: &str, permissions: u32) -> Script {
    Script::new(CHMOD, &[&octal(permissions), path])
}

/// Prints a directory as a tar archive.
#[must_use]
pub fn pack(path: &str) -> Script {
    Script::new(PACK, &[path])
}

/// Unpacks a tar archive from standard input into a directory.
#[must_use]
pub fn unpack(path: &str) -> Script {
    Script::new(UNPACK, &[path])
}

/// Five digits: with less, `chmod` keeps the special bits of directories.
fn octal(permissions: u32) -> String {
    format!("{permissions:05o}")
}

/// What `tar` says of a file that was written to or removed while it was read, and exits with 1. The stream is whole.
const CHANGED: [&str; 2] = ["file changed as we read it", "File removed before we read it"];

/// Whether a program that ended with this exit code and these complaints has done what it was asked for all the same.
#[must_use]
pub fn is_harmless(code: i32, complaint: &str) -> bool {
    let mut lines = complaint.lines().filter(|line| !line.is_empty()).peekable();
    code == 1 && lines.peek().is_some() && lines.all(|line| CHANGED.iter().any(|text| line.ends_with(text)))
}

/// The errors of POSIX, as programs print them at the end of a line.
const ERRORS: [(&str, FileFault); 10] = [
    ("No such file or directory", FileFault::NotFound),
    ("Is a directory", FileFault::IsADirectory),
    ("Not a directory", FileFault::NotADirectory),
    ("Directory not empty", FileFault::NotEmpty),
    ("File exists", FileFault::AlreadyExists),
    ("Permission denied", FileFault::PermissionDenied),
    ("Operation not permitted", FileFault::PermissionDenied),
    ("File too large", FileFault::TooLarge),
    ("No space left on device", FileFault::NoSpace),
    ("Disk quota exceeded", FileFault::NoSpace),
];

/// The fault that a program's complaint names.
#[must_use]
pub fn fault(complaint: &str) -> FileFault {
    for line in complaint.lines() {
        let line = line.trim_end();
        // A parent that is a file.
        if line.starts_with("mkdir") && line.ends_with("File exists") {
            return FileFault::NotADirectory;
        }
        for (text, fault) in &ERRORS {
            if line.ends_with(text) {
                return fault.clone();
            }
        }
    }
    FileFault::Other(clip(complaint.lines().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_their_fault() {
        let cases = [
            ("mv: cannot stat '/a': No such file or directory\n", FileFault::NotFound),
            ("sh: 17: cannot create /x/.d: Permission denied", FileFault::PermissionDenied),
            ("mkdir: cannot create directory '/f/d': Not a directory\n", FileFault::NotADirectory),
            ("mkdir: can't create directory '/f': File exists", FileFault::NotADirectory),
            ("/x: File exists\n", FileFault::AlreadyExists),
            ("rmdir: failed to remove '/d': Directory not empty", FileFault::NotEmpty),
            ("cat: write error: No space left on device\n", FileFault::NoSpace),
            ("tar: ./a: Cannot open: Permission denied\ntar: Exiting with failure status", FileFault::PermissionDenied),
            // A name that reads like an error is none.
            ("mv: '/Is a directory/x': Read-only file system", FileFault::Other(String::new())),
            ("", FileFault::Other(String::new())),
        ];
        for (text, expected) in cases {
            let found = fault(text);
            assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&expected), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_file_that_changes_does_not_spoil_its_tree() {
        assert!(is_harmless(1, "tar: ./log: file changed as we read it\n"));
        assert!(is_harmless(1, "tar: ./a: File removed before we read it\ntar: .: file changed as we read it\n"));
        assert!(!is_harmless(2, "tar: ./log: file changed as we read it\n"));
        assert!(!is_harmless(1, "tar: ./log: file changed as we read it\ntar: ./a: Cannot open: Permission denied\n"));
        assert!(!is_harmless(1, ""));
    }
}
