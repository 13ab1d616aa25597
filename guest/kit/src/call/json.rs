//! A small JSON reader and writer for options, token claims, and messages of services and helper programs.
//!
//! The usual crate would be a twelfth of the component (80 of 1,050 KB of code, measured), most of it for numbers. Here
//! numbers are kept as their text.

use std::{fmt, str::FromStr};

/// Maximum nesting depth. The messages of the known services have at most four levels.
const MAX_DEPTH: u32 = 32;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, or a missing member.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as its text.
    Number(String),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object with its members in the order of the text.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Parses a text that is one JSON value. Returns `None` if it is not, or if it is nested more than 32 levels deep.
    #[must_use]
    pub fn parse(text: &str) -> Option<Value> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(MAX_DEPTH)?;
        reader.space();
        (reader.at == text.len()).then_some(value)
    }

    /// Returns the member with this name, or `Null` if there is none. Returns the last one if there are several.
    #[must_use]
    pub fn get(&self, name: &str) -> &Value {
        let members = if let Value::Map(members) = self { &members[..] } else { &[] };
        members.iter().rev().find(|(key, _)| key == name).map_or(&Value::Null, |(_, value)| value)
    }

    /// Returns the text of a string, or `None` for other values.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    /// Returns a boolean, or `None` for other values.
    #[must_use]
    pub fn flag(&self) -> Option<bool> {
        if let Value::Bool(flag) = self { Some(*flag) } else { None }
    }

    /// Returns a number as `T`, or `None` if it is not an integer in the range of `T`.
    #[must_use]
    pub fn whole<T: FromStr>(&self) -> Option<T> {
        if let Value::Number(text) = self { text.parse().ok() } else { None }
    }

    /// Returns a non-negative number in thousandths, rounded down. Returns `None` for a number with an exponent.
    #[must_use]
    pub fn thousandths(&self) -> Option<u64> {
        if let Value::Number(text) = self { thousandths(text) } else { None }
    }
}

/// Parses a decimal number such as `12.5` and returns it in thousandths, rounded down. Returns `None` if it is
/// negative, has an exponent or is too large.
#[must_use]
pub fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if ![whole, fraction].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    let digits = fraction.bytes().chain([b'0'; 3]).take(3).fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(digits)
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_string())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Bool(flag)
    }
}

