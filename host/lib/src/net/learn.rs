//! Finds the origins that a response names, such as the address of a worker.
//!
//! The host knows no provider's protocol. It knows the framing that all gRPC responses have, a five-byte prefix and a
//! protobuf message, and it knows JSON. A rule of the manifest names a string in the message by its field numbers, or in
//! the document by a pointer.

use bytes::Bytes;

use super::pointer::visit;
use crate::plugin::origin::LearnWish;

/// Largest message or document that is searched, in bytes. Responses that name origins are small.
pub(crate) const MAX: usize = 1 << 20;

/// Most strings that one rule finds in one message. A repeated field can contain several.
const MAX_FOUND: usize = 64;

/// Most attempts to read a document before the response has ended. Each of them reads all data so far.
const EARLY_ATTEMPTS: u32 = 8;

/// Length of the gRPC prefix: one byte of flags and four bytes of length.
const PREFIX: usize = 5;

/// A string that a rule has found.
pub(crate) type Lesson = (String, LearnWish);

/// Collects the first message of a gRPC response, or all of a JSON response, while it passes through.
pub(crate) struct Collector {
    /// The rules with field numbers, and those with pointers.
    fields: Vec<LearnWish>,
    pointers: Vec<LearnWish>,
    buffer: Vec<u8>,
    attempts: u32,
}

impl Collector {
    /// Creates a collector. Returns `None` if no rule is for this path. `json` is true if the response is a JSON
    /// document, to which the rules with pointers apply.
    pub(crate) fn new(rules: &[LearnWish], path: &str, json: bool) -> Option<Collector> {
        let rules = rules.iter().filter(|rule| rule.covers(path) && rule.pointer.is_some() == json).cloned();
        let (pointers, fields): (Vec<_>, Vec<_>) = rules.partition(|rule| rule.pointer.is_some());
        let any = !(pointers.is_empty() && fields.is_empty());
        any.then_some(Collector { fields, pointers, buffer: Vec::new(), attempts: 0 })
    }

    /// Takes the next piece of the response. Returns the strings that the rules find when the first message or the
    /// document is complete.
    pub(crate) fn push(&mut self, data: &Bytes) -> Vec<Lesson> {
        if self.fields.is_empty() { self.push_json(data) } else { self.push_grpc(data) }
    }

    /// Takes the end of the response. Returns the strings that the rules find in the document.
    pub(crate) fn end(&mut self) -> Vec<Lesson> {
        self.read_json().unwrap_or_default()
    }

    fn push_grpc(&mut self, data: &Bytes) -> Vec<Lesson> {
        let room = (PREFIX + MAX).saturating_sub(self.buffer.len());
        self.buffer.extend_from_slice(&data[..data.len().min(room)]);
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Vec::new() };
        let [flags, length @ ..] = *prefix;
        let length = u32::from_be_bytes(length) as usize;
        if flags != 0 || length > MAX {
            self.finish();
            return Vec::new();
        }
        let Some(message) = self.buffer.get(PREFIX..PREFIX + length) else { return Vec::new() };
        let mut found = Vec::new();
        for rule in &self.fields {
            let mut strings = Vec::new();
            walk(message, &rule.field, &mut strings);
            found.extend(strings.into_iter().map(|text| (text, rule.clone())));
        }
        self.finish();
        found
    }

    fn push_json(&mut self, data: &Bytes) -> Vec<Lesson> {
        if self.pointers.is_empty() {
            return Vec::new();
        }
        if self.buffer.len() + data.len() > MAX {
            self.finish();
            return Vec::new();
        }
        self.buffer.extend_from_slice(data);
        // A component that knows the length does not wait for the end of the response before it uses the URL. So the
        // document is read as soon as it may be complete.
        if self.attempts == EARLY_ATTEMPTS || !self.buffer.trim_ascii_end().ends_with(b"}") {
            return Vec::new();
        }
        self.attempts += 1;
        self.read_json().unwrap_or_default()
    }

    /// Reads the document. Returns `None` if it is not complete.
    fn read_json(&mut self) -> Option<Vec<Lesson>> {
        if self.pointers.is_empty() {
            return None;
        }
        let mut document = serde_json::from_slice(&self.buffer).ok()?;
        let mut found = Vec::new();
        for rule in &self.pointers {
            let mut left = MAX_FOUND;
            visit(&mut document, rule.pointer.as_deref().unwrap_or_default(), &mut |text| {
                // Many services name hosts without a scheme.
                let url = if text.contains("://") { text.clone() } else { format!("https://{text}") };
                found.push((url, rule.clone()));
                left -= 1;
                left > 0
            });
        }
        self.finish();
        Some(found)
    }

    fn finish(&mut self) {
        *self = Collector { fields: Vec::new(), pointers: Vec::new(), buffer: Vec::new(), attempts: 0 };
    }
}

