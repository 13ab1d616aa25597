//! Finds the origins that a response names, such as the address of a worker.
//!
//! The host knows no provider's protocol. It knows the framing that all gRPC responses have: a five-byte prefix and a
//! protobuf message. A rule of the manifest names a string in that message by its field numbers.

use bytes::Bytes;

use crate::plugin::manifest::LearnWish;

/// Largest message that is searched, in bytes. Responses that name origins are small.
const MAX: usize = 1 << 20;

/// Most strings that one rule finds in one message. A repeated field can contain several.
const MAX_FOUND: usize = 64;

/// Length of the gRPC prefix: one byte of flags and four bytes of length.
const PREFIX: usize = 5;

/// Collects the first message of a response while the response passes through.
pub(crate) struct Collector {
    rules: Vec<LearnWish>,
    buffer: Vec<u8>,
    done: bool,
}

impl Collector {
    /// Creates a collector. Returns `None` if no rule names this path.
    pub(crate) fn new(rules: &[LearnWish], path: &str) -> Option<Collector> {
        let rules: Vec<_> = rules.iter().filter(|rule| rule.path == path).cloned().collect();
        (!rules.is_empty()).then_some(Collector { rules, buffer: Vec::new(), done: false })
    }

    /// Takes the next piece of the response. Returns the strings that the rules find when the first message is
    /// complete.
    pub(crate) fn push(&mut self, data: &Bytes) -> Vec<(String, LearnWish)> {
        if self.done {
            return Vec::new();
        }
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
        for rule in &self.rules {
            let mut strings = Vec::new();
            walk(message, &rule.field, &mut strings);
            found.extend(strings.into_iter().map(|text| (text, rule.clone())));
        }
        self.finish();
        found
    }

    fn finish(&mut self) {
        self.done = true;
        self.buffer = Vec::new();
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
        LearnWish { path: "/s/M".into(), field: field.into(), name: "n".into() }
    }

    #[test]
    fn a_nested_string_is_found_in_any_cut() {
        let mut body = vec![0x08, 0x96, 0x01];
        body.extend(field(5, &[field(1, b"other"), field(2, b"https://w:1")].concat()));
        let whole = message(&body);
        for cut in 0..whole.len() {
            let mut collector = Collector::new(&[rule(&[5, 2])], "/s/M").unwrap();
            let mut found = collector.push(&whole.slice(..cut));
            found.extend(collector.push(&whole.slice(cut..)));
            assert_eq!(found.len(), 1, "cut at {cut}");
            assert_eq!(found[0].0, "https://w:1");
            assert!(collector.push(&whole).is_empty(), "only the first message counts");
        }
    }

    #[test]
    fn other_paths_compressed_and_giant_messages_teach_nothing() {
        assert!(Collector::new(&[rule(&[1])], "/s/Other").is_none());
        let body = field(1, b"https://w");
        let mut compressed = message(&body).to_vec();
        compressed[0] = 1;
        let mut collector = Collector::new(&[rule(&[1])], "/s/M").unwrap();
        assert!(collector.push(&compressed.into()).is_empty());
        let mut collector = Collector::new(&[rule(&[1])], "/s/M").unwrap();
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
            let mut collector = Collector::new(&[rule(&[1])], "/s/M").unwrap();
            assert!(collector.push(&message(body)).is_empty());
        }
    }
}
