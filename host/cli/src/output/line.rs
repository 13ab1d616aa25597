//! Text that is fit to be printed.
//!
//! What a service, a sandbox or a plugin says could steer the terminal or pass for a line of this program. Lines are printed as
//! [`Line`]s only, which hold nothing of that kind, wherever their parts come from.

use std::fmt;

/// A line fit to be printed: control characters, line ends and changes of the writing direction are shown as escapes. It
/// can be made of any text and read by nothing but the functions of this module that print, so text that was not treated so
/// cannot be printed.
pub struct Line(pub(super) String);

impl From<fmt::Arguments<'_>> for Line {
    fn from(text: fmt::Arguments<'_>) -> Line {
        Line(inline(&text.to_string()))
    }
}

impl From<&str> for Line {
    fn from(text: &str) -> Line {
        Line(inline(text))
    }
}

impl From<&String> for Line {
    fn from(text: &String) -> Line {
        Line(inline(text))
    }
}

impl From<String> for Line {
    fn from(text: String) -> Line {
        Line(inline(&text))
    }
}

/// Text of foreign origin, of any number of lines, without what would steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !steers(*c)).collect()
}

/// A foreign name within a line of ours: what would steer a terminal, or begin a line that is none of ours, is shown as
/// an escape, so that no two names look the same. What was treated so stays the same.
pub fn inline(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Control characters, and those that change the direction of writing.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON in which no string steers a terminal either: JSON itself escapes the control characters of ASCII only.
pub struct JsonLine<'a>(pub(super) &'a serde_json::Value);

impl fmt::Display for JsonLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let mut rest = text.as_str();
        // These occur in strings only, and all have four digits.
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| steers(*c)) {
            f.write_str(&rest[..at])?;
            write!(f, "\\u{:04x}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::{JsonLine, Line};

    #[test]
    fn no_line_steers_a_terminal_or_pretends_to_be_another() {
        let foreign = "a\u{1b}]0;x\u{7}\r\nsb-1  running\u{9b}31m\u{202e}\u{2066}\u{85}\u{2028}é";
        for line in [Line::from(foreign), Line::from(foreign.to_owned()), Line::from(format_args!("id {foreign}"))] {
            let shown = line.0;
            assert!(shown.ends_with('é') && shown.contains("\\u{1b}]0;x\\u{7}\\r\\nsb-1"), "{shown:?}");
            assert!(!shown.chars().any(super::steers), "{shown:?}");
            assert_eq!(Line::from(shown.as_str()).0, shown, "twice is as good as once");
        }
        let value = serde_json::json!({ foreign: [foreign] });
        let shown = JsonLine(&value).to_string();
        assert!(!shown.chars().any(super::steers), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
