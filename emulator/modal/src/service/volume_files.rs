//! Calls that read and change the committed files of volumes from outside.
//!
//! Both versions of volumes store the same files here; only the uploads differ. Contents are transferred over HTTP in blocks of
//! 8 MiB: uploads as blobs ([`crate::service::uploads`]), downloads by [`block`].

use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use container_isolation::rootfs::{Attributes, Entry, EntryKind, Root};
use futures_util::{Stream, stream};
use modal_proto::client::*;
use tonic::Status;

use crate::model::ids;
use crate::model::state::{Blob, Download, State};
use crate::model::values::hex;
use crate::service::addresses::seen_at;
use crate::service::caller::Caller;
use crate::service::uploads;

/// Size of a block in bytes, as the clients upload and expect it.
const BLOCK: u64 = 8 << 20;

/// Number of entries in one message of a list.
const ENTRIES: usize = 1000;

/// Number of downloads that are kept, which suffices because clients fetch the blocks immediately.
const DOWNLOADS: usize = 16_384;

/// Permission bits of a file whose request has none.
const MODE: u32 = 0o644;

/// A stream of batches of entries.
pub type Listed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Parses a path in a volume, relative to its root.
fn path_of(text: &str) -> Result<PathBuf, Status> {
    let bad = || Status::invalid_argument(format!("'{text}' is not a path in a volume"));
    if text.contains('\0') {
        return Err(bad());
    }
    let mut path = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(bad()),
        }
    }
    Ok(path)
}

/// Parses a path in a volume that must not be the root.
fn file_of(text: &str) -> Result<PathBuf, Status> {
    let path = path_of(text)?;
    if path.as_os_str().is_empty() {
        return Err(Status::invalid_argument(format!("'{text}' is the volume itself")));
    }
    Ok(path)
}

/// Runs `work` on a volume's files in a blocking task. `path` is used in messages only.
async fn with<T: Send + 'static>(
    state: &Arc<State>,
    id: &str,
    path: &Path,
    work: impl FnOnce(&Root) -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let (volume, directory, path) = (state.volume(id)?, state.volume_dir(id), path.display().to_string());
    let done = tokio::task::spawn_blocking(move || volume.shared.with(&directory, work)).await;
    done.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Status::not_found(format!("No such file or directory: '{path}'")),
        io::ErrorKind::AlreadyExists => Status::already_exists(format!("{error}")),
        io::ErrorKind::IsADirectory => Status::invalid_argument(format!("'{path}' is a directory")),
        io::ErrorKind::NotADirectory => Status::invalid_argument(format!("'{path}' is not a directory")),
        io::ErrorKind::DirectoryNotEmpty => {
            Status::invalid_argument(format!("'{path}' is a directory that is not empty: set recursive to remove it"))
        }
        io::ErrorKind::InvalidInput => Status::invalid_argument(format!("{error}")),
        _ => Status::internal(format!("'{path}': {error}")),
    })
}

/// Lists the entries of a directory, or a single file.
async fn list(
    state: &Arc<State>,
    id: &str,
    path: &str,
    recursive: bool,
    most: Option<u32>,
) -> Result<Vec<FileEntry>, Status> {
    let path = path_of(path)?;
    let wanted = path.clone();
    let mut entries = with(state, id, &path, move |root| root.entries(&wanted, recursive)).await?;
    entries.truncate(most.map_or(usize::MAX, |most| most as usize));
    Ok(entries.into_iter().map(file_entry).collect())
}

fn file_entry(entry: Entry) -> FileEntry {
    use file_entry::FileType;
    let kind = match entry.kind {
        EntryKind::Directory => FileType::Directory,
        EntryKind::Link => FileType::Symlink,
        EntryKind::Fifo => FileType::Fifo,
        EntryKind::Socket => FileType::Socket,
        EntryKind::File | EntryKind::Other => FileType::File,
    };
    FileEntry {
        path: entry.path.to_string_lossy().into_owned(),
        r#type: kind as i32,
        mtime: entry.modified,
        size: if entry.kind == EntryKind::File { entry.size } else { 0 },
    }
}

