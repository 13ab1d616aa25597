//! `sandbox-host cp`: copies files and directories to, from and between sandboxes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use sandbox_host::Sandbox;
use sandbox_host::types::{FileKind, WriteOptions};
use tokio::io::{AsyncWriteExt, BufReader};

use crate::args::Cp;
use crate::output::results;
use crate::output::{self, Failure};
use crate::session::Session;
use crate::steps::place::{Place, ours};

/// The result of a copy.
struct Copied {
    /// Size in bytes; for directories, the size of the stream.
    size: u64,
    /// Number of entries of a directory that were not copied.
    skipped: u64,
}

impl From<u64> for Copied {
    fn from(size: u64) -> Copied {
        Copied { size, skipped: 0 }
    }
}

/// Runs `sandbox-host cp`. Returns the exit code.
pub async fn cp(session: &Session, args: Cp) -> Result<i32> {
    let what = format!("copy {} to {}", args.source, args.destination);
    let (source, destination) = (Place::parse(&args.source), Place::parse(&args.destination));
    let both_here = !matches!((&source, &destination), (Place::Remote { .. }, _) | (_, Place::Remote { .. }));
    if both_here {
        return Err(Failure::new(what, "neither path is in a sandbox")
            .hint("write SANDBOX-ID:/absolute/path for a path in a sandbox")
            .into());
    }
    let provider = session.provider().await?;
    let copied: Copied = match (source, destination) {
        (Place::Remote { id, path }, Place::Local(to)) => {
            get(session, &provider.sandbox(id), &path, &to, args.recursive).await?
        }
        (Place::Remote { id, path }, Place::Stream) => {
            let sandbox = provider.sandbox(id);
            if session.voice.json {
                return Err(Failure::new(what, "standard output cannot be used for both the file and JSON")
                    .hint("omit --json")
                    .into());
            }
            let transfer = session.voice.transfer(format!("copying {path}"), None);
            let to = transfer.wrap(tokio::io::stdout());
            let size =
                if args.recursive { sandbox.download_tree(&path, to).await } else { sandbox.download(&path, to).await };
            size.map_err(ours)?.into()
        }
        (Place::Local(from), Place::Remote { id, path }) => {
            put(session, &provider.sandbox(id), &from, &path, args.recursive).await?
        }
        (Place::Stream, Place::Remote { id, path }) => {
            let sandbox = provider.sandbox(id);
            let transfer = session.voice.transfer(format!("copying to {path}"), None);
            let from = transfer.wrap(tokio::io::stdin());
            let size = if args.recursive {
                sandbox.upload_tree(&path, from).await?
            } else {
                sandbox.upload(&path, from, WriteOptions::default()).await?
            };
            size.into()
        }
        (Place::Remote { id, path }, Place::Remote { id: to, path: at }) => {
            between(session, &provider.sandbox(id), &path, &provider.sandbox(to), &at, args.recursive).await?.into()
        }
        _ => return Err(Failure::new(what, "neither path is in a sandbox").into()),
    };
    if session.voice.json {
        output::print_json(&results::Copied { bytes: copied.size, skipped: copied.skipped })?;
    }
    Ok(0)
}

/// Returns the name that the copy of `path` gets in a directory. Returns `None` if the path does not end in a name, such
/// as `/a/..`, `/a/.` and `/`: then the content of the directory is copied, as by `cp`.
fn own_name(path: &str) -> Option<&str> {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    (!matches!(last, "" | "." | "..")).then_some(last)
}

