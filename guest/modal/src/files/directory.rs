//! Lists, makes and removes directories with Modal's helper (docs/modal-protocol.md, section 8.1).

use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::{clip, shown},
        wit::{ErrorKind, FileFault, FileInfo, FilePage, Location},
    },
    call::json::object,
};

use crate::exec::{
    helper::{END_WAIT, check_location, entry, exec_ref, parse, tool, tool_argv, uncertain, unreadable},
    script::Scripts,
};

/// Longest entry of a listing, in bytes: a name and two paths with every character escaped.
const MAX_ENTRY_BYTES: usize = 64 * 1024;

/// Size of the entries at which a page is full, in bytes of the helper's output.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Maximum number of entries of one page, as documented in the interface.
const MAX_ENTRIES: u32 = 10_000;

/// Implements `stat` of the interface. Describes a path.
///
/// # Errors
///
/// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the sandbox
/// has ended; otherwise the error of the failed request.
pub async fn stat(scripts: &Scripts, at: &Location, follow: bool) -> Result<FileInfo> {
    scripts.helper().stat(at, follow).await
}

/// Implements `list-directory` of the interface. Lists the entries of a directory: one page of at most `max` (1 to
/// 10000) entries, beginning at `cursor`.
///
/// # Errors
///
/// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the sandbox
/// has ended; otherwise the error of the failed request.
pub async fn list(scripts: &Scripts, at: &Location, cursor: Option<String>, max: u32) -> Result<FilePage> {
    if max == 0 {
        return Err(Error::invalid("max is 0: request at least one entry."));
    }
    check_location(at)?;
    // The helper lists the directory once. A page is a part of its output, and the cursor contains the offset of the
    // next part.
    let (transfer, offset) = match cursor {
        Some(cursor) => listing_cursor(&cursor)?,
        None => {
            let transfer = scripts.service().new_uuid();
            scripts.helper().begin(at, &transfer, tool_argv("ListFiles", &at.path)).await?;
            (transfer, 0)
        }
    };
    let exec = exec_ref(at, &transfer);
    let mut follow = scripts.helper().outputs().take(&exec, 0, offset);
    let mut elements = Elements::new(offset == 0);
    let mut items = Vec::new();
    let max = max.min(MAX_ENTRIES) as usize;
    let until = scripts.service().now() + END_WAIT;
    loop {
        let is_full = items.len() == max || elements.done() >= MAX_PAGE_BYTES;
        match elements.next(is_full) {
            Next::Element(text) => items.push(parse(text, entry)?),
            Next::Another => {
                follow.give_back(elements.rest());
                let next = format!("{transfer}:{}", follow.offset());
                scripts.helper().outputs().keep(&exec, 0, follow);
                return Ok(FilePage { items, skipped: 0, next: Some(next) });
            }
            Next::End => break,
            Next::More if follow.is_ended() => {
                // If the program failed, its exit code says why.
                scripts.helper().finish(at, &transfer).await?;
                return Err(unreadable());
            }
            Next::More => {
                scripts.helper().fill(at, &mut follow, until).await?;
                elements.add(&follow.take(usize::MAX));
            }
            Next::Unreadable => return Err(unreadable()),
        }
    }
    scripts.helper().finish(at, &transfer).await?;
    Ok(FilePage { items, skipped: 0, next: None })
}

/// Implements `make-directory` of the interface. Creates a directory.
///
/// # Errors
///
/// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the sandbox
/// has ended; otherwise the error of the failed request.
pub async fn make(scripts: &Scripts, at: &Location, parents: bool) -> Result<()> {
    let argument = object([("path", at.path.as_str().into()), ("parents", parents.into())]);
    scripts.helper().answer(at, tool("MakeDirectory", argument)).await.map(drop)
}

/// Implements `remove` of the interface. Removes a file, a symbolic link or an empty directory.
///
/// # Errors
///
/// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the sandbox
/// has ended; otherwise the error of the failed request.
pub async fn remove(scripts: &Scripts, at: &Location, recursive: bool) -> Result<()> {
    let argument = object([("path", at.path.as_str().into()), ("recursive", recursive.into())]);
    scripts.helper().answer(at, tool("Remove", argument)).await.map(drop).map_err(|error| {
        // If a tree could not be removed completely, a part of it may be gone.
        if recursive && !matches!(error.kind, ErrorKind::File(FileFault::NotFound)) {
            return uncertain(error);
        }
        error
    })
}

/// Parses a cursor into the transfer that prints the listing, and the offset of its next entry.
fn listing_cursor(cursor: &str) -> Result<(String, u64)> {
    let parts = cursor.split_once(':').and_then(|(transfer, offset)| Some((transfer, offset.parse().ok()?)));
    let Some((transfer, offset)) = parts.filter(|(_, offset)| *offset > 0) else {
        return Err(Error::invalid(format!("`{}` is not a cursor of this list.", shown(&clip(cursor)))));
    };
    check::transfer(transfer)?;
    Ok((transfer.to_string(), offset))
}

