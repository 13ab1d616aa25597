//! Uploads of clients: file contents by hash, mounts that consist of them, and blobs for large contents.
//!
//! Blobs are transferred over plain HTTP on the same port ([`put_blob`], [`get_blob`]); all other calls are gRPC. Contents are
//! checked against the hash of the request.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use md5::Md5;
use modal_proto::client::*;
use modal_proto::prost_types::Timestamp;
use mount_put_file_request::DataOneof;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tonic::Status;

use crate::model::ids;
use crate::model::state::{Blob, Mount, MountFile, State};
use crate::model::values::hex;
use crate::service::addresses::seen_at;
use crate::service::caller::Caller;

/// Largest blob in bytes. No client sends more for a build context, and all clients share the disk.
const MAX_BLOB: u64 = 64 << 30;

/// Returns which contents have not been uploaded yet.
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT if a hash is malformed.
pub async fn check(
    state: &Arc<State>,
    _: &Caller,
    request: MountBatchedCheckExistenceRequest,
) -> Result<MountBatchedCheckExistenceResponse, Status> {
    let mut missing = Vec::new();
    for hash in request.sha256_hex_hashes {
        if !is_present(&content(state, &hash)?).await {
            missing.push(hash);
        }
    }
    Ok(MountBatchedCheckExistenceResponse { missing_sha256_hex_hashes: missing, checked_at: Some(timestamp()) })
}

/// Stores one content. Without data, only returns whether it is stored.
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT if the content does not match its hash, with NOT_FOUND if the blob does not exist or is
/// incomplete, and with INTERNAL if the content cannot be stored.
pub async fn put(state: &Arc<State>, _: &Caller, request: MountPutFileRequest) -> Result<MountPutFileResponse, Status> {
    let path = content(state, &request.sha256_hex)?;
    let stored = |e: std::io::Error| Status::internal(format!("cannot store the file: {e}"));
    match request.data_oneof {
        Some(DataOneof::Data(data)) => {
            if !hex(&Sha256::digest(&data)).eq_ignore_ascii_case(&request.sha256_hex) {
                return Err(Status::invalid_argument("the SHA-256 of the content differs from the one in the request"));
            }
            write_new(&path, &data).await.map_err(stored)?;
        }
        Some(DataOneof::DataBlobId(id)) => keep_blob(state, &id, &request.sha256_hex).await?,
        None => {}
    }
    Ok(MountPutFileResponse { exists: is_present(&path).await, checked_at: Some(timestamp()) })
}

/// Stores a complete blob as the content with this SHA-256.
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT if the blob does not match the hash, with NOT_FOUND if it does not exist or is incomplete, and
/// with INTERNAL if it cannot be stored.
pub async fn keep_blob(state: &State, id: &str, sha256: &str) -> Result<(), Status> {
    let path = content(state, sha256)?;
    let stored = |e: std::io::Error| Status::internal(format!("cannot store the file: {e}"));
    let complete = state.tables.lock().blobs.get(id).is_some_and(|blob| blob.complete);
    if !complete {
        return Err(Status::not_found(format!("Blob {id} not found, or not uploaded yet")));
    }
    let blob = state.blobs().join(id);
    let from = blob.clone();
    let hash = tokio::task::spawn_blocking(move || hash_file(&from))
        .await
        .map_err(|e| Status::internal(e.to_string()))?
        .map_err(stored)?;
    if !hash.eq_ignore_ascii_case(sha256) {
        return Err(Status::invalid_argument("the SHA-256 of the blob differs from the announced one"));
    }
    // A hard link instead of a rename, because several files may refer to the blob.
    match tokio::fs::hard_link(&blob, &path).await {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(stored(e)),
        _ => Ok(()),
    }
}

/// Creates a mount of stored contents, or returns a named one.
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT if a path or hash is not valid, with FAILED_PRECONDITION if a content has not been uploaded or
/// the app has been stopped, and with NOT_FOUND if the app or the named mount does not exist.
pub async fn get_or_create(
    state: &Arc<State>,
    _: &Caller,
    request: MountGetOrCreateRequest,
) -> Result<MountGetOrCreateResponse, Status> {
    let kind = request.object_creation_type();
    if kind == ObjectCreationType::Unspecified {
        return lookup(state, &request.deployment_name);
    }
    if kind == ObjectCreationType::AnonymousOwnedByApp {
        state.app(&request.app_id)?;
    }
    let mut files = Vec::with_capacity(request.files.len());
    let mut all = Sha256::new();
    for file in request.files {
        let path = file.filename;
        if path.trim_matches('/').is_empty() || path.contains('\0') || path.split('/').any(|part| part == "..") {
            return Err(Status::invalid_argument(format!("'{path}' cannot be the path of a file in a mount")));
        }
        if !is_present(&content(state, &file.sha256_hex)?).await {
            return Err(Status::failed_precondition(format!("the content of '{path}' has not been uploaded")));
        }
        all.update(format!("{path}\0{}\0{:o}\n", file.sha256_hex, file.mode.unwrap_or(0o644)));
        files.push(MountFile { path, sha256: file.sha256_hex, mode: file.mode.unwrap_or(0o644) & 0o7777 });
    }
    let mount = Mount { id: ids::id("mo"), files, checksum: hex(&all.finalize()) };
    let response = MountGetOrCreateResponse {
        mount_id: mount.id.clone(),
        handle_metadata: Some(MountHandleMetadata { content_checksum_sha256_hex: mount.checksum.clone() }),
    };
    state.tables.lock().mounts.insert(mount.id.clone(), Arc::new(mount));
    Ok(response)
}

