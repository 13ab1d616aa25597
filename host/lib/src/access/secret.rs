//! A credential type that is not printed by accident.

use std::fmt;

use http::HeaderValue;

/// Shortest credential, in bytes, that is searched for within other text. A few letters occur everywhere, and replacing
/// them would do more harm than good.
pub(crate) const SHORTEST: usize = 8;

/// A long-lived credential, without surrounding white space. Files and variables often end with a line break that is
/// not part of the credential, and the text that is searched for must be equal to the text that is sent. `Debug` hides
/// the value, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value. Removes surrounding white space.
    pub fn new(value: impl Into<String>) -> Self {
        let value = value.into();
        let trimmed = value.trim();
        Secret(if trimmed.len() == value.len() { value } else { trimmed.to_owned() })
    }

    /// Returns the value. This is the only access to it, so that all uses can be found.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the credential as a header value that is marked sensitive: HPACK does not index it, and `Debug` hides
    /// it. Returns `None` if a header cannot contain the value.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.0).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Returns whether the text is this credential or contains it. A short credential is not searched for within the
    /// text.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        !self.0.is_empty() && (text.trim() == self.0 || self.0.len() >= SHORTEST && text.contains(&self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Secret::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::new("as-1234");
        assert!(!format!("{secret:?} {:?}", secret.header()).contains("1234"));
    }

    #[test]
    fn white_space_around_it_is_no_part_of_it() {
        for secret in [Secret::new(" as-1234\n"), Secret::from("as-1234\r\n".to_owned())] {
            assert_eq!((secret.expose(), secret.header().unwrap().as_bytes()), ("as-1234", &b"as-1234"[..]));
        }
    }

    #[test]
    fn it_is_found_in_other_text() {
        let secret = Secret::new("as-12345678");
        assert!(
            secret.is_in("as-12345678\n") && secret.is_in("https://h/?as-12345678&x") && !secret.is_in("as-1234567")
        );
        // A short credential matches only the whole text.
        assert!(Secret::new("x1").is_in("x1") && !Secret::new("x1").is_in("box1") && !Secret::new(" ").is_in(""));
    }
}
