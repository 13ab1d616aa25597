//! Build contexts: files that are named by digest and uploaded once, and the mounts made of them (fact sheet, sections 3.3
//! and 9).
//!
//! The component has no files: the host sends contents in pieces. Small ones are gathered and sent within one message; large
//! ones go to the blob store (`blobs`) as they come, through a request that stays open between calls.

use std::{collections::HashSet, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use modal_proto::{
    client::{
        BlobCreateRequest, MountBatchedCheckExistenceRequest, MountFile, MountGetOrCreateRequest, MountPutFileRequest,
        ObjectCreationType, mount_put_file_request::DataOneof,
    },
    rpc,
};
use sha2::{Digest as _, Sha256};

use crate::{image::blob::Blob, provider::Provider};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        error::shown,
        wit::{Content, ContextFile, ErrorKind, RetryAdvice},
    },
};

/// Contents of this length and more go to the blob store (fact sheet, section 3.3).
const BLOB_BYTES: u64 = 4 * 1024 * 1024;

/// Contents asked for at a time, as the official client does.
const CHECK_BATCH: usize = 64;

/// Contents that one call may ask for; the interface documents it.
const MAX_CONTENTS: usize = 10_000;

/// Files of one context: more were not meant to be one.
const MAX_FILES: usize = 100_000;

/// Largest piece that is taken at a time; the interface documents it for other uploads.
const MAX_PIECE: usize = 16 * 1024 * 1024;

/// The service may need a while to take a blob over: how long it is asked, and with what pause.
const STORE_WAIT: Duration = Duration::from_secs(120);
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// An upload under way, as the instance that serves it remembers it.
pub struct Upload {
    accepted: u64,
    hash: Sha256,
    sink: Sink,
}

/// Where the pieces go.
enum Sink {
    Memory(Vec<u8>),
    Blob(Blob),
}

