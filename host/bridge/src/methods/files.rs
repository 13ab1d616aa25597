//! Files, directories, and watches for changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbox_host::fresh_id;
use sandbox_host::types::{FileKind, WriteOptions};
use serde_json::json;
use tokio::sync::Mutex;
use tokio_util::io::{InspectReader, InspectWriter};

use super::base::{Answer, Context};
use crate::fault::Fault;
use crate::objects::{Use, WatchObject, WatchState};
use crate::reply::Reply;
use crate::shapes::basic::{Shape, yes};
use crate::shapes::command::WriteMode;
use crate::shapes::results::{FileEvent, FileInfo};

methods! {
    "file.read" => read,
    "file.write" => write with data,
    "file.upload" => upload,
    "file.download" => download,
    "directory.upload" => upload_directory,
    "directory.download" => download_directory,
    "file.stat" => stat,
    "directory.list" => list,
    "directory.make" => make,
    "file.remove" => remove,
    "file.rename" => rename,
    "file.symlink" => symlink,
    "file.set_permissions" => set_permissions,
    "watch.open" => watch,
    "watch.next" => next,
}

/// Default size limit of `file.read`, in bytes.
const READ_MAX: u64 = 100 << 20;

/// How long one call waits for events. Longer waits consist of several calls.
const WATCH_WAIT: Duration = Duration::from_secs(60);

in_sandbox! {
    Read { path: String, #[serde(default = "read_max")] max: u64, #[serde(default)] stat: bool }
    Write { path: String, #[serde(default = "replace")] mode: WriteMode, permissions: Option<u32> }
    Upload { from: PathBuf, path: String, permissions: Option<u32> }
    Download { path: String, to: PathBuf }
    UploadDirectory { from: PathBuf, path: String }
    Stat { path: String, #[serde(default = "yes")] follow: bool }
    List { path: String }
    Make { path: String, #[serde(default = "yes")] parents: bool }
    Remove { path: String, #[serde(default)] recursive: bool }
    Rename { path: String, to: String, #[serde(default = "yes")] replace: bool }
    Symlink { path: String, target: String }
    SetPermissions { path: String, permissions: u32 }
    Watch { path: String, #[serde(default)] recursive: bool }
}

arguments! {
    Next { watch: u64 }
}

fn read_max() -> u64 {
    READ_MAX
}

fn replace() -> WriteMode {
    WriteMode::Replace
}

async fn read(context: Context, arguments: Read) -> Answer {
    let place = arguments.place(&context)?;
    let found = async {
        let data = place.sandbox.read_file(&arguments.path, arguments.max).await?;
        let info = if arguments.stat { Some(place.sandbox.stat(&arguments.path, true).await?) } else { None };
        Ok::<_, sandbox_host::Error>((data, info))
    };
    let (data, info) = place.run(found).await?;
    let mode = info.map(|info| info.mode);
    Reply::with(json!({ "mode": mode, "size": data.len() }), vec![data])
}

async fn write(context: Context, arguments: Write) -> Answer {
    let place = arguments.place(&context)?;
    let Write { path, mode, permissions, .. } = arguments;
    let options = WriteOptions { mode: mode.into_wit(), permissions, extra: vec![] };
    place.done(place.sandbox.write_file(&path, &context.data, options)).await
}

async fn upload(context: Context, arguments: Upload) -> Answer {
    let place = arguments.place(&context)?;
    let from = &arguments.from;
    let file = tokio::fs::File::open(from).await;
    let file = file.map_err(|error| Fault::io(&format!("open {}", from.display()), error))?;
    // A pipe or a device has no size.
    if let Ok(meta) = file.metadata().await
        && meta.is_file()
    {
        context.progress.expect(meta.len());
    }
    let counted = InspectReader::new(file, |piece: &[u8]| context.progress.add(piece.len() as u64));
    let options = WriteOptions { permissions: arguments.permissions, ..WriteOptions::default() };
    let bytes = place.run(place.sandbox.upload(&arguments.path, counted, options)).await?;
    Reply::json(json!({ "bytes": bytes }))
}

async fn download(context: Context, arguments: Download) -> Answer {
    let place = arguments.place(&context)?;
    let to = &arguments.to;
    let fail = |error| Fault::io(&format!("create {}", to.display()), error);
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The file appears when all of it has arrived. Until then, and after a failure, its place is unchanged.
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let (file, part) = builder.prefix(".sandbox-").tempfile_in(folder).map_err(fail)?.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let downloaded = async {
        // The size needs a request, and is only for the progress. If it fails, the download does too.
        if context.progress.counts()
            && let Ok(info) = place.sandbox.stat(&arguments.path, true).await
            && matches!(info.kind, FileKind::File)
        {
            context.progress.expect(info.size);
        }
        let counted = InspectWriter::new(&mut file, |piece: &[u8]| context.progress.add(piece.len() as u64));
        place.sandbox.download(&arguments.path, counted).await
    };
    let bytes = place.run(downloaded).await?;
    tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(fail)?;
    part.persist(to).map_err(|error| fail(error.error))?;
    Reply::json(json!({ "bytes": bytes }))
}

async fn upload_directory(context: Context, arguments: UploadDirectory) -> Answer {
    let place = arguments.place(&context)?;
    let told = |piece| context.progress.add(piece);
    let packed = place.run(place.sandbox.upload_directory(&arguments.from, &arguments.path, told)).await?;
    copied(packed.bytes, packed.skipped, &packed.examples)
}

/// Returns the report on the copy of a directory. `examples` are some of the skipped entries.
fn copied(bytes: u64, skipped: u64, examples: &[(PathBuf, &str)]) -> Answer {
    let examples = examples.iter().map(|(path, why)| json!({ "path": path.to_string_lossy(), "reason": why }));
    Reply::json(json!({ "bytes": bytes, "skipped": examples.collect::<Vec<_>>(), "skipped_total": skipped }))
}

async fn download_directory(context: Context, arguments: Download) -> Answer {
    let place = arguments.place(&context)?;
    let mut bytes = 0;
    let told = |piece| {
        bytes += piece;
        context.progress.add(piece);
    };
    let unpacked = place.run(place.sandbox.download_directory(&arguments.path, &arguments.to, told)).await?;
    copied(bytes, unpacked.skipped, &unpacked.examples)
}

async fn stat(context: Context, arguments: Stat) -> Answer {
    let place = arguments.place(&context)?;
    place.shaped::<FileInfo>(place.sandbox.stat(&arguments.path, arguments.follow)).await
}

async fn list(context: Context, arguments: List) -> Answer {
    let place = arguments.place(&context)?;
    place.shaped::<Vec<FileInfo>>(place.sandbox.list_directory(&arguments.path)).await
}

async fn make(context: Context, arguments: Make) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.make_directory(&arguments.path, arguments.parents)).await
}

async fn remove(context: Context, arguments: Remove) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.remove(&arguments.path, arguments.recursive)).await
}

async fn rename(context: Context, arguments: Rename) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.rename(&arguments.path, &arguments.to, arguments.replace)).await
}

async fn symlink(context: Context, arguments: Symlink) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.make_symlink(&arguments.path, &arguments.target)).await
}

