//! The few tar archives (ustar) that the archive API needs: regular files with short names.

/// The size of a block of an archive, in bytes.
const BLOCK_BYTES: usize = 512;

/// Returns the header of a regular file, or of a directory if `name` ends in `/`. `name` has at most 100 bytes, or 255 bytes
/// with a `/` at a suitable place.
#[must_use]
pub fn header(name: &str, mode: u32, size: u64) -> Option<[u8; BLOCK_BYTES]> {
    let mut block = [0_u8; BLOCK_BYTES];
    let (prefix, last) = split(name)?;
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, last);
    put(100, &format!("{:07o}", mode & 0o7777));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, if name.ends_with('/') { "5" } else { "0" });
    put(257, "ustar\u{0}00");
    put(345, prefix);
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(block)
}

/// Splits a name into the two fields of a header. Returns `None` if it does not fit.
fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= 100 {
        return Some(("", name));
    }
    let at = name.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| at).find(|at| name.len() - at - 1 <= 100)?;
    (at <= 155 && at + 1 < name.len()).then(|| (&name[..at], &name[at + 1..]))
}

/// Returns the headers of a file whose name is longer than a ustar header permits: an extended header (POSIX.1-2001, pax
/// format) with the path, and a header with a short name.
#[must_use]
pub fn headers(name: &str, mode: u32, size: u64) -> Vec<u8> {
    if let Some(block) = header(name, mode, size) {
        return block.to_vec();
    }
    let body = format!(" path={name}\n");
    let mut length = body.len();
    while length != body.len() + length.to_string().len() {
        length = body.len() + length.to_string().len();
    }
    let record = format!("{length}{body}");
    let mut all = header("path", 0o644, record.len() as u64).unwrap_or([0; BLOCK_BYTES]).to_vec();
    all[156] = b'x';
    checksum(&mut all);
    all.extend_from_slice(record.as_bytes());
    all.resize(all.len() + padding(record.len() as u64), 0);
    all.extend_from_slice(&header("long", mode, size).unwrap_or([0; BLOCK_BYTES]));
    all
}

fn checksum(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block[..BLOCK_BYTES].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Returns the number of zero bytes after a content of this size.
#[must_use]
pub fn padding(size: u64) -> usize {
    (BLOCK_BYTES - (size % BLOCK_BYTES as u64) as usize) % BLOCK_BYTES
}

/// The end of an archive.
pub const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// Returns an archive with one file. The directories of `name` are part of it, so that they exist before the file.
#[must_use]
pub fn file(name: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    let mut archive = Vec::with_capacity(content.len() + 8 * BLOCK_BYTES);
    for (at, _) in name.match_indices('/') {
        archive.extend_from_slice(&headers(&name[..=at], 0o700, 0));
    }
    archive.extend_from_slice(&headers(name, mode, content.len() as u64));
    archive.extend_from_slice(content);
    archive.resize(archive.len() + padding(content.len() as u64), 0);
    archive.extend_from_slice(&END);
    archive
}

/// Returns the regular files of an archive: names and contents. Stops at what is no archive.
#[must_use]
pub fn files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = archive;
    while rest.len() >= BLOCK_BYTES && rest[0] != 0 {
        let (block, after) = rest.split_at(BLOCK_BYTES);
        let size = std::str::from_utf8(&block[124..136]).unwrap_or_default().trim_matches(['\0', ' ']);
        let Ok(size) = usize::from_str_radix(size, 8) else { break };
        let Some(content) = after.get(..size) else { break };
        if matches!(block[156], b'0' | 0) {
            let name = block[..100].split(|byte| *byte == 0).next().unwrap_or_default();
            found.push((String::from_utf8_lossy(name).into_owned(), content.to_vec()));
        }
        rest = after.get(size + padding(size as u64)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_again() {
        for content in [&b""[..], b"x", &[7; 512], &[7; 513]] {
            let archive = file("up/name", 0o600, content);
            assert_eq!(archive.len() % BLOCK_BYTES, 0);
            assert_eq!(files(&archive), [("up/name".to_string(), content.to_vec())]);
        }
        assert!(files(&END).is_empty() && files(b"short").is_empty());
    }

    #[test]
    fn long_names_have_an_extended_header() {
        assert!(header(&"x".repeat(101), 0o644, 0).is_none());
        let deep = format!("{}/{}", "a".repeat(150), "b".repeat(90));
        assert!(header(&deep, 0o644, 0).is_some_and(|block| block[345] == b'a' && block[0] == b'b'));
        let long = headers(&"x".repeat(300), 0o644, 5);
        assert_eq!((long.len(), long[156]), (3 * BLOCK_BYTES, b'x'));
        assert!(long[BLOCK_BYTES..].starts_with(b"310 path=xxx"));
    }
}
