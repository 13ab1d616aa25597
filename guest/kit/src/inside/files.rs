//! File operations with programs of the image: mode, append, create-new, rename, links, trees. The programs run in the
//! C locale, so that their messages are the standard texts of POSIX errors.

use super::script::Script;
use crate::api::{
    error::clip,
    wit::{FileFault, WriteMode, WriteOptions},
};

/// Writes standard input to the file `$1`, which is created or changed only when the input is complete. `$2` is the
/// write mode, `$3` the file mode or empty, `$4` the name of the temporary file.
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

/// Moves `$1` to `$2`; `$3` is `yes` to replace `$2`. Behaves like rename(2), while `mv` alone would move into a
/// directory.
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

/// Makes the symbolic link `$2` with the target `$1`.
const LINK: &str = r#"
if [ -e "$2" ] || [ -L "$2" ]; then echo "$2: File exists" >&2; exit 1; fi
need ln
exec ln -s -- "$1" "$2"
"#;

/// Unpacks standard input into the directory `$1`. The files belong to the user of the process. `tar` rejects entries
/// outside the directory.
const UNPACK: &str = r#"need mkdir tar; mkdir -p -- "$1" && exec tar -C "$1" -xpof -"#;

/// Writes the directory `$1` to standard output as a tar archive.
const PACK: &str = r#"need tar; exec tar -C "$1" -cf - ."#;

/// Sets the mode of `$2` to `$1`.
const CHMOD: &str = r#"need chmod; exec chmod -- "$1" "$2""#;

/// Returns the script that writes standard input to a file. `draft` is the name of a temporary file in the same
/// directory.
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

/// Returns the script that moves a file or directory like rename(2).
#[must_use]
pub fn rename(from: &str, to: &str, replace: bool) -> Script {
    Script::new(RENAME, &[from, to, if replace { "yes" } else { "no" }])
}

/// Returns the script that makes a symbolic link to `target`.
#[must_use]
pub fn link(path: &str, target: &str) -> Script {
    Script::new(LINK, &[target, path])
}

/// Returns the script that sets the mode bits of a file.
#[must_use]
pub fn chmod(path: &str, permissions: u32) -> Script {
    Script::new(CHMOD, &[&octal(permissions), path])
}

/// Returns the script that prints a directory as a tar archive.
#[must_use]
pub fn pack(path: &str) -> Script {
    Script::new(PACK, &[path])
}

/// Returns the script that unpacks a tar archive from standard input into a directory.
#[must_use]
pub fn unpack(path: &str) -> Script {
    Script::new(UNPACK, &[path])
}

/// Formats a mode with five digits: with fewer, `chmod` keeps the special bits of directories.
fn octal(permissions: u32) -> String {
    format!("{permissions:05o}")
}

/// Messages of `tar` about a file that was changed or removed while it was read. `tar` exits with 1, but the archive is
/// complete.
const CHANGED: [&str; 2] = ["file changed as we read it", "File removed before we read it"];

/// Returns whether a program with this exit code and standard error succeeded in spite of them: `tar` with only the
/// messages above.
#[must_use]
pub fn is_harmless(code: i32, complaint: &str) -> bool {
    let mut lines = complaint.lines().filter(|line| !line.is_empty()).peekable();
    code == 1 && lines.peek().is_some() && lines.all(|line| CHANGED.iter().any(|text| line.ends_with(text)))
}

/// The texts of POSIX errors, which programs print at the end of a line.
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

/// Returns the fault that the standard error of a program describes. Returns `Other` with its first line if it is
/// unknown.
#[must_use]
pub fn fault(complaint: &str) -> FileFault {
    for line in complaint.lines() {
        let line = line.trim_end();
        // A parent directory is a file.
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
            // A file name that looks like an error text is not taken for one.
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
