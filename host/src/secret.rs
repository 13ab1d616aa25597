//! A credential that cannot be printed by accident.

use std::fmt;

use http::HeaderValue;

/// A long-lived credential. `Debug` shows nothing of it and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value itself. The only way to it, so that all uses can be found.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// As a header value that is marked sensitive: not indexed by HPACK, not printed by `Debug`.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(self.0.trim()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Secret(value)
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
}
