//! The part `[[origin]]` of the manifest: the services that a plugin reaches, what the host adds to requests for them, and
//! the answers that name further services. docs/manifest.md describes the keys for authors.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use crate::plugin::template::Template;

/// The header by which the component names credentials for one request. The host removes it.
pub(crate) const NAMED_CREDENTIAL: &str = "harness-credential";

/// Most steps from the top of a message to the text that a rule names.
const MAX_STEPS: usize = 16;

/// One or more origins that the component connects to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginWish {
    /// The description of the origin for users, and its name for grants.
    pub name: String,
    /// The URL of the origin.
    pub url: UrlWish,
    /// The host name by which the component addresses the service if its URL is a Unix socket. It ends in `.localhost`.
    /// Without it, the host name is the name of the socket's file with `.localhost` after it.
    pub authority: Option<String>,
    /// Headers with credentials that the host adds.
    #[serde(default)]
    pub headers: Vec<HeaderWish>,
    /// Query parameters with credentials that the host adds.
    #[serde(default)]
    pub query: Vec<QueryWish>,
    /// The files for TLS connections to this origin.
    pub tls: Option<TlsWish>,
    /// Responses that name further origins.
    #[serde(default)]
    pub learn: Vec<LearnWish>,
}

/// A URL that a setting can replace: `https://host`, `http://host:port`, `https://*.suffix` for all host names with one
/// more label, `unix:///path` for a Unix socket, or, with [`tcp`](UrlWish::tcp), `tcp://host:port`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UrlWish {
    /// The environment variable that contains the URL.
    pub env: Option<String>,
    /// The key of the profile that is used if the variable is not set.
    pub setting: Option<String>,
    /// The URL that is used if neither is set.
    pub default: Option<String>,
    /// If set, `tcp://host:port` is accepted. It means https if [`TlsWish::on`] turns TLS on, and http otherwise.
    pub tcp: Option<TcpWish>,
}

/// The ports of URLs of the form `tcp://host` that name none.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpWish {
    /// The port without TLS.
    pub http: u16,
    /// The port with TLS.
    pub https: u16,
}

/// A header that contains credentials. It has exactly one of `credential`, `value`, `basic` and `json64`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderWish {
    /// The name of the header.
    pub name: String,
    /// The name of the credential that is the value.
    pub credential: Option<String>,
    /// The value, such as `Bearer {token}`.
    pub value: Option<Template>,
    /// If set, the value is `Basic` with this user and password in Base64 (RFC 7617).
    pub basic: Option<BasicWish>,
    /// If set, the value is this JSON object in Base64 for URLs, with padding (RFC 4648, section 5).
    pub json64: Option<BTreeMap<Template, JsonWish>>,
    /// If set, the header is added only to requests in which the component names it by the header
    /// `harness-credential`.
    pub on_request: Option<String>,
    /// If set, the credential is an RSA key in PEM form, and the header contains a statement signed with it.
    pub assertion: Option<AssertionWish>,
}

/// The value of a member of a JSON object: a text, or an object of texts.
#[derive(Clone, Debug)]
pub enum JsonWish {
    /// A text.
    Text(Template),
    /// The members of an object.
    Object(BTreeMap<Template, Template>),
}

impl<'de> Deserialize<'de> for JsonWish {
    // Not derived as an untagged enum, whose errors do not say what is wrong.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<JsonWish, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = JsonWish;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a table of texts")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<JsonWish, E> {
                Template::parse(text).map(JsonWish::Text).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<JsonWish, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(JsonWish::Object)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonWish {
    fn templates(&self) -> Vec<&Template> {
        match self {
            JsonWish::Text(text) => vec![text],
            JsonWish::Object(members) => members.iter().flat_map(|(key, value)| [key, value]).collect(),
        }
    }
}

/// A user and a password.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicWish {
    /// The user, such as `{user}`. It contains no colon.
    pub user: Template,
    /// The password, such as `{password}`.
    pub password: Template,
}

/// A query parameter that contains credentials. It has exactly one of `credential` and `value`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryWish {
    /// The name of the parameter.
    pub name: String,
    /// The name of the credential that is the value.
    pub credential: Option<String>,
    /// The value, such as `key-{token}`.
    pub value: Option<Template>,
}

/// A statement that identifies the client: a JSON web token, signed with RS256, created for each request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssertionWish {
    /// The name of the credential that is the issuer and the subject.
    pub subject: String,
    /// The audience: the service that the statement is for.
    pub audience: String,
    /// The validity of the statement, in seconds.
    pub seconds: u64,
}