/// Lists files of a volume of the first version.
///
/// # Errors
///
/// Fails with NOT_FOUND if the volume or the path does not exist, and with INVALID_ARGUMENT if the path is not valid.
pub async fn list_v1(
    state: &Arc<State>,
    _: &Caller,
    request: VolumeListFilesRequest,
) -> Result<Listed<VolumeListFilesResponse>, Status> {
    let entries = list(state, &request.volume_id, &request.path, request.recursive, request.max_entries).await?;
    let batches: Vec<_> =
        entries.chunks(ENTRIES).map(|batch| Ok(VolumeListFilesResponse { entries: batch.to_vec() })).collect();
    Ok(Box::pin(stream::iter(batches)))
}

/// Lists files of a volume of the second version.
///
/// # Errors
///
/// Fails with NOT_FOUND if the volume or the path does not exist, and with INVALID_ARGUMENT if the path is not valid.
pub async fn list_v2(
    state: &Arc<State>,
    _: &Caller,
    request: VolumeListFiles2Request,
) -> Result<Listed<VolumeListFiles2Response>, Status> {
    let entries = list(state, &request.volume_id, &request.path, request.recursive, request.max_entries).await?;
    let batches: Vec<_> =
        entries.chunks(ENTRIES).map(|batch| Ok(VolumeListFiles2Response { entries: batch.to_vec() })).collect();
    Ok(Box::pin(stream::iter(batches)))
}

/// Returns the URLs from which the blocks of a file can be downloaded.
///
/// # Errors
///
/// Fails with NOT_FOUND if the volume or the file does not exist, and with INVALID_ARGUMENT if the path is not a file.
pub async fn read(
    state: &Arc<State>,
    caller: &Caller,
    request: VolumeGetFile2Request,
) -> Result<VolumeGetFile2Response, Status> {
    let path = file_of(&request.path)?;
    let wanted = path.clone();
    let (_, size) = with(state, &request.volume_id, &path, move |root| root.open_file(&wanted)).await?;
    let start = request.start.min(size);
    let rest = size - start;
    let len = if request.len == 0 { rest } else { request.len.min(rest) };
    let id = ids::id("dl");
    {
        let mut tables = state.tables.lock();
        if tables.download_order.len() >= DOWNLOADS
            && let Some(oldest) = tables.download_order.pop_front()
        {
            tables.downloads.remove(&oldest);
        }
        tables.download_order.push_back(id.clone());
        tables.downloads.insert(id.clone(), Download { volume_id: request.volume_id, path });
    }
    let at = seen_at(state, caller.asked.as_deref());
    let mut get_urls = Vec::new();
    let mut from = start;
    while from < start + len {
        // Blocks begin at multiples of their size, even if the requested range does not.
        let to = (start + len).min((from / BLOCK + 1) * BLOCK);
        get_urls.push(format!("http://{at}/blocks/{id}/{from}-{to}"));
        from = to;
    }
    Ok(VolumeGetFile2Response { get_urls, size, start, len })
}

/// Returns the content of a block. `name` is the end of its URL.
///
/// # Errors
///
/// Fails with NOT_FOUND if there is no such block, and with INTERNAL if it cannot be read.
pub async fn block(state: &Arc<State>, name: &str) -> Result<Vec<u8>, Status> {
    let missing = || Status::not_found("no such block");
    let (id, range) = name.split_once('/').ok_or_else(missing)?;
    let (from, to) = range.split_once('-').ok_or_else(missing)?;
    let (from, to) = (from.parse::<u64>().map_err(|_| missing())?, to.parse::<u64>().map_err(|_| missing())?);
    let Download { volume_id, path } = state.tables.lock().downloads.get(id).cloned().ok_or_else(missing)?;
    let len = to.checked_sub(from).filter(|len| *len <= BLOCK).ok_or_else(missing)?;
    let wanted = path.clone();
    with(state, &volume_id, &path, move |root| {
        let (mut file, _) = root.open_file(&wanted)?;
        file.seek(SeekFrom::Start(from))?;
        let mut content = Vec::new();
        file.take(len).read_to_end(&mut content)?;
        Ok(content)
    })
    .await
}