async fn set_permissions(context: Context, arguments: SetPermissions) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.set_permissions(&arguments.path, arguments.permissions)).await
}

async fn watch(context: Context, arguments: Watch) -> Answer {
    let place = arguments.place(&context)?;
    let Watch { path, recursive, .. } = arguments;
    let id = fresh_id();
    // The first call starts the watch. A provider may answer shortly before it watches.
    let first = place.run(place.sandbox.watch(&path, &id, recursive, 0, Duration::ZERO)).await?;
    let state = WatchState { pending: first.events.into(), position: first.next, end: first.end };
    let watch = WatchObject { place: place.sandbox, path, id, recursive, state: Mutex::new(state) };
    Reply::json(json!({ "watch": context.objects.add(&place.provider, watch)? }))
}

async fn next(context: Context, arguments: Next) -> Answer {
    let watch: Use<WatchObject> = context.objects.get(arguments.watch)?;
    let WatchObject { place, path, id, recursive, state } = &*watch.object;
    let events = async {
        let mut state = state.lock().await;
        while state.pending.is_empty() && !state.end {
            let page = place.watch(path, id, *recursive, state.position, WATCH_WAIT).await?;
            *state = WatchState { pending: page.events.into(), position: page.next, end: page.end };
        }
        Ok::<Vec<_>, sandbox_host::Error>(state.pending.drain(..).collect())
    };
    Reply::json(Vec::<FileEvent>::from_wit(watch.run(events).await?))
}
