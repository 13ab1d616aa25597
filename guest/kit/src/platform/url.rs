//! HTTP addresses.

use std::fmt;

/// An address that a request can be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `true` for `https`, `false` for `http`.
    pub secure: bool,
    /// Host, and the port if it is not the default port. May contain credentials.
    pub authority: String,
    /// Path and query. Begins with `/`.
    pub path: String,
}

impl Url {
    /// Parses an address. Returns `None` if its scheme is not `http` or `https`, if it has no host, or if it contains
    /// characters that an address cannot contain.
    #[must_use]
    pub fn parse(text: &str) -> Option<Url> {
        let (scheme, rest) = text.split_once("://")?;
        let secure = scheme.eq_ignore_ascii_case("https");
        if !secure && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        // The fragment after `#` is not sent to servers.
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = Url { secure, authority: authority.to_string(), path: format!("{slash}{path}") };
        let (host, port) = url.host_and_port();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=:@[]".contains(c);
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let well = !inner.is_empty()
            && authority.chars().all(plain)
            && !inner.contains(['[', ']'])
            && (inner.len() < host.len() || !inner.contains(':'))
            && port.is_none_or(|port| port.parse::<u16>().is_ok())
            && path.chars().all(|c| c.is_ascii_graphic());
        well.then_some(url)
    }

    /// Returns the address of `path` below this one, with these query parameters. `path` begins with `/` and is not
    /// escaped; names and values of parameters are. Query parameters of this address are dropped.
    ///
    /// ```
    /// use sandbox_provider_kit::platform::Url;
    ///
    /// let base = Url::parse("http://localhost:2375/v1.47/").unwrap();
    /// let url = base.below("/images/json", &[("filters", "a b&c"), ("all", "1")]);
    /// assert_eq!(url.to_string(), "http://localhost:2375/v1.47/images/json?filters=a%20b%26c&all=1");
    /// ```
    #[must_use]
    pub fn below(&self, path: &str, parameters: &[(&str, &str)]) -> Url {
        let base = self.path.split('?').next().unwrap_or_default().trim_end_matches('/');
        let mut path = format!("{base}{path}");
        for (index, (name, value)) in parameters.iter().enumerate() {
            path.push(if index == 0 { '?' } else { '&' });
            path.push_str(&escape(name));
            path.push('=');
            path.push_str(&escape(value));
        }
        Url { path, ..self.clone() }
    }

    /// Returns the host without the port. An IPv6 address keeps its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host_and_port().0
    }

    fn host_and_port(&self) -> (&str, Option<&str>) {
        let text = self.authority.rsplit('@').next().unwrap_or_default();
        let end = text.rfind(']').map_or(0, |at| at + 1);
        match text[end..].split_once(':') {
            Some((rest, port)) => (&text[..end + rest.len()], Some(port)),
            None => (text, None),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secure { "https://" } else { "http://" })?;
        f.write_str(&self.authority)?;
        f.write_str(&self.path)
    }
}

/// Escapes a text for a path segment or a query parameter: all bytes except letters, digits, `-`, `.`, `_` and `~`
/// become `%` and two hexadecimal digits (RFC 3986, section 2.3).
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            escaped.push('%');
            for digit in [byte >> 4, byte & 15] {
                escaped.push(char::from_digit(digit.into(), 16).unwrap_or('0').to_ascii_uppercase());
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, host, path) in [
            ("https://api.example.org", "api.example.org", "/"),
            ("HTTP://127.0.0.1:8080", "127.0.0.1", "/"),
            ("http://[::1]:80/a/b?c=%20&d#e", "[::1]", "/a/b?c=%20&d"),
            ("http://[::1]", "[::1]", "/"),
            ("https://me:secret@store.test:443?x=/:@", "store.test", "/?x=/:@"),
        ] {
            let url = Url::parse(text).unwrap_or_else(|| panic!("{text} is an address"));
            assert_eq!((url.host(), url.path.as_str()), (host, path), "{text}");
            assert_eq!(url.secure, text.starts_with("https"), "{text}");
            assert_eq!(Url::parse(&url.to_string()), Some(url), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "/",
            "api.example.org",
            "//api.example.org",
            "ftp://a",
            "http:/a",
            "http://",
            "http:///a",
            "http://:80",
            "http://@",
            "http://a b",
            "http://a/b c",
            "http://a/\n",
            "http://ä",
            "http://a/ä",
            "http://a:b",
            "http://a:99999",
            "http://a:1:2",
            "http://::1",
            "http://[::1",
            "http://::1]",
            "http://[::1]a:1",
            "http://[]",
            "http://a\\b",
            "http://[a]b",
        ] {
            assert_eq!(Url::parse(text), None, "{text}");
        }
    }

    #[test]
    fn parameters_are_escaped() {
        let base = Url::parse("https://a/base/?old=1").unwrap();
        assert_eq!(base.below("/x", &[]).to_string(), "https://a/base/x");
        assert_eq!(
            base.below("/x", &[("a b", "ü/=&?#%"), ("c", "")]).path,
            "/base/x?a%20b=%C3%BC%2F%3D%26%3F%23%25&c="
        );
        assert_eq!(Url::parse("http://a").unwrap().below("/x", &[]).path, "/x");
        assert_eq!(escape("a-b._~9/"), "a-b._~9%2F");
    }
}