/// A file to write: its path, the files of its contents, and its permission bits.
type Put = (PathBuf, Vec<PathBuf>, u32);

/// Writes all files, or none if one of them must not be overwritten.
async fn put(state: &Arc<State>, id: &str, files: Vec<Put>, overwrite: bool) -> Result<(), Status> {
    with(state, id, Path::new(""), move |root| {
        for (path, _, _) in &files {
            let refused =
                |why: &str| Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("'{}' {why}", path.display())));
            match root.entry(path) {
                Ok(entry) if entry.kind == EntryKind::Directory => return refused("is a directory"),
                Ok(_) if !overwrite => return refused("already exists"),
                _ => {}
            }
        }
        for (path, contents, mode) in files {
            let mut source: Box<dyn Read> = Box::new(io::empty());
            for content in contents {
                source = Box::new(source.chain(std::fs::File::open(content)?));
            }
            root.put(&path, source, mode)?;
        }
        Ok(())
    })
    .await
}

/// Writes files whose contents were uploaded like those of mounts.
///
/// # Errors
///
/// Fails with NOT_FOUND if the volume does not exist, with FAILED_PRECONDITION if a content has not been uploaded, with
/// INVALID_ARGUMENT if a path is not valid, and with ALREADY_EXISTS if a file must not be overwritten.
pub async fn put_v1(state: &Arc<State>, _: &Caller, request: VolumePutFilesRequest) -> Result<(), Status> {
    let mut files = Vec::with_capacity(request.files.len());
    for file in request.files {
        let content = uploads::content(state, &file.sha256_hex)?;
        if !uploads::is_present(&content).await {
            return Err(Status::failed_precondition(format!(
                "the content of '{}' has not been uploaded",
                file.filename
            )));
        }
        files.push((file_of(&file.filename)?, vec![content], file.mode.unwrap_or(MODE)));
    }
    put(state, &request.volume_id, files, !request.disallow_overwrite_existing_files).await
}

/// Writes files that consist of blocks. If blocks are missing, writes nothing and returns the URLs to upload them to.
///
/// # Errors
///
/// Fails with NOT_FOUND if the volume does not exist, with INVALID_ARGUMENT if a path or the number of blocks is not valid, and
/// with ALREADY_EXISTS if a file must not be overwritten.
pub async fn put_v2(
    state: &Arc<State>,
    caller: &Caller,
    request: VolumePutFiles2Request,
) -> Result<VolumePutFiles2Response, Status> {
    state.volume(&request.volume_id)?;
    let (mut files, mut missing_blocks) = (Vec::with_capacity(request.files.len()), Vec::new());
    for (file_index, file) in (0..).zip(&request.files) {
        if file.blocks.len() as u64 != file.size.div_ceil(BLOCK) {
            return Err(Status::invalid_argument(format!(
                "the number of blocks of '{}' does not match its size",
                file.path
            )));
        }
        let mut contents = Vec::with_capacity(file.blocks.len());
        for (block_index, block) in (0..).zip(&file.blocks) {
            let hash = hex(&block.contents_sha256);
            let content = uploads::content(state, &hash)?;
            if let Some(blob) = block.put_response.as_ref().and_then(|blob| std::str::from_utf8(blob).ok())
                && !uploads::is_present(&content).await
            {
                uploads::keep_blob(state, blob, &hash).await?;
            }
            if !uploads::is_present(&content).await {
                let length = BLOCK.min(file.size - block_index * BLOCK);
                let id = ids::id("bl");
                state.tables.lock().blobs.insert(id.clone(), Blob { length, complete: false });
                let put_url = format!("http://{}/blobs/{id}", seen_at(state, caller.asked.as_deref()));
                missing_blocks.push(volume_put_files2_response::MissingBlock { file_index, block_index, put_url });
            }
            contents.push(content);
        }
        files.push((file_of(&file.path)?, contents, file.mode.unwrap_or(MODE)));
    }
    if missing_blocks.is_empty() {
        put(state, &request.volume_id, files, !request.disallow_overwrite_existing_files).await?;
    }
    Ok(VolumePutFiles2Response { missing_blocks })
}