/// Copies a file or directory from a sandbox. A file gets its name only when it has arrived completely.
async fn get(session: &Session, sandbox: &Sandbox, path: &str, to: &Path, recursive: bool) -> Result<Copied> {
    let step = session.voice.step(format!("looking at {path}"));
    let info = sandbox.stat(path, true).await?;
    drop(step);
    let is_directory = matches!(info.kind, FileKind::Directory);
    let inside = to.is_dir().then(|| own_name(path).map(|name| to.join(name))).flatten();
    // A link at the place of the copy may lead out of the directory that the user named.
    let a_link = |to: &Path| std::fs::symlink_metadata(to).is_ok_and(|found| found.is_symlink());
    let linked = inside.as_deref().is_some_and(a_link);
    let to = inside.unwrap_or_else(|| to.to_owned());
    if is_directory {
        if !recursive {
            return Err(Failure::new(format!("copy {path}"), "it is a directory").hint("use -r").into());
        }
        if linked {
            return Err(Failure::new(
                format!("write {}", to.display()),
                "a symbolic link has the name of the directory",
            )
            .hint("remove the link, or give the directory that it points to")
            .into());
        }
        return unpack(session, sandbox, path, &to).await;
    }
    let what = |error: std::io::Error| Failure::io(format!("write {}", to.display()), &error);
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A device or pipe is written to and not replaced. The same applies to the target of a link that the user named.
    let special = |meta: std::fs::Metadata| !meta.is_file();
    if !linked && (std::fs::metadata(&to).is_ok_and(special) || std::fs::symlink_metadata(&to).is_ok_and(special)) {
        let file = tokio::fs::OpenOptions::new().write(true).truncate(true).open(&to).await.map_err(what)?;
        return Ok(sandbox.download(path, file).await.map_err(ours)?.into());
    }
    // Without the bits that the umask removes from this user's new files, whatever the sandbox reports.
    let mode = if matches!(info.kind, FileKind::File) { info.mode & 0o777 } else { 0o644 };
    let permissions = std::fs::Permissions::from_mode(mode | 0o200);
    let made = tempfile::Builder::new().permissions(permissions).tempfile_in(directory);
    let temporary = made.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound if !directory.exists() => Failure::io(format!("write {}", to.display()), &error)
            .because(format!("there is no directory {}", directory.display()))
            .hint("create it first"),
        std::io::ErrorKind::PermissionDenied => Failure::io(format!("write {}", to.display()), &error)
            .because(format!("no file can be created in {}: permission denied", directory.display()))
            .hint("choose another directory, or redirect the output: `sandbox-host cat ID:/PATH > FILE`"),
        // The error's own text names the temporary file, which the user does not know.
        kind => what(kind.into()),
    })?;
    let size = matches!(info.kind, FileKind::File).then_some(info.size);
    let transfer = session.voice.transfer(format!("copying {path}"), size);
    let file = tokio::fs::File::from_std(temporary.reopen().map_err(what)?);
    let size = sandbox.download(path, transfer.wrap(file)).await?;
    if mode & 0o200 == 0 {
        let writable = temporary.as_file().metadata().map_err(what)?.permissions().mode();
        temporary.as_file().set_permissions(std::fs::Permissions::from_mode(writable & !0o200)).map_err(what)?;
    }
    temporary.persist(&to).map_err(|error| what(error.error))?;
    Ok(size.into())
}

/// Copies a directory from a sandbox.
async fn unpack(session: &Session, sandbox: &Sandbox, path: &str, to: &Path) -> Result<Copied> {
    let transfer = session.voice.transfer(format!("copying {path}"), None);
    let mut size = 0;
    let unpacked = sandbox.download_directory(path, to, |length| {
        size += length;
        transfer.add(length);
    });
    let unpacked = unpacked.await?;
    drop(transfer);
    warn_of_skipped(session, unpacked.skipped, &unpacked.examples);
    for path in &unpacked.unprivileged_examples {
        let path = path.to_string_lossy();
        session.voice.warn(format_args!("copied without its set-user-id or set-group-id bit: {path}"));
    }
    let unnamed = unpacked.unprivileged - unpacked.unprivileged_examples.len() as u64;
    if unnamed > 0 {
        session.voice.warn(format_args!("copied without set-user-id or set-group-id bits: {unnamed} more"));
    }
    Ok(Copied { size, skipped: unpacked.skipped })
}

/// Names entries of a directory that were not copied. `examples` are some of them, each with the reason.
fn warn_of_skipped(session: &Session, skipped: u64, examples: &[(PathBuf, &str)]) {
    for (path, why) in examples {
        session.voice.warn(format_args!("not copied: {}: {why}", path.to_string_lossy()));
    }
    let unnamed = skipped - examples.len() as u64;
    if unnamed > 0 {
        session.voice.warn(format_args!("not copied: {unnamed} more"));
    }
}

