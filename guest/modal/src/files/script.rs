//! File operations that Modal's helper lacks (fact sheet, section 8.1), done by the image's own programs: mode, append,
//! create-new, rename, links, trees. How they are found: [`crate::exec::inside`]. They run in the C locale, so that their
//! complaints are those of POSIX in words.

use crate::{exec::inside, files::transfer::check_location, provider::Provider};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::clip,
        wit::{FileChunk, FileFault, Location, WriteMode, WriteOptions},
    },
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

/// Unpacks standard input into the directory `$1`. Owners are those of whoever unpacks; `tar` refuses what would land
/// outside.
const UNPACK: &str = r#"need mkdir tar; mkdir -p -- "$1" && exec tar -C "$1" -xpof -"#;

/// Packs the directory `$1`.
const PACK: &str = r#"need tar; exec tar -C "$1" -cf - ."#;

/// Gives `$2` the mode `$1`.
const CHMOD: &str = r#"need chmod; exec chmod -- "$1" "$2""#;

/// What writes a file with these options; none where the helper does it.
pub(crate) fn writer(at: &Location, options: &WriteOptions, transfer: &str) -> Option<Vec<String>> {
    let how = match options.mode {
        WriteMode::Replace if options.permissions.is_none() => return None,
        WriteMode::Replace => "replace",
        WriteMode::Append => "append",
        WriteMode::CreateNew => "create-new",
    };
    let mode = options.permissions.map(octal).unwrap_or_default();
    Some(inside::script(WRITE, &[&at.path, how, &mode, &format!(".{transfer}.tmp")]))
}

/// Five digits: with less, `chmod` keeps the special bits of directories.
fn octal(permissions: u32) -> String {
    format!("{permissions:05o}")
}

impl Provider {
    /// See `rename` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn rename(&self, at: &Location, to: &str, replace: bool) -> Result<()> {
        check::path(to)?;
        self.change(at, RENAME, &[&at.path, to, if replace { "yes" } else { "no" }]).await
    }

    /// See `make-symlink` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn make_symlink(&self, at: &Location, target: &str) -> Result<()> {
        if target.is_empty() || target.contains('\0') || target.len() > 4095 {
            return Err(Error::invalid("A link holds 1 to 4095 bytes without NUL.").about(&at.path));
        }
        self.change(at, LINK, &[target, &at.path]).await
    }

    /// See `set-permissions` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn set_permissions(&self, at: &Location, permissions: u32) -> Result<()> {
        check::permissions(permissions)?;
        self.change(at, CHMOD, &[&octal(permissions), &at.path]).await
    }

    async fn change(&self, at: &Location, script: &str, words: &[&str]) -> Result<()> {
        let argv = inside::script(script, words);
        loop {
            let changed = self.answer(at, argv.clone()).await;
            if !self.is_elsewhere(at, changed.as_ref().err()).await {
                return changed.map(drop);
            }
        }
    }

    /// See `read-tree` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn read_tree(&self, at: &Location, transfer: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
        check::transfer(transfer)?;
        let argv = inside::script(PACK, &[&at.path]);
        loop {
            let id = self.script_id(at, transfer);
            let read = self.read_transfer(at, &id, argv.clone(), offset, max_bytes).await;
            if !self.is_elsewhere(at, read.as_ref().err()).await {
                return read;
            }
        }
    }

    /// See `write-tree` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn write_tree(
        &self,
        at: &Location,
        transfer: &str,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> Result<u64> {
        check_location(at)?;
        check::transfer(transfer)?;
        let (argv, data) = (inside::script(UNPACK, &[&at.path]), bytes::Bytes::from(data));
        loop {
            let id = self.script_id(at, transfer);
            let written = self.write_transfer(at, &id, argv.clone(), offset, data.clone(), eof).await;
            if !self.is_elsewhere(at, written.as_ref().err()).await {
                return written;
            }
        }
    }
}

/// What `tar` says of a file that was written to or removed while it was read, and exits with 1. The stream is whole.
const CHANGED: [&str; 2] = ["file changed as we read it", "File removed before we read it"];

/// Whether a program that ended so has done what it was asked for all the same.
pub(crate) fn is_harmless(code: i32, complaint: &str) -> bool {
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
pub(crate) fn fault(complaint: &str) -> FileFault {
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
