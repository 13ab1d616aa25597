//! Build contexts: files that are identified by digest and uploaded once. A component has no file system, so the host
//! sends contents in pieces, which the provider can pass on to a store as they arrive.

use std::collections::HashSet;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::api::{
    error::{Error, Result, shown},
    wit::{Content, ContextFile},
};

/// Maximum number of contents in one call, as documented in the interface.
const MAX_CONTENTS: usize = 10_000;

/// Maximum number of files of one context. A larger directory was probably given by mistake.
const MAX_FILES: usize = 100_000;

/// Largest piece of a content, in bytes: the same limit that the interface documents for other uploads.
const MAX_PIECE: usize = 16 * 1024 * 1024;

/// A content that is being received.
pub struct Received {
    accepted: u64,
    hash: Sha256,
}

impl Default for Received {
    fn default() -> Self {
        Received { accepted: 0, hash: Sha256::new() }
    }
}

impl Received {
    /// Adds a piece if it begins at the next offset. Returns `false` otherwise.
    pub fn take(&mut self, offset: u64, data: &[u8]) -> bool {
        let next = self.accepted == offset;
        if next {
            self.hash.update(data);
            self.accepted += data.len() as u64;
        }
        next
    }

    /// Returns the number of bytes that were added.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Checks that the bytes have the digest of `content`.
    ///
    /// # Errors
    ///
    /// `invalid-argument` with the digest as its subject if they do not.
    pub fn verify(self, content: &Content) -> Result<()> {
        if self.hash.finalize()[..] == unhex(&content.sha256)[..] {
            return Ok(());
        }
        Err(Error::invalid("The digest of the uploaded content differs from the announced digest.")
            .about(&content.sha256))
    }
}

/// Checks a piece of a content: 1 byte to 16 MiB, and not beyond the size of the content.
///
/// # Errors
///
/// `invalid-argument` with the content's digest as its subject.
pub fn check_piece(content: &Content, offset: u64, data: &[u8]) -> Result<()> {
    check_content(content)?;
    let end = offset.saturating_add(data.len() as u64);
    if data.len() > MAX_PIECE || end > content.size || data.is_empty() && content.size > 0 {
        return Err(Error::invalid(format!(
            "A piece of {} bytes at {offset} does not fit a content of {} bytes: send 1 to {MAX_PIECE} bytes at a \
             time, within the size of the content.",
            data.len(),
            content.size
        ))
        .about(&content.sha256));
    }
    Ok(())
}

/// Checks the arguments of `missing-content`: at most 10000 contents with valid digests.
///
/// # Errors
///
/// `invalid-argument` if there are more, or if a digest is not a SHA-256 in lower case.
pub fn check_contents(contents: &[Content]) -> Result<()> {
    if contents.len() > MAX_CONTENTS {
        return Err(Error::invalid(format!(
            "{} contents are too many: query at most {MAX_CONTENTS} at a time.",
            contents.len()
        )));
    }
    contents.iter().try_for_each(check_content)
}

/// Checks the files of a context: at most 100000 files, with relative paths that contain no `.` or `..`, each path
/// once.
///
/// # Errors
///
/// `invalid-argument` with the subject `context`, the path of a file or the digest of its content.
pub fn check_files(files: &[ContextFile]) -> Result<()> {
    if files.len() > MAX_FILES {
        return Err(Error::invalid(format!(
            "The build context has {} files, more than {MAX_FILES}: exclude some.",
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
                "`{}` is not a valid path in the build context: give relative paths without `.` and `..`, each once.",
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
        "`{}` is not a SHA-256: give 64 lower-case hexadecimal digits.",
        shown(&content.sha256)
    ))
    .about(&content.sha256))
}

/// Converts hexadecimal digits to bytes. Returns an empty value if the text has other characters or an odd length.
#[must_use]
pub fn unhex(text: &str) -> Bytes {
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