impl Provider {
    /// See `missing-content` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn missing_content(&self, contents: &[Content]) -> Result<Vec<String>> {
        if contents.len() > MAX_CONTENTS {
            return Err(Error::invalid(format!(
                "{} contents are too many: ask for {MAX_CONTENTS} at a time.",
                contents.len()
            )));
        }
        for content in contents {
            check_content(content)?;
        }
        let mut missing = Vec::new();
        for batch in contents.chunks(CHECK_BATCH) {
            let request = MountBatchedCheckExistenceRequest {
                sha256_hex_hashes: batch.iter().map(|content| content.sha256.clone()).collect(),
            };
            let answer = self.control("check the build context", rpc::MOUNT_BATCHED_CHECK_EXISTENCE, &request).await?;
            missing.extend(answer.missing_sha256_hex_hashes);
        }
        Ok(missing)
    }

    /// See `upload-content` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn upload_content(&self, content: &Content, offset: u64, data: Vec<u8>) -> Result<u64> {
        check_content(content)?;
        let end = offset.saturating_add(data.len() as u64);
        if data.len() > MAX_PIECE || end > content.size || data.is_empty() && content.size > 0 {
            return Err(Error::invalid(format!(
                "A piece of {} bytes at {offset} does not fit a content of {} bytes: send 1 to {MAX_PIECE} bytes at a \
                 time, none beyond its end.",
                data.len(),
                content.size
            ))
            .about(&content.sha256));
        }
        let known = self.inner.state.borrow_mut().uploads.remove(&content.sha256);
        let mut upload = match known {
            Some(upload) => upload,
            None if offset > 0 => return Ok(0),
            None => Upload { accepted: 0, hash: Sha256::new(), sink: self.sink(content).await? },
        };
        if upload.accepted == offset {
            upload.hash.update(&data);
            match &mut upload.sink {
                Sink::Memory(memory) => memory.extend_from_slice(&data),
                Sink::Blob(blob) => blob.write(self, data.into()).await?,
            }
            upload.accepted = end;
        }
        let accepted = upload.accepted;
        if accepted < content.size {
            self.inner.state.borrow_mut().uploads.insert(content.sha256.clone(), upload);
            return Ok(accepted);
        }
        if upload.hash.finalize()[..] != unhex(&content.sha256)[..] {
            return Err(Error::invalid("What was sent does not have the digest that it was announced with.")
                .about(&content.sha256));
        }
        let stored = match upload.sink {
            Sink::Memory(memory) => DataOneof::Data(memory.into()),
            Sink::Blob(blob) => DataOneof::DataBlobId(blob.finish(self).await?),
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
            Error::invalid("A content of 4 MiB and more needs its MD5 too: see `digests` in the description.")
                .about(&content.sha256)
        })?;
        let request = BlobCreateRequest {
            content_md5: STANDARD.encode(md5),
            content_sha256_base64: STANDARD.encode(unhex(&content.sha256)),
            content_length: i64::try_from(content.size).unwrap_or(i64::MAX),
        };
        let answer = self.control("announce an upload", rpc::BLOB_CREATE, &request).await?;
        Ok(Sink::Blob(Blob::new(answer, content.size, request.content_md5)?))
    }

    /// Names what has been uploaded by its digest.
    async fn store(&self, sha256: &str, data: DataOneof) -> Result<()> {
        let request = MountPutFileRequest { sha256_hex: sha256.to_string(), data_oneof: Some(data) };
        let deadline = self.now() + STORE_WAIT;
        loop {
            let answer = self
                .control("store a file of the build context", rpc::MOUNT_PUT_FILE, &request)
                .await
                .map_err(|error| error.about(sha256))?;
            if answer.exists {
                return Ok(());
            }
            if self.now() >= deadline {
                let error = Error::new(ErrorKind::TimedOut, "Modal took too long to store a file. Send it again.");
                return Err(error.with_retry(RetryAdvice::Maybe).about(sha256));
            }
            self.transport().sleep(STORE_PAUSE).await;
        }
    }

    /// A mount of these files, to build with; the empty id for none.
    pub(crate) async fn context_mount(&self, files: &[ContextFile]) -> Result<String> {
        if files.is_empty() {
            return Ok(String::new());
        }
        let request = MountGetOrCreateRequest {
            object_creation_type: ObjectCreationType::AnonymousOwnedByApp.into(),
            app_id: self.app_id().await?,
            environment_name: self.config()?.environment.clone(),
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
        let answer = self
            .control("use the build context (has all of it been uploaded?)", rpc::MOUNT_GET_OR_CREATE, &request)
            .await
            .map_err(|error| error.about("context"))?;
        Ok(answer.mount_id)
    }
}

/// Refuses files that could not lie in a context.
pub(crate) fn check_files(files: &[ContextFile]) -> Result<()> {
    if files.len() > MAX_FILES {
        return Err(Error::invalid(format!(
            "The build context has {} files, more than {MAX_FILES}: leave out what is not needed.",
            files.len()
        ))
        .about("context"));
    }
    let mut seen = HashSet::new();
    for file in files {
        check_content(&file.content)?;
        let good = file.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !good || file.path.contains('\0') || !seen.insert(&file.path) {
            return Err(Error::invalid(format!(
                "`{}` cannot be a file of the build context: give relative paths without `.` and `..`, each once.",
                shown(&file.path)
            ))
            .about(&file.path));
        }
    }
    Ok(())
}

fn check_content(content: &Content) -> Result<()> {
    if content.sha256.len() == 64 && content.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` is not a SHA-256: it has 64 lower-case hexadecimal digits.",
        shown(&content.sha256)
    ))
    .about(&content.sha256))
}

/// Hexadecimal digits as bytes; empty if they are none.
fn unhex(text: &str) -> Bytes {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let bytes: Option<Vec<u8>> =
        text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect();
    bytes.unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal() {
        assert_eq!(unhex("00ff1a")[..], [0, 255, 26]);
        assert!(unhex("0").is_empty() && unhex("zz").is_empty() && unhex("").is_empty());
    }
}
