//! Build contexts: files that are named by digest and uploaded once. The component has no files: the host sends contents in
//! pieces, which may go to a store as they come.

use std::collections::HashSet;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::api::{
    error::{Error, Result, shown},
    wit::{Content, ContextFile},
};

/// Contents that one call may ask for; the interface documents it.
const MAX_CONTENTS: usize = 10_000;

/// Files of one context: more were not meant to be one.
const MAX_FILES: usize = 100_000;

/// Largest piece that is taken at a time, in bytes; the interface documents it for other uploads.
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
    /// Takes in a piece if it is the next; false if it is not.
    pub fn take(&mut self, offset: u64, data: &[u8]) -> bool {
        let next = self.accepted == offset;
        if next {
            self.hash.update(data);
            self.accepted += data.len() as u64;
        }
        next
    }

    /// Bytes that were taken in.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Refuses a content that is not what it was announced as.
    ///
    /// # Errors
    ///
    /// `invalid-argument` about the digest.
    pub fn verify(self, content: &Content) -> Result<()> {
        if self.hash.finalize()[..] == unhex(&content.sha256)[..] {
            return Ok(());
        }
        Err(Error::invalid("What was sent does not have the digest that it was announced with.").about(&content.sha256))
    }
}

/// Refuses a piece that cannot be one of this content.
///
/// # Errors
///
/// `invalid-argument` about the content's digest.
pub fn check_piece(content: &Content, offset: u64, data: &[u8]) -> Result<()> {
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
    Ok(())
}

/// Refuses a question about contents that is too long, or names what is no content.
///
/// # Errors
///
/// `invalid-argument`.
pub fn check_contents(contents: &[Content]) -> Result<()> {
    if contents.len() > MAX_CONTENTS {
        return Err(Error::invalid(format!(
            "{} contents are too many: ask for {MAX_CONTENTS} at a time.",
            contents.len()
        )));
    }
    contents.iter().try_for_each(check_content)
}

/// Refuses files that could not lie in a context.
///
/// # Errors
///
/// `invalid-argument` about the file or its content.
pub fn check_files(files: &[ContextFile]) -> Result<()> {
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