async fn remove(state: &Arc<State>, id: &str, path: &str, recursive: bool) -> Result<(), Status> {
    let path = file_of(path)?;
    let wanted = path.clone();
    with(state, id, &path, move |root| {
        let directory = root.entry(&wanted).is_ok_and(|entry| entry.kind == EntryKind::Directory);
        if directory && !recursive {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        root.remove_all(&wanted, recursive)
    })
    .await
}

/// Removes a file or a directory of a volume of the first version.
///
/// # Errors
///
/// Fails with NOT_FOUND if the volume or the path does not exist, and with INVALID_ARGUMENT if the path is not valid or is a
/// directory and the request is not recursive.
pub async fn remove_v1(state: &Arc<State>, _: &Caller, request: VolumeRemoveFileRequest) -> Result<(), Status> {
    remove(state, &request.volume_id, &request.path, request.recursive).await
}

/// Removes a file or a directory of a volume of the second version.
///
/// # Errors
///
/// Fails with the statuses of [`remove_v1`].
pub async fn remove_v2(state: &Arc<State>, _: &Caller, request: VolumeRemoveFile2Request) -> Result<(), Status> {
    remove(state, &request.volume_id, &request.path, request.recursive).await
}

/// Copies files within a volume with the rules of `cp`.
async fn copy(state: &Arc<State>, id: &str, sources: &[String], to: &str, recursive: bool) -> Result<(), Status> {
    if sources.is_empty() {
        return Err(Status::invalid_argument("The list of sources is empty"));
    }
    let target = path_of(to)?;
    let into = to.ends_with('/');
    let paths: Vec<PathBuf> = sources.iter().map(|source| file_of(source)).collect::<Result<_, _>>()?;
    let shown = paths[0].clone();
    with(state, id, &shown, move |root| {
        let bad = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        let into = into || root.is_dir(&target);
        if paths.len() > 1 && !into {
            return Err(bad(format!("'{}' is not a directory", target.display())));
        }
        for path in &paths {
            let directory = root.entry(path)?.kind == EntryKind::Directory;
            if directory && !recursive {
                return Err(bad(format!("'{}' is a directory: set recursive to copy it", path.display())));
            }
            let place = if into { target.join(path.file_name().unwrap_or_default()) } else { target.clone() };
            if place.starts_with(path) {
                return Err(bad(format!("'{}' cannot be copied to itself", path.display())));
            }
            root.copy(root, path, &place, &Attributes { keep_owner: true, ..Attributes::default() }, None)?;
        }
        Ok(())
    })
    .await
}

/// Copies files within a volume of the first version.
///
/// # Errors
///
/// Fails with NOT_FOUND if the volume or a source does not exist, and with INVALID_ARGUMENT if the paths are not valid.
pub async fn copy_v1(state: &Arc<State>, _: &Caller, request: VolumeCopyFilesRequest) -> Result<(), Status> {
    copy(state, &request.volume_id, &request.src_paths, &request.dst_path, request.recursive).await
}

/// Copies files within a volume of the second version.
///
/// # Errors
///
/// Fails with the statuses of [`copy_v1`].
pub async fn copy_v2(state: &Arc<State>, _: &Caller, request: VolumeCopyFiles2Request) -> Result<(), Status> {
    copy(state, &request.volume_id, &request.src_paths, &request.dst_path, request.recursive).await
}