/// The files for the TLS connections to an origin, in PEM form. The host reads them. The component does not see them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsWish {
    /// The variable that turns TLS on for URLs of the form `tcp://host:port`. Without this key, one of the files turns
    /// it on.
    pub on: Option<SwitchWish>,
    /// The file with the client certificate, and with the certificates that lead from it to its authority.
    pub certificate: Option<FileWish>,
    /// The file with the private key of the client certificate.
    pub key: Option<FileWish>,
    /// The file with the certificate authorities that the server's certificate may have. Without it, these are the usual
    /// ones.
    pub authorities: Option<FileWish>,
}

/// An environment variable that turns something on if it has any value but the empty one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchWish {
    /// The environment variable.
    pub env: String,
}

/// A file that an environment variable names.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileWish {
    /// The environment variable that contains the path of the file, or of its directory if `file` is set.
    pub env: String,
    /// The name of the file in the directory.
    pub file: Option<String>,
    /// The path that is used if the variable is not set and the file exists. `~/` is the home directory.
    pub default: Option<String>,
}

/// A response that names an origin. It has exactly one of `field` and `pointer`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnWish {
    /// The path of the request. A segment `*` stands for any one segment.
    pub path: String,
    /// For gRPC: the protobuf field numbers from the response message down to the string.
    #[serde(default)]
    pub field: Vec<u32>,
    /// For JSON: the pointer to the string (RFC 6901), such as `/data/0/url`. A step `*` stands for all elements of an
    /// array and all members of an object.
    pub pointer: Option<String>,
    /// The description of the origin for users.
    pub name: String,
}

impl OriginWish {
    /// Checks what the types cannot express.
    pub(super) fn check(&self, names: &Names<'_>) -> Result<(), String> {
        for header in &self.headers {
            header.check(names)?;
        }
        for parameter in &self.query {
            let name = &parameter.name;
            if name.is_empty() {
                return Err("a query parameter has no name".into());
            }
            if parameter.credential.is_some() == parameter.value.is_some() {
                return Err(format!("the query parameter {name} needs one of `credential` and `value`"));
            }
            names.check(&format!("query parameter {name}"), parameter.credential.as_deref(), parameter.value.iter())?;
        }
        if let Some(authority) = &self.authority
            && !is_local_name(authority)
        {
            return Err(format!(
                "the `authority` {authority:?} is not valid: write a host name in lower case that ends in .localhost"
            ));
        }
        if let Some(tls) = &self.tls
            && tls.certificate.is_some() != tls.key.is_some()
        {
            return Err(format!("the origin {:?} needs `certificate` and `key` together", self.name));
        }
        if self.url.tcp.is_some_and(|ports| ports.http == 0 || ports.https == 0) {
            return Err(format!("the origin {:?} has a port 0 in `tcp`", self.name));
        }
        if self.url.tcp.is_none() && self.tls.as_ref().is_some_and(|tls| tls.on.is_some()) {
            return Err(format!("the origin {:?} has `tls.on`, so it needs `url.tcp`", self.name));
        }
        for wish in self.files() {
            if wish.file.as_deref().is_some_and(|file| file.is_empty() || file.contains('/') || file == "..") {
                let name = wish.file.as_deref().unwrap_or_default();
                return Err(format!("{name:?} is not the name of a file in the directory {}", wish.env));
            }
        }
        self.learn.iter().try_for_each(LearnWish::check)
    }

    /// Returns the files that the host reads for this origin.
    pub fn files(&self) -> impl Iterator<Item = &FileWish> {
        self.tls.iter().flat_map(|tls| [&tls.certificate, &tls.key, &tls.authorities]).flatten()
    }

    /// Returns the variable that turns TLS on.
    pub fn switch(&self) -> Option<&str> {
        self.tls.as_ref()?.on.as_ref().map(|on| on.env.as_str())
    }

    /// Returns what the host adds to requests, as [`Grant::credentials`](crate::Grant::credentials) names it.
    pub fn additions(&self) -> Vec<String> {
        let headers = self.headers.iter().map(|header| header.name.clone());
        let query = self.query.iter().map(|parameter| format!("?{}", parameter.name));
        let certificate = self.tls.iter().filter(|tls| tls.certificate.is_some()).map(|_| CERTIFICATE.to_owned());
        headers.chain(query).chain(certificate).collect()
    }
}

/// The name of a client certificate among the credentials of a grant.
pub(crate) const CERTIFICATE: &str = "client certificate";

/// The names that the entries of a manifest may refer to.
pub(super) struct Names<'a> {
    /// The declared credentials.
    pub(super) credentials: Vec<&'a str>,
    /// The declared variables of the component.
    pub(super) variables: Vec<&'a str>,
}

