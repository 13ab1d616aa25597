//! Uploads to the blob store, with the addresses that the control plane returns for the parts of a blob
//! (docs/modal-protocol.md, section 9).

use modal_proto::client::{
    BlobCreateResponse, MultiPartUpload, blob_create_response::UploadTypeOneof, blob_create_response::UploadTypesOneof,
};
use sandbox_provider_kit::{
    Error, Result,
    image::parts::{Part, PartUpload},
};

/// A blob that is being uploaded.
pub struct Blob {
    /// The id, `bl-…`.
    pub id: String,
    /// The upload of its bytes.
    pub upload: PartUpload,
}

impl Blob {
    /// Makes a blob from the control plane's answer to the announcement of `size` bytes. `md5` is encoded in base64.
    ///
    /// # Errors
    ///
    /// `internal` if the answer contains no id or no addresses for all bytes.
    pub fn new(answer: BlobCreateResponse, size: u64, md5: String) -> Result<Blob> {
        let single = |url: String| (vec![Part { url, length: size }], None);
        let several = |multi: MultiPartUpload| {
            let length = u64::try_from(multi.part_length).unwrap_or(0);
            let count = multi.upload_urls.len() as u64;
            let parts = multi.upload_urls.into_iter().zip(0..).map(|(url, index)| Part {
                url,
                length: length.min(size.saturating_sub(length.saturating_mul(index))),
            });
            (length.saturating_mul(count) >= size).then(|| (parts.collect::<Vec<_>>(), Some(multi.completion_url)))
        };
        // The newer form lists alternatives, of which the first one is used. Some servers send only the older form.
        let target = match answer.upload_types_oneof {
            Some(UploadTypesOneof::UploadUrls(urls)) => urls.items.into_iter().next().map(single),
            Some(UploadTypesOneof::Multiparts(multi)) => multi.items.into_iter().next().and_then(several),
            None => match answer.upload_type_oneof {
                Some(UploadTypeOneof::UploadUrl(url)) => Some(single(url)),
                Some(UploadTypeOneof::Multipart(multi)) => several(multi),
                None => None,
            },
        };
        let id = answer.blob_ids.into_iter().next().unwrap_or(answer.blob_id);
        let Some((parts, completion)) = target.filter(|_| !id.is_empty()) else {
            return Err(Error::internal("Modal returned no upload URL."));
        };
        // The parts of a larger upload have neither of these headers. The signature of the address covers them.
        let whole = completion.is_none();
        let upload = PartUpload::new(parts, completion, move |url| {
            let mut headers = Vec::new();
            if whole {
                headers.push(("content-type", "application/octet-stream".to_string()));
                let host = url.host();
                if host.ends_with(".amazonaws.com") || host.ends_with(".r2.cloudflarestorage.com") {
                    headers.push(("content-md5", md5.clone()));
                }
            }
            headers
        });
        Ok(Blob { id, upload })
    }
}