/// Collects the strings at a path of field numbers in a protobuf message. Stops at malformed data.
fn walk(mut message: &[u8], path: &[u32], found: &mut Vec<String>) {
    let Some((&wanted, rest)) = path.split_first() else { return };
    while !message.is_empty() && found.len() < MAX_FOUND {
        let Some(tag) = varint(&mut message) else { return };
        let (field, wire) = (tag >> 3, tag & 7);
        let value = match wire {
            0 => {
                if varint(&mut message).is_none() {
                    return;
                }
                continue;
            }
            1 => take(&mut message, 8),
            2 => varint(&mut message).and_then(|length| take(&mut message, usize::try_from(length).ok()?)),
            5 => take(&mut message, 4),
            _ => None,
        };
        let Some(value) = value else { return };
        if wire != 2 || field != u64::from(wanted) {
            continue;
        }
        if rest.is_empty() {
            if let Ok(text) = std::str::from_utf8(value)
                && !text.is_empty()
            {
                found.push(text.to_owned());
            }
        } else {
            walk(value, rest, found);
        }
    }
}

/// Copies the message, with the strings at `path` replaced where `replace` returns a value and all lengths corrected.
/// Returns `None` if the message is malformed.
pub(crate) fn rewrite(
    mut message: &[u8],
    path: &[u32],
    replace: &mut dyn FnMut(&str) -> Option<String>,
) -> Option<Vec<u8>> {
    let (&wanted, rest) = path.split_first()?;
    let mut out = Vec::with_capacity(message.len());
    while !message.is_empty() {
        let start = message;
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => {
                varint(&mut message)?;
                None
            }
            1 => take(&mut message, 8).map(|_| None)?,
            2 => {
                let length = varint(&mut message)?;
                Some(take(&mut message, usize::try_from(length).ok()?)?)
            }
            5 => take(&mut message, 4).map(|_| None)?,
            _ => return None,
        };
        let changed = match value {
            Some(value) if tag >> 3 == u64::from(wanted) && rest.is_empty() => {
                std::str::from_utf8(value).ok().and_then(&mut *replace).map(String::into_bytes)
            }
            Some(value) if tag >> 3 == u64::from(wanted) => Some(rewrite(value, rest, replace)?),
            _ => None,
        };
        match changed {
            Some(changed) => {
                put_varint(&mut out, tag);
                put_varint(&mut out, changed.len() as u64);
                out.extend_from_slice(&changed);
            }
            None => out.extend_from_slice(&start[..start.len() - message.len()]),
        }
    }
    Some(out)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (value, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, value.len() as u8];
        out.extend_from_slice(value);
        out
    }

    fn message(body: &[u8]) -> Bytes {
        let mut out = vec![0];
        out.extend_from_slice(&(body.len() as u32).to_be_bytes());
        out.extend_from_slice(body);
        out.into()
    }

    fn rule(field: &[u32]) -> LearnWish {
        LearnWish { path: "/s/M".into(), field: field.into(), name: "n".into(), pointer: None }
    }

    #[test]
    fn a_nested_string_is_found_in_any_cut() {
        let mut body = vec![0x08, 0x96, 0x01];
        body.extend(field(5, &[field(1, b"other"), field(2, b"https://w:1")].concat()));
        let whole = message(&body);
        for cut in 0..whole.len() {
            let mut collector = Collector::new(&[rule(&[5, 2])], "/s/M", false).unwrap();
            let mut found = collector.push(&whole.slice(..cut));
            found.extend(collector.push(&whole.slice(cut..)));
            assert_eq!(found.len(), 1, "cut at {cut}");
            assert_eq!(found[0].0, "https://w:1");
            assert!(collector.push(&whole).is_empty(), "only the first message counts");
        }
    }

    #[test]
    fn other_paths_compressed_and_giant_messages_teach_nothing() {
        assert!(Collector::new(&[rule(&[1])], "/s/Other", false).is_none());
        let body = field(1, b"https://w");
        let mut compressed = message(&body).to_vec();
        compressed[0] = 1;
        let mut collector = Collector::new(&[rule(&[1])], "/s/M", false).unwrap();
        assert!(collector.push(&compressed.into()).is_empty());
        let mut collector = Collector::new(&[rule(&[1])], "/s/M", false).unwrap();
        assert!(collector.push(&Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 10, 1, 65])).is_empty());
        assert!(collector.buffer.is_empty());
    }

    #[test]
    fn strings_are_replaced_and_lengths_corrected() {
        let mut body = vec![0x08, 0x96, 0x01];
        body.extend(field(5, &[field(1, b"other"), field(2, b"https://w:1")].concat()));
        body.extend(field(6, b"tail"));
        let longer = "http://127.0.0.1:40000/".repeat(8);
        let new = rewrite(&body, &[5, 2], &mut |_| Some(longer.clone())).unwrap();
        let mut found = Vec::new();
        walk(&new, &[5, 2], &mut found);
        walk(&new, &[5, 1], &mut found);
        walk(&new, &[6], &mut found);
        assert_eq!(found, [longer.as_str(), "other", "tail"]);
        assert_eq!(rewrite(&body, &[5, 2], &mut |_| None).unwrap(), body);
        assert_eq!(rewrite(&body[..body.len() - 1], &[5, 2], &mut |_| None), None);
    }

    #[test]
    fn malformed_messages_are_harmless() {
        for body in [
            &[0xff; 20][..],
            &[10, 200, 1],
            &[9, 1],
            &[0x0b],
            &[10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            let mut collector = Collector::new(&[rule(&[1])], "/s/M", false).unwrap();
            assert!(collector.push(&message(body)).is_empty());
        }
    }

    fn pointer(pointer: &str) -> LearnWish {
        LearnWish { path: "/v1/*".into(), field: vec![], name: "n".into(), pointer: Some(pointer.into()) }
    }

    fn learned(collector: &mut Collector, pieces: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        for piece in pieces {
            found.extend(collector.push(&Bytes::copy_from_slice(piece)));
        }
        found.extend(collector.end());
        found.into_iter().map(|(url, _)| url).collect()
    }

    #[test]
    fn a_text_in_json_is_found_once_in_any_cut() {
        let document = br#"{"data": [{"url": "https://w:1"}, {"url": "w2.example.com"}], "n": 1} "#;
        for cut in 0..document.len() {
            let mut collector = Collector::new(&[pointer("/data/*/url")], "/v1/x", true).unwrap();
            let found = learned(&mut collector, &[&document[..cut], &document[cut..]]);
            assert_eq!(found, ["https://w:1", "https://w2.example.com"], "cut at {cut}");
        }
        // The URL is known before the end of the response.
        let mut collector = Collector::new(&[pointer("/data/0/url")], "/v1/x", true).unwrap();
        assert_eq!(collector.push(&Bytes::copy_from_slice(document)).len(), 1);
        assert!(collector.end().is_empty());
    }

    #[test]
    fn other_documents_teach_nothing() {
        assert!(Collector::new(&[pointer("/url")], "/v2/x", true).is_none());
        assert!(Collector::new(&[pointer("/url")], "/v1/x", false).is_none());
        let giant = [b"{\"url\": \"https://w\", \"x\": \"".to_vec(), vec![b'x'; MAX], b"\"}".to_vec()].concat();
        for document in [&b"{\"url\": \"https://w\""[..], b"{\"url\": 7}", b"[1]", b"\xff", b"", &giant] {
            let mut collector = Collector::new(&[pointer("/url")], "/v1/x", true).unwrap();
            assert!(learned(&mut collector, &[document]).is_empty());
        }
        // Single bytes that all look like the end of a document are not read each time.
        let mut collector = Collector::new(&[pointer("/url")], "/v1/x", true).unwrap();
        for _ in 0..1000 {
            collector.push(&Bytes::from_static(b"}"));
        }
        assert_eq!(collector.attempts, EARLY_ATTEMPTS);
        let many = serde_json::json!({ "url": vec!["https://w"; 1000] }).to_string();
        let mut collector = Collector::new(&[pointer("/url/*")], "/v1/x", true).unwrap();
        assert_eq!(learned(&mut collector, &[many.as_bytes()]).len(), MAX_FOUND);
    }
}