/// Splits a JSON array of objects into its elements while its text arrives, so that only a part of it is in memory.
struct Elements {
    text: Vec<u8>,
    /// Where the next element can begin. The text before was returned.
    given: usize,
    /// End of the text that was scanned. Within an element, the element begins at `given`.
    seen: usize,
    /// Number of open brackets within the element; 0 between elements.
    depth: u32,
    quoted: bool,
    escaped: bool,
    /// The bracket of the array itself is still to come.
    begins: bool,
    /// Number of returned bytes that were removed from `text`.
    dropped: usize,
}

enum Next<'a> {
    /// An element.
    Element(&'a [u8]),
    /// There is another element, which the caller does not want yet.
    Another,
    /// The end of the array.
    End,
    /// More text is needed.
    More,
    /// The text is not an array of objects.
    Unreadable,
}

impl Elements {
    /// Makes a splitter. `begins` says that the text starts at the beginning of the array; otherwise it starts after an
    /// element.
    fn new(begins: bool) -> Elements {
        Elements { text: Vec::new(), given: 0, seen: 0, depth: 0, quoted: false, escaped: false, begins, dropped: 0 }
    }

    /// Adds text.
    fn add(&mut self, text: &[u8]) {
        self.text.drain(..self.given);
        self.dropped += self.given;
        self.seen -= self.given;
        self.given = 0;
        self.text.extend_from_slice(text);
    }

    /// Returns the number of bytes that were returned or skipped.
    fn done(&self) -> usize {
        self.dropped + self.given
    }

    /// Removes and returns the text that was not returned as elements.
    fn rest(&mut self) -> Vec<u8> {
        self.text.split_off(self.given)
    }

    /// Returns the next element, or with `is_full` only whether there is one.
    fn next(&mut self, is_full: bool) -> Next<'_> {
        while let Some(byte) = self.text.get(self.seen).copied() {
            if self.depth == 0 {
                match byte {
                    b'{' if !self.begins && is_full => return Next::Another,
                    b'{' if !self.begins => self.depth = 1,
                    b'[' if self.begins => self.begins = false,
                    b']' if !self.begins => return Next::End,
                    b',' if !self.begins => {}
                    b' ' | b'\t' | b'\n' | b'\r' => {}
                    _ => return Next::Unreadable,
                }
                if self.depth == 0 {
                    self.given = self.seen + 1;
                }
                self.seen += 1;
                continue;
            }
            self.seen += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.quoted => self.escaped = true,
                b'"' => self.quoted = !self.quoted,
                _ if self.quoted => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                let start = std::mem::replace(&mut self.given, self.seen);
                return Next::Element(&self.text[start..self.seen]);
            }
        }
        if self.text.len() - self.given > MAX_ENTRY_BYTES { Next::Unreadable } else { Next::More }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_taken_apart() {
        let text = br#" [ {"a":"}],{\\\""} ,{"b":[{},[1]]},{}] "#;
        let wanted = [r#"{"a":"}],{\\\""}"#, r#"{"b":[{},[1]]}"#, "{}"];
        for size in 1..text.len() {
            // Each page has one element and starts again with the remaining text.
            let (mut found, mut at) = (Vec::new(), 0);
            'pages: loop {
                let mut elements = Elements::new(at == 0);
                let mut pieces = text[at..].chunks(size);
                let mut of_page = 0;
                loop {
                    match elements.next(of_page == 1) {
                        Next::Element(text) => {
                            found.push(String::from_utf8(text.to_vec()).unwrap());
                            of_page += 1;
                        }
                        Next::Another => {
                            at += elements.done();
                            continue 'pages;
                        }
                        Next::More => elements.add(pieces.next().unwrap()),
                        Next::End => break 'pages,
                        Next::Unreadable => panic!("{size} {found:?}"),
                    }
                }
            }
            assert_eq!(found, wanted, "{size}");
        }
        for bad in ["{}", "[x", "x", "]", "[\"a\"", &format!("[{{{}", "a".repeat(MAX_ENTRY_BYTES))] {
            let mut elements = Elements::new(true);
            elements.add(bad.as_bytes());
            assert!(matches!(elements.next(false), Next::Unreadable), "{bad:.20}");
        }
    }

    #[test]
    fn cursors_of_listings() {
        let id = "0b0e5d1e-6f3c-4d3a-9c7e-2f1d5a7b8c9d";
        assert_eq!(listing_cursor(&format!("{id}:7")).unwrap(), (id.to_string(), 7));
        for bad in ["", "name", "main:7", &format!("{id}:"), &format!("{id}:0"), &format!("{id}:-1"), "\n:1"] {
            assert!(listing_cursor(bad).is_err(), "{bad}");
        }
    }
}
