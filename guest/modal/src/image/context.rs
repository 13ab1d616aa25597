//! Build contexts: files that are identified by digest and uploaded once, and the mounts that contain them
//! (docs/modal-protocol.md, sections 3.3 and 9).
//!
//! A component has no file system, so the host sends contents in pieces. Small contents are collected and sent in one
//! message. Large ones are passed on to the blob store (`blob`) as they arrive, in a request that stays open between
//! calls.

use std::{cell::RefCell, time::Duration};

use base64ct::{Base64, Encoding as _};
use modal_proto::{
    client::{
        BlobCreateRequest, MountBatchedCheckExistenceRequest, MountFile, MountGetOrCreateRequest, MountPutFileRequest,
        ObjectCreationType, mount_put_file_request::DataOneof,
    },
    rpc,
};
use sandbox_provider_kit::{
    Error, Result,
    api::wit::{Content, ContextFile, ErrorKind, RetryAdvice},
    image::context::{Received, check_contents, check_piece, unhex},
    memo::Memo,
};

use super::blob::Blob;
use crate::service::Service;

/// Contents of at least this size, in bytes, are uploaded to the blob store (docs/modal-protocol.md, section 3.3).
const BLOB_BYTES: u64 = 4 * 1024 * 1024;

/// Number of contents in one request, as in the official client.
const CHECK_BATCH: usize = 64;

/// Time for which the service is asked whether it has stored a blob, and the pause between these requests.
const STORE_WAIT: Duration = Duration::from_secs(120);
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// A running upload, in the memory of the instance that serves it.
struct Upload {
    received: Received,
    sink: Sink,
}

/// The destination of the pieces.
enum Sink {
    Memory(Vec<u8>),
    Blob(Blob),
}

/// The contents of build contexts.
pub struct Contexts {
    service: Service,
    uploads: RefCell<Memo<String, Upload>>,
}

impl Contexts {
    /// Makes an empty set of uploads.
    #[must_use]
    pub fn new(service: Service) -> Contexts {
        Contexts { service, uploads: RefCell::default() }
    }

    /// Implements `missing-content` of the interface. Returns the SHA-256 digests of those `contents` that the provider
    /// does not have yet.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for an invalid digest or more than 10000 contents; otherwise the error of the failed request.
    pub async fn missing(&self, contents: &[Content]) -> Result<Vec<String>> {
        check_contents(contents)?;
        let mut missing = Vec::new();
        for batch in contents.chunks(CHECK_BATCH) {
            let request = MountBatchedCheckExistenceRequest {
                sha256_hex_hashes: batch.iter().map(|content| content.sha256.clone()).collect(),
            };
            let control = &self.service.control;
            let answer = control.call("check the build context", rpc::MOUNT_BATCHED_CHECK_EXISTENCE, &request).await?;
            missing.extend(answer.missing_sha256_hex_hashes);
        }
        Ok(missing)
    }

    /// Implements `upload-content` of the interface. Uploads one piece of a content, beginning at the byte `offset`.
    ///
    /// # Errors
    ///
    /// `invalid-argument` if the piece does not fit, the digest does not match, or the MD5 of a content of 4 MiB and
    /// more is missing; `timed-out` if Modal does not store a file within two minutes; otherwise the error of the
    /// failed request.
    pub async fn upload(&self, content: &Content, offset: u64, data: Vec<u8>) -> Result<u64> {
        check_piece(content, offset, &data)?;
        let known = self.uploads.borrow_mut().remove(&content.sha256);
        let mut upload = match known {
            Some(upload) => upload,
            None if offset > 0 => return Ok(0),
            None => Upload { received: Received::default(), sink: self.sink(content).await? },
        };
        let transport = self.service.transport();
        if upload.received.take(offset, &data) {
            match &mut upload.sink {
                Sink::Memory(memory) => memory.extend_from_slice(&data),
                Sink::Blob(blob) => blob.upload.write(transport, data.into()).await?,
            }
        }
        let accepted = upload.received.accepted();
        if accepted < content.size {
            self.uploads.borrow_mut().insert(content.sha256.clone(), upload);
            return Ok(accepted);
        }
        upload.received.verify(content)?;
        let stored = match upload.sink {
            Sink::Memory(memory) => DataOneof::Data(memory.into()),
            Sink::Blob(blob) => {
                blob.upload.finish(transport).await?;
                DataOneof::DataBlobId(blob.id)
            }
        };
        self.store(&content.sha256, stored).await?;
        Ok(accepted)
    }

    async fn sink(&self, content: &Content) -> Result<Sink> {
        if content.size < BLOB_BYTES {
            return Ok(Sink::Memory(Vec::new()));
        }
        let md5 = content.digests.iter().find(|(name, _)| name == "md5").map(|(_, hex)| unhex(hex));
        let md5 = md5.filter(|md5| md5.len() == 16).ok_or_else(|| {
            Error::invalid("A content of 4 MiB or more also needs its MD5: see `digests` in the description.")
                .about(&content.sha256)
        })?;
        let request = BlobCreateRequest {
            content_md5: Base64::encode_string(&md5),
            content_sha256_base64: Base64::encode_string(&unhex(&content.sha256)),
            content_length: i64::try_from(content.size).unwrap_or(i64::MAX),
        };
        let answer = self.service.control.call("announce an upload", rpc::BLOB_CREATE, &request).await?;
        Ok(Sink::Blob(Blob::new(answer, content.size, request.content_md5)?))
    }

    /// Registers an uploaded content by its digest.
    async fn store(&self, sha256: &str, data: DataOneof) -> Result<()> {
        let request = MountPutFileRequest { sha256_hex: sha256.to_string(), data_oneof: Some(data) };
        let deadline = self.service.now() + STORE_WAIT;
        loop {
            let answer = self
                .service
                .control
                .call("store a file of the build context", rpc::MOUNT_PUT_FILE, &request)
                .await
                .map_err(|error| error.about(sha256))?;
            if answer.exists {
                return Ok(());
            }
            if self.service.now() >= deadline {
                let error = Error::new(ErrorKind::TimedOut, "Modal took too long to store a file. Repeat the upload.");
                return Err(error.with_retry(RetryAdvice::Maybe).about(sha256));
            }
            self.service.transport().sleep(STORE_PAUSE).await;
        }
    }
}

/// Makes a mount of these files for a build. Returns an empty id if there are no files.
pub(crate) async fn context_mount(service: &Service, files: &[ContextFile]) -> Result<String> {
    if files.is_empty() {
        return Ok(String::new());
    }
    let request = MountGetOrCreateRequest {
        object_creation_type: ObjectCreationType::AnonymousOwnedByApp.into(),
        app_id: service.app.id().await?,
        environment_name: service.config()?.environment.clone(),
        files: files
            .iter()
            .map(|file| MountFile {
                filename: format!("/{}", file.path),
                sha256_hex: file.content.sha256.clone(),
                size: Some(file.content.size),
                mode: Some(file.mode & 0o7777),
            })
            .collect(),
        ..Default::default()
    };
    let answer = service
        .control
        .call("use the build context (are all files uploaded?)", rpc::MOUNT_GET_OR_CREATE, &request)
        .await
        .map_err(|error| error.about("context"))?;
    Ok(answer.mount_id)
}