/// Returns a named mount. On the service, these contain Python distributions. Here they are empty, because the machine's Python
/// is used instead.
fn lookup(state: &State, name: &str) -> Result<MountGetOrCreateResponse, Status> {
    if !name.starts_with("python-build-standalone.") {
        return Err(Status::not_found(format!("Mount '{name}' not found")));
    }
    tracing::info!(name, "a standalone Python was requested: the Python of this machine is used instead");
    let checksum = hex(&Sha256::digest(name));
    let mut tables = state.tables.lock();
    let known = tables.mounts.values().find(|mount| mount.checksum == checksum).cloned();
    let mount = known.unwrap_or_else(|| {
        let mount = Arc::new(Mount { id: ids::id("mo"), files: Vec::new(), checksum });
        tables.mounts.insert(mount.id.clone(), mount.clone());
        mount
    });
    Ok(MountGetOrCreateResponse {
        mount_id: mount.id.clone(),
        handle_metadata: Some(MountHandleMetadata { content_checksum_sha256_hex: mount.checksum.clone() }),
    })
}

/// Announces the upload of a blob, and returns the URL for it.
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT if the length is negative or above 64 GiB.
pub async fn blob_create(
    state: &Arc<State>,
    caller: &Caller,
    request: BlobCreateRequest,
) -> Result<BlobCreateResponse, Status> {
    let length = u64::try_from(request.content_length).unwrap_or(u64::MAX);
    if length > MAX_BLOB {
        return Err(Status::invalid_argument(format!("content_length {} is out of range", request.content_length)));
    }
    let id = ids::id("bl");
    state.tables.lock().blobs.insert(id.clone(), Blob { length, complete: false });
    let url = format!("http://{}/blobs/{id}", seen_at(state, caller.asked.as_deref()));
    Ok(BlobCreateResponse {
        blob_id: id.clone(),
        blob_ids: vec![id],
        upload_type_oneof: Some(blob_create_response::UploadTypeOneof::UploadUrl(url.clone())),
        upload_types_oneof: Some(blob_create_response::UploadTypesOneof::UploadUrls(UploadUrlList {
            items: vec![url],
        })),
    })
}

/// Returns the URL from which a blob can be downloaded.
///
/// # Errors
///
/// Fails with NOT_FOUND if the blob does not exist or is incomplete.
pub async fn blob_get(state: &Arc<State>, caller: &Caller, request: BlobGetRequest) -> Result<BlobGetResponse, Status> {
    match state.tables.lock().blobs.get(&request.blob_id) {
        Some(blob) if blob.complete => {
            let at = seen_at(state, caller.asked.as_deref());
            Ok(BlobGetResponse { download_url: format!("http://{at}/blobs/{}", request.blob_id) })
        }
        _ => Err(Status::not_found(format!("Blob {} not found", request.blob_id))),
    }
}

/// Stores the body of an upload. Returns its MD5 in hexadecimal, which the response carries as its entity tag.
///
/// # Errors
///
/// Fails with NOT_FOUND if the upload was not announced, with INVALID_ARGUMENT if its length differs from the announced one,
/// with ABORTED if the body breaks off, and with INTERNAL if it cannot be stored.
pub async fn put_blob<S, E>(state: &State, id: &str, mut body: S) -> Result<String, Status>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    let length = state.tables.lock().blobs.get(id).map(|blob| blob.length);
    let length = length.ok_or_else(|| Status::not_found("no such upload"))?;
    let failed = |e: std::io::Error| Status::internal(format!("cannot store the blob: {e}"));
    let part = state.blobs().join(ids::id("part"));
    let mut file = tokio::fs::File::create(&part).await.map_err(failed)?;
    let (mut md5, mut got) = (Md5::new(), 0u64);
    let received = async {
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|e| Status::aborted(e.to_string()))?;
            got += piece.len() as u64;
            if got > length {
                break;
            }
            md5.update(&piece);
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        if got == length { Ok(()) } else { Err(Status::invalid_argument(format!("{length} bytes were announced"))) }
    }
    .await;
    if let Err(status) = received {
        let _ = tokio::fs::remove_file(&part).await;
        return Err(status);
    }
    tokio::fs::rename(&part, state.blobs().join(id)).await.map_err(failed)?;
    if let Some(blob) = state.tables.lock().blobs.get_mut(id) {
        blob.complete = true;
    }
    Ok(hex(&md5.finalize()))
}

/// Returns the file of a blob; `None` if the blob does not exist or is incomplete.
pub fn get_blob(state: &State, id: &str) -> Option<PathBuf> {
    let complete = state.tables.lock().blobs.get(id).is_some_and(|blob| blob.complete);
    complete.then(|| state.blobs().join(id))
}

/// Returns the path at which the content with this SHA-256 is stored.
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT if the hash is malformed.
pub fn content(state: &State, hash: &str) -> Result<PathBuf, Status> {
    if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(state.files().join(hash.to_ascii_lowercase()))
    } else {
        Err(Status::invalid_argument(format!("'{hash}' is not a SHA-256 in hexadecimal")))
    }
}

/// Returns whether a content is stored.
pub async fn is_present(path: &Path) -> bool {
    tokio::fs::try_exists(path).await.unwrap_or(false)
}

async fn write_new(path: &Path, data: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension(ids::id("part"));
    tokio::fs::write(&part, data).await?;
    tokio::fs::rename(&part, path).await
}

fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

fn timestamp() -> Timestamp {
    std::time::SystemTime::now().into()
}