impl Names<'_> {
    /// Checks that a header or a parameter refers to declared names only, and to a credential.
    fn check<'t>(
        &self,
        what: &str,
        credential: Option<&str>,
        templates: impl Iterator<Item = &'t Template>,
    ) -> Result<(), String> {
        let mut secret = false;
        let named = templates.flat_map(Template::names).map(|name| (name, self.variables.contains(&name)));
        for (name, is_variable) in credential.into_iter().map(|name| (name, false)).chain(named) {
            let is_credential = self.credentials.contains(&name);
            if !is_credential && !is_variable {
                return Err(format!("the {what} refers to {name:?}, which is not a declared credential or variable"));
            }
            secret |= is_credential;
        }
        if !secret {
            return Err(format!("the {what} refers to no credential"));
        }
        Ok(())
    }
}

/// Returns whether a text is a host name below `.localhost`, in lower case.
pub(crate) fn is_local_name(name: &str) -> bool {
    let label = |label: &str| {
        let plain = label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_');
        plain && (1..=63).contains(&label.len())
    };
    name.strip_suffix(".localhost").is_some_and(|rest| name.len() <= 253 && rest.split('.').all(label))
}

impl HeaderWish {
    fn check(&self, names: &Names<'_>) -> Result<(), String> {
        let name = &self.name;
        if http::HeaderName::try_from(name.as_str()).is_err() {
            return Err(format!("{name:?} is not a valid name of a header"));
        }
        if name.eq_ignore_ascii_case(NAMED_CREDENTIAL) {
            return Err(format!("the header {name} is reserved: by it the plugin names credentials"));
        }
        let ways = [self.credential.is_some(), self.value.is_some(), self.basic.is_some(), self.json64.is_some()];
        if ways.iter().filter(|set| **set).count() != 1 {
            return Err(format!("the header {name} needs one of `credential`, `value`, `basic` and `json64`"));
        }
        if self.assertion.is_some() && self.credential.is_none() {
            return Err(format!("the header {name} has an assertion, so it needs `credential`"));
        }
        let label = |name: &str| name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
        if let Some(label_text) = self.on_request.as_deref().filter(|text| text.is_empty() || !label(text)) {
            return Err(format!(
                "the header {name} has the `on_request` {label_text:?}: use letters, digits, `-`, `_` and `.`"
            ));
        }
        let what = format!("header {name}");
        names.check(&what, self.credential.as_deref(), self.templates().into_iter())?;
        match &self.assertion {
            Some(assertion) => names.check(&what, Some(&assertion.subject), std::iter::empty()),
            None => Ok(()),
        }
    }

    /// Returns all format strings of the header.
    pub(crate) fn templates(&self) -> Vec<&Template> {
        let basic = self.basic.iter().flat_map(|basic| [&basic.user, &basic.password]);
        let members = self.json64.iter().flatten();
        let json = members.flat_map(|(key, value)| std::iter::once(key).chain(value.templates()));
        self.value.iter().chain(basic).chain(json).collect()
    }
}

impl LearnWish {
    fn check(&self) -> Result<(), String> {
        let unusable = |why: &str| Err(format!("the entry of `learn` for the path {:?} {why}", self.path));
        let pointer = self.pointer.as_deref();
        if !self.path.starts_with('/') {
            return unusable("needs a path that begins with `/`");
        }
        if self.field.is_empty() == pointer.is_none() {
            return unusable("needs one of `field` and `pointer`");
        }
        let steps = pointer.map_or(self.field.len(), |pointer| pointer.matches('/').count());
        if pointer.is_some_and(|pointer| !pointer.starts_with('/')) {
            return unusable("needs a `pointer` that begins with `/`");
        }
        if steps > MAX_STEPS {
            return unusable(&format!("has more than {MAX_STEPS} steps"));
        }
        Ok(())
    }

    /// Returns whether the rule is for responses to requests with this path.
    pub(crate) fn covers(&self, path: &str) -> bool {
        let (mut pattern, mut path) = (self.path.split('/'), path.split('/'));
        loop {
            match (pattern.next(), path.next()) {
                (None, None) => return true,
                (Some("*"), Some(segment)) if !segment.is_empty() => {}
                (Some(wanted), Some(segment)) if wanted == segment => {}
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_a_path_stands_for_one_segment() {
        let covers = |pattern: &str, path| LearnWish { path: pattern.into(), ..LearnWish::default() }.covers(path);
        assert!(covers("/v1/*/url", "/v1/sb-1/url") && covers("/a.b.C/D", "/a.b.C/D") && covers("/v1/*", "/v1/x"));
        for path in ["/v1/url", "/v1//url", "/v1/a/b/url", "/v1/sb-1/url/", "/v1/sb-1", "/v1/sb-1/other"] {
            assert!(!covers("/v1/*/url", path), "{path}");
        }
    }

    #[test]
    fn names_of_sockets_are_host_names_of_this_machine() {
        assert!(is_local_name("docker.sock.localhost") && is_local_name("a-1_b.localhost"));
        for name in ["localhost", ".localhost", "a..localhost", "A.localhost", "a b.localhost", "a.localhost:80", "a.b"]
        {
            assert!(!is_local_name(name), "{name}");
        }
    }
}