/// Copies a file or directory to a sandbox.
async fn put(session: &Session, sandbox: &Sandbox, from: &Path, path: &str, recursive: bool) -> Result<Copied> {
    let what = |error: std::io::Error| Failure::io(format!("read {}", from.display()), &error);
    let meta = tokio::fs::metadata(from).await.map_err(what)?;
    let name = from.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if meta.is_dir() {
        if !recursive {
            return Err(Failure::new(format!("copy {}", from.display()), "it is a directory").hint("use -r").into());
        }
        // `.` and `..` have no file name, so the name of the directory that they refer to is used.
        let name = match from.file_name() {
            Some(_) => name.to_owned(),
            None => {
                let whole = from.canonicalize().map_err(what)?;
                whole.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
            }
        };
        let target = into(session, sandbox, path, &name).await?;
        return pack(session, sandbox, from, &target).await;
    }
    let path = into(session, sandbox, path, name).await?;
    let size = meta.is_file().then_some(meta.len());
    // Sets a mode only if it matters: a new file gets 0644 anyway, and not every provider can set modes. Executable files
    // stay executable, and files that others may not read stay unreadable for them.
    let mode = meta.permissions().mode() & 0o777;
    let mut options = WriteOptions::default();
    if meta.is_file() && (mode & 0o111 != 0 || mode & 0o004 == 0) {
        options = options.permissions(mode);
    }
    let file = tokio::fs::File::open(from).await.map_err(what)?;
    let transfer = session.voice.transfer(format!("copying {}", from.display()), size);
    Ok(sandbox.upload(&path, transfer.wrap(BufReader::new(file)), options).await?.into())
}

/// Returns the target of an entry called `name` that is copied to `path`: below `path` if that is a directory, as with
/// `cp`.
async fn into(session: &Session, sandbox: &Sandbox, path: &str, name: &str) -> Result<String> {
    let _step = session.voice.step(format!("looking at {path}"));
    let below = path.ends_with('/') || is_remote_directory(sandbox, path).await?;
    Ok(if below && !name.is_empty() { format!("{}/{name}", path.trim_end_matches('/')) } else { path.to_owned() })
}

async fn is_remote_directory(sandbox: &Sandbox, path: &str) -> Result<bool> {
    match sandbox.stat(path, true).await {
        Ok(info) => Ok(matches!(info.kind, FileKind::Directory)),
        Err(error) if error.file_fault().is_some() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Copies a directory to a sandbox.
async fn pack(session: &Session, sandbox: &Sandbox, from: &Path, path: &str) -> Result<Copied> {
    let transfer = session.voice.transfer(format!("copying {}", from.display()), None);
    let packed = sandbox.upload_directory(from, path, |length| transfer.add(length)).await?;
    drop(transfer);
    warn_of_skipped(session, packed.skipped, &packed.examples);
    Ok(Copied { size: packed.bytes, skipped: packed.skipped })
}

/// Copies from one sandbox to another through this process, one piece at a time.
async fn between(
    session: &Session,
    from: &Sandbox,
    path: &str,
    to: &Sandbox,
    at: &str,
    recursive: bool,
) -> Result<u64> {
    let at = into(session, to, at, own_name(path).unwrap_or_default()).await?;
    let at = at.as_str();
    let transfer = session.voice.transfer(format!("copying {path}"), None);
    if recursive {
        return Ok(from.copy_directory(path, to, at, |length| transfer.add(length)).await?);
    }
    let (writer, reader) = tokio::io::duplex(1 << 20);
    let reading = async {
        let mut writer = transfer.wrap(writer);
        from.download(path, &mut writer).await?;
        writer.shutdown().await?;
        anyhow::Ok(())
    };
    let writing = async { anyhow::Ok(to.upload(at, reader, WriteOptions::default()).await?) };
    // A failed read must not look like the end of a short file: its error ends both.
    let (_, size) = tokio::try_join!(reading, writing)?;
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::own_name;

    #[test]
    fn only_a_name_is_a_name() {
        for (path, name) in [
            ("/a/b", Some("b")),
            ("/a/b//", Some("b")),
            ("/a/..b", Some("..b")),
            ("/a/new\nline", Some("new\nline")),
            ("/a/..", None),
            ("/a/../", None),
            ("/a/.", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(own_name(path), name, "{path:?}");
        }
    }
}