/// Makes an object from its members.
#[must_use]
pub fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Map(members.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(flag) => f.write_str(if *flag { "true" } else { "false" }),
            Value::Number(text) => f.write_str(text),
            Value::Text(text) => quoted(text, f),
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    f.write_str(if index == 0 { "[" } else { "," })?;
                    item.fmt(f)?;
                }
                f.write_str(if items.is_empty() { "[]" } else { "]" })
            }
            Value::Map(members) => {
                for (index, (name, value)) in members.iter().enumerate() {
                    f.write_str(if index == 0 { "{" } else { "," })?;
                    quoted(name, f)?;
                    f.write_str(":")?;
                    value.fmt(f)?;
                }
                f.write_str(if members.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

fn quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for piece in text.split_inclusive(|c: char| c < ' ' || c == '"' || c == '\\') {
        let last = piece.chars().next_back().filter(|c| *c < ' ' || *c == '"' || *c == '\\');
        f.write_str(&piece[..piece.len() - last.map_or(0, char::len_utf8)])?;
        match last {
            Some(c @ ('"' | '\\')) => write!(f, "\\{c}")?,
            Some(c) => write!(f, "\\u{:04x}", u32::from(c))?,
            None => {}
        }
    }
    f.write_str("\"")
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Skips white space, and this byte if it follows. Returns whether it did.
    fn skip(&mut self, byte: u8) -> bool {
        self.space();
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        self.space();
        match self.peek()? {
            b'"' => self.string().map(Value::Text),
            b'{' => {
                self.at += 1;
                let mut members = Vec::new();
                if self.skip(b'}') {
                    return Some(Value::Map(members));
                }
                loop {
                    self.space();
                    let name = self.string()?;
                    if !self.skip(b':') {
                        return None;
                    }
                    members.push((name, self.value(depth)?));
                    if !self.skip(b',') {
                        return self.skip(b'}').then_some(Value::Map(members));
                    }
                }
            }
            b'[' => {
                self.at += 1;
                let mut items = Vec::new();
                if self.skip(b']') {
                    return Some(Value::List(items));
                }
                loop {
                    items.push(self.value(depth)?);
                    if !self.skip(b',') {
                        return self.skip(b']').then_some(Value::List(items));
                    }
                }
            }
            _ => {
                let rest = &self.text[self.at..];
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).unwrap_or(rest.len());
                let word = &rest[..end];
                self.at += end;
                match word {
                    "null" => Some(Value::Null),
                    "true" => Some(Value::Bool(true)),
                    "false" => Some(Value::Bool(false)),
                    _ => is_number(word).then(|| Value::Number(word.to_string())),
                }
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        if self.peek() != Some(b'"') {
            return None;
        }
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = &self.text[self.at..];
            let end = rest.find(|c: char| c < ' ' || c == '"' || c == '\\')?;
            string.push_str(&rest[..end]);
            self.at += end + 1;
            match rest.as_bytes()[end] {
                b'"' => return Some(string),
                b'\\' => {
                    let escape = self.peek()?;
                    self.at += 1;
                    string.push(match escape {
                        b'"' | b'\\' | b'/' => escape as char,
                        b'b' => '\u{8}',
                        b'f' => '\u{c}',
                        b'n' => '\n',
                        b'r' => '\r',
                        b't' => '\t',
                        b'u' => self.unicode()?,
                        _ => return None,
                    });
                }
                _ => return None,
            }
        }
    }

    /// Reads the digits after `\u`, and the second half of a surrogate pair. Half a pair becomes U+FFFD.
    fn unicode(&mut self) -> Option<char> {
        let first = self.unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if !self.text[self.at..].starts_with("\\u") {
            return Some(char::REPLACEMENT_CHARACTER);
        }
        self.at += 2;
        let second = self.unit()?;
        let pair = 0x10000 + ((first - 0xd800) << 10) + second.wrapping_sub(0xdc00);
        let whole = (0xdc00..0xe000).contains(&second).then_some(pair).and_then(char::from_u32);
        Some(whole.unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn unit(&mut self) -> Option<u32> {
        let digits =
            self.text.get(self.at..self.at + 4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

/// Returns whether a word is a JSON number.
fn is_number(word: &str) -> bool {
    let (mantissa, exponent) = word.split_once(['e', 'E']).unwrap_or((word, "0"));
    let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole) && digits(fraction) && digits(exponent) && (whole == "0" || !whole.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reader accepts and rejects the same texts as `serde_json`, and `serde_json` reads what the writer wrote as
    /// the same value.
    #[test]
    fn it_reads_and_writes_as_others_do() {
        let parts = [
            "{", "}", "[", "]", ",", ":", "\"", "a", "\\", "u00e9", "\\u", "d83d", "\\ude00", "0", "-", "1.5", "e3",
            "null", "true", "false", " ", "\n", "é", "\"b\":", "\"x\"", "\u{1}",
        ];
        let mut state = 7_u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut read = 0;
        for _ in 0..200_000 {
            let text: String = (0..next(9)).map(|_| parts[next(parts.len())]).collect();
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match (Value::parse(&text), theirs) {
                (Some(ours), Ok(theirs)) => {
                    read += 1;
                    assert_eq!(serde_json::from_str::<serde_json::Value>(&ours.to_string()).unwrap(), theirs, "{text}");
                }
                (None, Err(_)) => {}
                // `serde_json` rejects half a surrogate pair, and numbers out of the range of `f64`.
                (Some(_), Err(error)) if error.to_string().contains("surrogate") || text.contains("\\ud") => {}
                (Some(_), Err(error)) if error.to_string().contains("out of range") => {}
                (ours, theirs) => panic!("{text:?}: {ours:?}, {theirs:?}"),
            }
        }
        assert!(read > 5_000, "{read} texts were JSON");
    }

    #[test]
    fn depth_is_bounded() {
        assert!(Value::parse(&"[".repeat(1_000_000)).is_none());
        assert!(Value::parse(&format!("{}{}", "[".repeat(31), "]".repeat(31))).is_some());
    }

    #[test]
    fn numbers() {
        let number = |text: &str| Value::parse(text).unwrap();
        assert_eq!(number("12.3456").thousandths(), Some(12_345));
        assert_eq!(number("12").thousandths(), Some(12_000));
        assert_eq!(number("1e3").thousandths(), None);
        assert_eq!(number("-1").thousandths(), None);
        assert_eq!(number("-1").whole::<i64>(), Some(-1));
        assert_eq!(number("1.0").whole::<u64>(), None);
        assert_eq!(thousandths(&u64::MAX.to_string()), None);
    }
}
