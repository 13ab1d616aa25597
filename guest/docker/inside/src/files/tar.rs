//! The format of tar archives: headers with the long names of GNU tar, and the attributes of POSIX (pax).

use std::io::{self, Read, Write};

/// Size of a block, in bytes.
pub const BLOCK: usize = 512;
/// Most bytes of a long name or of extended attributes. Paths of Linux have 4096.
const MAX_EXTENSION: u64 = 1024 * 1024;

/// One entry of an archive.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The path in the archive.
    pub name: Vec<u8>,
    /// The type flag: `0` is a file, `1` a hard link, `2` a symbolic link, `5` a directory.
    pub kind: u8,
    /// Bytes of content that follow.
    pub size: u64,
    /// Permissions.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Time of the last change, in seconds of the Unix epoch.
    pub modified: i64,
    /// The target of a link.
    pub link: Vec<u8>,
    /// Name of the owner.
    pub owner: String,
    /// Name of the group.
    pub group: String,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

/// Writes a number as octal digits that end with NUL, or in binary if it is too great.
fn put_number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    if text.len() == digits {
        field[..digits].copy_from_slice(text.as_bytes());
        return;
    }
    field.fill(0);
    field[0] = 0x80;
    let start = field.len() - 8;
    field[start..].copy_from_slice(&value.to_be_bytes());
}

fn put_text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

fn checksum(block: &[u8; BLOCK]) -> u64 {
    let spaces = 8 * u64::from(b' ');
    let sum = |part: &[u8]| part.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(&block[..148]) + spaces + sum(&block[156..])
}

/// Zero bytes that fill the last block of a content.
pub fn padding(size: u64) -> usize {
    let used = (size % BLOCK as u64) as usize;
    (BLOCK - used) % BLOCK
}

/// Writes the header of an entry. The content follows, filled up to whole blocks.
///
/// # Errors
///
/// Fails as the output fails.
pub fn write_header(output: &mut impl Write, entry: &Entry) -> io::Result<()> {
    for (kind, text) in [(b'K', &entry.link), (b'L', &entry.name)] {
        if text.len() > 100 {
            let size = text.len() as u64 + 1;
            let long = Entry { name: b"././@LongLink".to_vec(), kind, size, ..Entry::default() };
            output.write_all(&block_of(&long))?;
            output.write_all(text)?;
            output.write_all(&[0; BLOCK + 1][..1 + padding(size)])?;
        }
    }
    output.write_all(&block_of(entry))
}

fn block_of(entry: &Entry) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put_text(&mut block[..100], &entry.name);
    put_number(&mut block[100..108], u64::from(entry.mode));
    put_number(&mut block[108..116], u64::from(entry.uid));
    put_number(&mut block[116..124], u64::from(entry.gid));
    put_number(&mut block[124..136], entry.size);
    put_number(&mut block[136..148], u64::try_from(entry.modified).unwrap_or(0));
    block[156] = entry.kind;
    put_text(&mut block[157..257], &entry.link);
    put_text(&mut block[257..265], b"ustar  \0");
    put_text(&mut block[265..296], entry.owner.as_bytes());
    put_text(&mut block[297..328], entry.group.as_bytes());
    put_number(&mut block[329..337], u64::from(entry.device.0));
    put_number(&mut block[337..345], u64::from(entry.device.1));
    let sum = format!("{:06o}\0 ", checksum(&block));
    put_text(&mut block[148..156], sum.as_bytes());
    block
}

/// Writes the end of an archive.
///
/// # Errors
///
/// Fails as the output fails.
pub fn write_end(output: &mut impl Write) -> io::Result<()> {
    output.write_all(&[0; 2 * BLOCK])
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the archive is malformed: {what}"))
}

