//! Format strings of the manifest, such as `Bearer {token}`: text with the names of credentials, and of variables that the
//! component sees, in braces.

use std::fmt;

use serde::Deserialize;

/// A text with the names of credentials and variables in braces. `{{` and `}}` stand for single braces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Text(String),
    /// The name of a credential or of a variable.
    Name(String),
}

impl Template {
    /// Parses a format string.
    ///
    /// # Errors
    ///
    /// A text for users if a brace has no counterpart, or a name is empty.
    pub fn parse(text: &str) -> Result<Template, String> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let named =
                after.split_once('}').filter(|(name, _)| brace == "{" && !name.is_empty() && !name.contains('{'));
            let Some((name, after)) = named else {
                return Err(format!("{text:?} has a single {brace:?}; write a name in braces, or the brace twice"));
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Name(name.to_owned()));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template { text: text.to_owned(), parts })
    }

    /// Returns the format string for a credential alone.
    pub(crate) fn of_credential(name: &str) -> Template {
        let text = format!("{{{name}}}");
        Template { text, parts: vec![Part::Name(name.to_owned())] }
    }

    /// Returns the names of the credentials and variables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Returns the text with the values of the names. Returns `None` if one of them has no value.
    pub(crate) fn fill<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Name(name) => value(name),
            })
            .collect()
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Template, String> {
        Template::parse(&text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::Template;

    fn filled(text: &str) -> Option<String> {
        let value = |name: &str| match name {
            "token" => Some("t-1"),
            "user" => Some("u"),
            _ => None,
        };
        Template::parse(text).unwrap().fill(value)
    }

    #[test]
    fn names_in_braces_are_replaced() {
        for (text, wanted) in [
            ("{token}", "t-1"),
            ("Bearer {token}", "Bearer t-1"),
            ("{user}:{token}!", "u:t-1!"),
            ("{{{token}}} {{x}}", "{t-1} {x}"),
            ("plain", "plain"),
        ] {
            assert_eq!(filled(text).as_deref(), Some(wanted), "{text}");
        }
        assert_eq!(filled("{token} {other}"), None);
        assert_eq!(Template::parse("{a} {b}").unwrap().names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(Template::of_credential("token"), Template::parse("{token}").unwrap());
    }

    #[test]
    fn single_braces_are_refused() {
        for text in ["{", "}", "a {token", "token}", "{}", "{a{b}", "{{}"] {
            assert!(Template::parse(text).unwrap_err().contains("single"), "{text}");
        }
    }
}
