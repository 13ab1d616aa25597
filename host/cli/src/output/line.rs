//! Makes text safe to print.
//!
//! Text from a service, a sandbox or a plugin could control the terminal or imitate a line of this program. Only
//! [`Line`]s are printed, which never contain such text, wherever their parts come from.

use std::fmt;

/// A line that is safe to print: control characters, line breaks and changes of the writing direction are escaped. It can
/// be created from any text, but only the printing functions of this module's parent can read it, so unescaped text
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

/// Removes the characters that control a terminal from text of foreign origin. Keeps line breaks and tabs.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !steers(*c)).collect()
}

/// Escapes the characters of a foreign name that could control a terminal or start a new line, so that it is safe within
/// a line and different names look different. Escaping text twice has no further effect.
pub fn inline(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Returns whether a character is a control character or changes the writing direction.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON whose strings cannot control a terminal either: JSON itself escapes only the ASCII control characters.
pub struct JsonLine<'a>(pub(super) &'a serde_json::Value);

impl fmt::Display for JsonLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let mut rest = text.as_str();
        // Such characters occur only in strings, and each has at most four hexadecimal digits.
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