fn number(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0x80 != 0 {
        // Binary, with the first bit as a mark. Negative numbers and those above 64 bits do not occur.
        let (high, low) = field.split_at(field.len() - 8);
        let mut bytes = [0; 8];
        bytes.copy_from_slice(low);
        let zero = high.iter().enumerate().all(|(index, byte)| *byte == if index == 0 { 0x80 } else { 0 });
        return if zero { Ok(u64::from_be_bytes(bytes)) } else { Err(malformed("a number is out of range")) };
    }
    let text: Vec<u8> = field.iter().copied().filter(|byte| !matches!(byte, b' ' | 0)).collect();
    if text.is_empty() {
        return Ok(0);
    }
    let text = std::str::from_utf8(&text).ok();
    text.and_then(|text| u64::from_str_radix(text, 8).ok()).ok_or_else(|| malformed("a number is wrong"))
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Reads the next entry. The input is at its content afterwards. None is the end of the archive.
///
/// # Errors
///
/// Fails with `InvalidData` if the archive is malformed.
pub fn read_header(input: &mut impl Read) -> io::Result<Option<Entry>> {
    let mut name = None;
    let mut link = None;
    let mut size = None;
    let mut modified = None;
    loop {
        let Some(block) = read_block(input)? else { return Ok(None) };
        let mut entry = parse(&block)?;
        match entry.kind {
            b'L' => name = Some(text(&read_extension(input, entry.size)?).to_vec()),
            b'K' => link = Some(text(&read_extension(input, entry.size)?).to_vec()),
            b'x' => {
                for (key, value) in attributes(&read_extension(input, entry.size)?)? {
                    match key.as_slice() {
                        b"path" => name = Some(value),
                        b"linkpath" => link = Some(value),
                        b"size" => size = Some(decimal(&value)?),
                        b"mtime" => {
                            let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                            modified = std::str::from_utf8(whole).ok().and_then(|text| text.parse().ok());
                        }
                        key if key.starts_with(b"GNU.sparse") => {
                            return Err(malformed("sparse files are not supported"));
                        }
                        _ => {}
                    }
                }
            }
            b'g' => drop(read_extension(input, entry.size)?),
            _ => {
                entry.name = name.unwrap_or(entry.name);
                entry.link = link.unwrap_or(entry.link);
                entry.size = size.unwrap_or(entry.size);
                entry.modified = modified.unwrap_or(entry.modified);
                return Ok(Some(entry));
            }
        }
    }
}

/// Reads a block; none at the end of the archive.
fn read_block(input: &mut impl Read) -> io::Result<Option<[u8; BLOCK]>> {
    let mut block = [0; BLOCK];
    let mut length = 0;
    while length < BLOCK {
        match input.read(&mut block[length..])? {
            0 if length == 0 => return Ok(None),
            0 => return Err(malformed("it ends within a header")),
            count => length += count,
        }
    }
    Ok((block != [0; BLOCK]).then_some(block))
}

fn parse(block: &[u8; BLOCK]) -> io::Result<Entry> {
    if number(&block[148..156])? != checksum(block) {
        return Err(malformed("the checksum of a header is wrong"));
    }
    let mut name = text(&block[..100]).to_vec();
    // POSIX archives have a prefix of the name, where GNU archives have other fields.
    let prefix = text(&block[345..500]);
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        name = [prefix, b"/", &name].concat();
    }
    Ok(Entry {
        name,
        kind: block[156],
        size: number(&block[124..136])?,
        mode: (number(&block[100..108])? & 0o7777) as u32,
        modified: i64::try_from(number(&block[136..148])?).unwrap_or(0),
        link: text(&block[157..257]).to_vec(),
        ..Entry::default()
    })
}

/// Reads a content that belongs to the next header.
fn read_extension(input: &mut impl Read, size: u64) -> io::Result<Vec<u8>> {
    if size > MAX_EXTENSION {
        return Err(malformed("the attributes of an entry are too long"));
    }
    let mut content = vec![0; size as usize + padding(size)];
    input.read_exact(&mut content)?;
    content.truncate(size as usize);
    Ok(content)
}

/// The attributes of a pax header: lines `LENGTH KEY=VALUE`.
fn attributes(mut content: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let wrong = || malformed("the attributes of an entry are wrong");
    let mut found = Vec::new();
    while !content.is_empty() {
        let space = content.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length = usize::try_from(decimal(&content[..space])?).map_err(|_| wrong())?;
        let line = content.get(space + 1..length).and_then(|line| line.strip_suffix(b"\n")).ok_or_else(wrong)?;
        let equals = line.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        found.push((line[..equals].to_vec(), line[equals + 1..].to_vec()));
        content = &content[length..];
    }
    Ok(found)
}

fn decimal(text: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(text).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| malformed("a number is wrong"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(entry: &Entry) -> Entry {
        let mut bytes = Vec::new();
        write_header(&mut bytes, entry).unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        read_header(&mut bytes.as_slice()).unwrap().unwrap()
    }

    #[test]
    fn headers_survive_a_round_trip() {
        for length in [1, 99, 100, 101, 511, 512, 3000] {
            let entry = Entry {
                name: vec![b'n'; length],
                link: vec![b'l'; length],
                kind: b'2',
                size: 1 << 40,
                mode: 0o4755,
                modified: 1_700_000_000,
                ..Entry::default()
            };
            let read = round_trip(&entry);
            assert_eq!((read.name, read.link), (entry.name, entry.link));
            assert_eq!((read.size, read.mode, read.modified), (entry.size, entry.mode, entry.modified));
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        let mut bytes = Vec::new();
        write_header(&mut bytes, &Entry { name: b"a".to_vec(), kind: b'0', ..Entry::default() }).unwrap();
        bytes[0] = b'b';
        assert!(read_header(&mut bytes.as_slice()).is_err());
        assert!(read_header(&mut &bytes[..100]).is_err());
        assert!(read_header(&mut [0; BLOCK].as_slice()).unwrap().is_none());
        assert!(attributes(b"9 a=").is_err());
        assert!(attributes(b"1 ").is_err());
        assert_eq!(attributes(b"12 path=a=b\n").unwrap(), [(b"path".to_vec(), b"a=b".to_vec())]);
    }
}
