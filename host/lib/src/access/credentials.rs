//! Selects credentials and converts them to what the host adds to requests: headers and query parameters.
//!
//! A provider may accept one of several sets of credentials, such as a pair of tokens, or an OAuth client with a secret
//! or with a key. Exactly one set must be complete. Credentials of another set in addition are an error, because it is
//! unclear which set the user meant. A key is never sent: the host sends a statement that it signs with the key, anew
//! for each request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ring::rand::SystemRandom;
use ring::signature::{self, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use crate::access::secret::Secret;
use crate::error::{Error, Kind, Result};
use crate::plugin::manifest::{CredentialWish, Manifest};
use crate::plugin::origin::{AssertionWish, BasicWish, HeaderWish, JsonWish, OriginWish};
use crate::plugin::template::Template;

/// Credentials by their names in the manifest.
pub(crate) type Credentials = BTreeMap<String, Secret>;

/// What the format strings of a manifest refer to.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) secrets: &'a Credentials,
    /// The variables that the manifest declares for the component, whether or not they are shown to it.
    pub(crate) variables: &'a BTreeMap<String, String>,
}

impl<'a> Values<'a> {
    fn get(self, name: &str) -> Option<&'a str> {
        let secret = self.secrets.get(name).map(Secret::expose);
        let variable = || self.variables.get(name).map(String::as_str).filter(|text| !text.is_empty());
        secret.or_else(variable)
    }

    /// Returns the text of a format string. Returns `None` if one of its names has no value.
    fn fill(self, template: &Template) -> Option<String> {
        template.fill(|name| self.get(name))
    }

    /// Returns a JSON object with the texts of its format strings. Returns `None` if a name has no value.
    fn object(self, members: &BTreeMap<Template, JsonWish>) -> Option<serde_json::Value> {
        let member = |(key, value): (&Template, &JsonWish)| {
            let value = match value {
                JsonWish::Text(text) => self.fill(text)?.into(),
                JsonWish::Object(members) => {
                    let text = |(key, text)| Some((self.fill(key)?, self.fill(text)?.into()));
                    members.iter().map(text).collect::<Option<serde_json::Map<_, _>>>()?.into()
                }
            };
            Some((self.fill(key)?, value))
        };
        Some(members.iter().map(member).collect::<Option<serde_json::Map<_, _>>>()?.into())
    }
}

/// Checks that `found` contains one complete set of credentials, and besides only optional ones, and returns it. With `anonymous`, also
/// accepts credentials without a complete set.
///
/// # Errors
///
/// [`Kind::Unauthenticated`] if no set is complete, unless `anonymous` is set, and if credentials of several sets were
/// found.
pub(crate) fn choose(manifest: &Manifest, found: Credentials, anonymous: bool, what: &str) -> Result<Credentials> {
    let sets: BTreeSet<&str> = manifest.credential.iter().flat_map(CredentialWish::sets).collect();
    let Some(chosen) =
        sets.iter().copied().find(|set| manifest.members(set).all(|wish| found.contains_key(&wish.name)))
    else {
        if anonymous || sets.is_empty() {
            return Ok(found);
        }
        // The error names the set with the most credentials found, which the user probably meant, or else the first of
        // the manifest.
        let present = |set: &str| manifest.members(set).filter(|wish| found.contains_key(&wish.name)).count();
        let first = manifest.first_set_name();
        let meant = sets.iter().max_by_key(|set| (present(set), **set == first)).copied().unwrap_or(first);
        let missing: Vec<_> = manifest
            .members(meant)
            .filter(|wish| !found.contains_key(&wish.name))
            .map(|wish| wish.env.as_str())
            .collect();
        let why = format!("credentials are missing: {} not set", missing.join(" and "));
        return Err(Error::new(Kind::Unauthenticated, what, why).with_hint(manifest.credential_hint(meant)));
    };
    let strangers: Vec<_> = manifest
        .credential
        .iter()
        .filter(|wish| found.contains_key(&wish.name) && !wish.optional && !wish.sets().any(|name| name == chosen))
        .map(|wish| wish.env.as_str())
        .collect();
    if strangers.is_empty() {
        return Ok(found);
    }
    let ours: Vec<_> = manifest.members(chosen).map(|wish| wish.env.as_str()).collect();
    Err(Error::new(
        Kind::Unauthenticated,
        what,
        format!("{} cannot be combined with {}", strangers.join(" and "), ours.join(" and ")),
    )
    .with_hint("use only one set of credentials, from environment variables and profile together"))
}

/// What the host adds to the requests for one origin.
#[derive(Default)]
pub(crate) struct Additions {
    headers: Vec<(HeaderName, HeaderSource)>,
    /// Headers for the requests in which the component names them.
    on_request: Vec<OnRequest>,
    /// The names of query parameters, and their values as they are sent.
    query: Vec<(String, String)>,
    /// Texts that contain credentials in another form, such as Base64. Like credentials, they must not reach the
    /// component.
    encoded: Vec<Secret>,
}

/// A header for the requests in which the component names it.
struct OnRequest {
    /// The name that the component uses.
    key: String,
    header: HeaderName,
    /// The source of the value, or why there is none: a text for users.
    source: std::result::Result<HeaderSource, String>,
}

/// The source of the value of a header.
enum HeaderSource {
    /// A value that contains credentials.
    Value(HeaderValue),
    /// A statement signed with the credential.
    Assertion(Arc<Assertion>),
}

impl Additions {
    /// Creates the additions that the manifest asks for. Leaves out those whose credentials are not set.
    ///
    /// # Errors
    ///
    /// [`Kind::Unauthenticated`] for a value that a header cannot contain, and for an unusable key.
    pub(crate) fn new(wish: &OriginWish, manifest: &Manifest, values: Values<'_>, what: &str) -> Result<Additions> {
        let mut additions = Additions::default();
        for header in &wish.headers {
            let Ok(name) = HeaderName::try_from(header.name.as_str()) else { continue };
            let source = additions.header(header, manifest, values, what)?;
            match (&header.on_request, source) {
                (Some(key), source) => additions.on_request.push(OnRequest {
                    key: key.clone(),
                    header: name,
                    source: source.ok_or_else(|| missing(header, manifest, values)),
                }),
                (None, Some(source)) => additions.headers.push((name, source)),
                (None, None) => {}
            }
        }
        for parameter in &wish.query {
            let template = template(parameter.credential.as_deref(), parameter.value.as_ref());
            if let Some(value) = template.and_then(|template| values.fill(&template)) {
                let encoded: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
                additions.encoded.push(Secret::new(encoded.clone()));
                additions.query.push((parameter.name.clone(), encoded));
            }
        }
        Ok(additions)
    }

    /// Creates the source of a header. Returns `None` if a credential is not set.
    fn header(
        &mut self,
        wish: &HeaderWish,
        manifest: &Manifest,
        values: Values<'_>,
        what: &str,
    ) -> Result<Option<HeaderSource>> {
        let unusable = |credential: &str, why: &str| {
            let variable = manifest.credential.iter().find(|wish| wish.name == credential);
            let variable = variable.map_or(credential, |wish| wish.env.as_str());
            Error::new(Kind::Unauthenticated, what, format!("the value of {variable} {why}"))
        };
        if let (Some(assertion), Some(name)) = (&wish.assertion, wish.credential.as_deref()) {
            let (Some(key), Some(subject)) = (values.secrets.get(name), values.secrets.get(&assertion.subject)) else {
                return Ok(None);
            };
            let assertion = Assertion::new(key, subject, assertion).map_err(|why| unusable(name, &why))?;
            return Ok(Some(HeaderSource::Assertion(Arc::new(assertion))));
        }
        let value = match (&wish.basic, &wish.json64) {
            (Some(BasicWish { user, password }), _) => {
                let (Some(user_text), Some(password)) = (values.fill(user), values.fill(password)) else {
                    return Ok(None);
                };
                if user_text.contains(':') {
                    let name = user.names().next().unwrap_or("user");
                    return Err(unusable(name, "has a colon, which separates user and password"));
                }
                let encoded = STANDARD.encode(format!("{user_text}:{password}"));
                // An answer may leave out the padding.
                self.encoded.push(Secret::new(encoded.trim_end_matches('=')));
                format!("Basic {encoded}")
            }
            (None, Some(members)) => match values.object(members) {
                Some(object) => self.json64(&object, wish, values),
                None => return Ok(None),
            },
            (None, None) => {
                let template = template(wish.credential.as_deref(), wish.value.as_ref());
                let Some(value) = template.and_then(|template| values.fill(&template)) else { return Ok(None) };
                value
            }
        };
        let name = wish.credential.as_deref().or_else(|| wish.value.as_ref()?.names().next()).unwrap_or_default();
        let value = Secret::new(value).header();
        let value = value.ok_or_else(|| unusable(name, "has characters that no header can carry"))?;
        Ok(Some(HeaderSource::Value(value)))
    }

    /// Returns the Base64 form of a JSON object, and records the forms in which a service may send its credentials back.
    fn json64(&mut self, object: &serde_json::Value, wish: &HeaderWish, values: Values<'_>) -> String {
        let json = object.to_string();
        let encoded = URL_SAFE.encode(&json);
        for form in [&encoded, &STANDARD.encode(&json)] {
            self.encoded.push(Secret::new(form.trim_end_matches('=')));
        }
        // A service can also send the JSON text back, in which quotation marks are escaped.
        for name in wish.templates().into_iter().flat_map(Template::names) {
            let Some(secret) = values.secrets.get(name) else { continue };
            let escaped = serde_json::Value::from(secret.expose()).to_string();
            let escaped = escaped.trim_start_matches('"').strip_suffix('"').unwrap_or_default();
            if escaped != secret.expose() {
                self.encoded.push(Secret::new(escaped));
            }
        }
        encoded
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.query.is_empty() && self.on_request.iter().all(|one| one.source.is_err())
    }

    /// Returns the names of the headers, and those of the query parameters with `?` before them.
    pub(crate) fn names(&self) -> Vec<String> {
        let on_request = self.on_request.iter().filter(|one| one.source.is_ok()).map(|one| &one.header);
        let headers = self.headers.iter().map(|(name, _)| name).chain(on_request).map(HeaderName::to_string);
        headers.chain(self.query.iter().map(|(name, _)| format!("?{name}"))).collect()
    }

    /// Returns the names of the headers.
    pub(crate) fn header_names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(|(name, _)| name).chain(self.on_request.iter().map(|one| &one.header))
    }

    /// Returns the texts that contain credentials in another form.
    pub(crate) fn encoded(&self) -> &[Secret] {
        &self.encoded
    }

    /// Removes the headers and parameters of these names that the component has set. With `add`, adds those of the
    /// host. `named` are the credentials that the component has named for this request.
    ///
    /// # Errors
    ///
    /// A text for users if a named credential is not declared or not set.
    pub(crate) fn apply(
        &self,
        headers: &mut HeaderMap,
        uri: &mut Uri,
        add: bool,
        named: &[String],
    ) -> std::result::Result<(), String> {
        for name in self.header_names() {
            headers.remove(name);
        }
        for (name, source) in self.headers.iter().filter(|_| add) {
            if let Some(value) = source.value() {
                headers.insert(name, value);
            }
        }
        for key in named.iter().filter(|_| add) {
            let mut unknown = true;
            for one in self.on_request.iter().filter(|one| one.key == *key) {
                unknown = false;
                let source = one.source.as_ref().map_err(|why| asked_for(key, why))?;
                if let Some(value) = source.value() {
                    headers.insert(one.header.clone(), value);
                }
            }
            if unknown {
                return Err(asked_for(key, "its manifest declares no header of that name for this origin"));
            }
        }
        if let Some(changed) = self.with_query(uri, add) {
            *uri = changed;
        }
        Ok(())
    }

    /// Returns the URI with the query parameters. Returns `None` if there are none to add or to remove.
    fn with_query(&self, uri: &Uri, add: bool) -> Option<Uri> {
        if self.query.is_empty() {
            return None;
        }
        let ours = |pair: &&str| {
            let name = url::form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name);
            self.query.iter().any(|(ours, _)| name.as_deref() == Some(ours.as_str()))
        };
        let kept = uri.query().into_iter().flat_map(|query| query.split('&')).filter(|pair| !ours(pair));
        let added = self.query.iter().filter(|_| add).map(|(name, value)| {
            let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
            format!("{name}={value}")
        });
        let query: Vec<_> = kept.map(str::to_owned).chain(added).collect();
        let query = query.join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(format!("{}{mark}{query}", uri.path()).parse().ok()?);
        Uri::from_parts(parts).ok()
    }
}

/// Returns the format string of a header or parameter.
fn template(credential: Option<&str>, value: Option<&Template>) -> Option<Template> {
    credential.map(Template::of_credential).or_else(|| value.cloned())
}

/// Returns the text for users about a credential that the component has named and that cannot be added.
pub(crate) fn asked_for(key: &str, why: &str) -> String {
    format!("the plugin asked for the credential {key:?}: {why}")
}

/// Returns a text for users that names the variables without which a header cannot be added.
fn missing(wish: &HeaderWish, manifest: &Manifest, values: Values<'_>) -> String {
    let subject = wish.assertion.iter().map(|assertion| assertion.subject.as_str());
    let names = wish.credential.as_deref().into_iter().chain(subject);
    let names = names.chain(wish.templates().into_iter().flat_map(Template::names));
    let unset: BTreeSet<&str> = names
        .filter(|name| values.get(name).is_none())
        .map(|name| manifest.credential.iter().find(|wish| wish.name == name).map_or(name, |wish| wish.env.as_str()))
        .collect();
    let unset: Vec<_> = unset.into_iter().collect();
    format!("{} not set", unset.join(" and "))
}

impl HeaderSource {
    /// Returns the value for one request.
    fn value(&self) -> Option<HeaderValue> {
        match self {
            HeaderSource::Value(value) => Some(value.clone()),
            HeaderSource::Assertion(assertion) => assertion.mint(),
        }
    }
}

/// A client assertion (RFC 7523), signed with the RSA key of the client.
struct Assertion {
    key: RsaKeyPair,
    /// The thumbprint of the key (RFC 7638), by which the service finds the public key.
    thumbprint: String,
    subject: String,
    audience: String,
    seconds: u64,
}

impl Assertion {
    fn new(key: &Secret, subject: &Secret, wish: &AssertionWish) -> Result<Assertion, String> {
        // Environment variables and profiles often contain `\n` instead of line breaks.
        let pem = key.expose().replace("\\n", "\n");
        let key = match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err("is not a private key in PEM format".into()),
        };
        let key = key.map_err(|error| format!("is not an RSA key of 2048 to 4096 bits ({error})"))?;
        let public: ring::rsa::PublicKeyComponents<Vec<u8>> = key.public().into();
        let (e, n) = (URL_SAFE_NO_PAD.encode(public.e), URL_SAFE_NO_PAD.encode(public.n));
        // The standard prescribes the order of the members, and no spaces.
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#)));
        Ok(Assertion {
            key,
            thumbprint,
            subject: subject.expose().trim().to_owned(),
            audience: wish.audience.clone(),
            seconds: wish.seconds,
        })
    }

    fn mint(&self) -> Option<HeaderValue> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let header = serde_json::json!({ "alg": "RS256", "typ": "JWT", "kid": self.thumbprint });
        let claims = serde_json::json!({
            "iss": self.subject,
            "sub": self.subject,
            "aud": self.audience,
            "iat": now,
            "exp": now + self.seconds,
            "jti": uuid::Uuid::new_v4().to_string(),
        });
        let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut mark = vec![0; self.key.public().modulus_len()];
        self.key.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut mark).ok()?;
        let mut value = HeaderValue::try_from(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mark))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = include_str!("../../../../guest/modal/manifest.toml");

    fn choice(names: &[&str]) -> Result<Credentials> {
        let manifest = Manifest::parse(MANIFEST)?;
        let found = names.iter().map(|name| ((*name).to_owned(), Secret::new("x"))).collect();
        choose(&manifest, found, false, "use the provider")
    }

    #[test]
    fn one_set_has_to_be_whole() {
        assert_eq!(choice(&["token-id", "token-secret"]).unwrap().len(), 2);
        for whole in ["oauth-client-secret", "oauth-jwt-key"] {
            assert_eq!(choice(&["oauth-refresh-token", "oauth-client-id", whole]).unwrap().len(), 3);
        }
        let none = choice(&[]).unwrap_err().to_string();
        assert!(none.contains("MODAL_TOKEN_ID and MODAL_TOKEN_SECRET not set"), "{none}");
        let half = choice(&["oauth-refresh-token", "oauth-client-id"]).unwrap_err().to_string();
        assert!(half.contains("MODAL_OAUTH_"), "{half}");
    }

    #[test]
    fn sets_are_not_combined() {
        let error = choice(&["token-id", "token-secret", "oauth-client-id"]).unwrap_err().to_string();
        assert!(error.contains("MODAL_OAUTH_CLIENT_ID cannot be combined with MODAL_TOKEN_ID"), "{error}");
        let both = ["oauth-refresh-token", "oauth-client-id", "oauth-client-secret", "oauth-jwt-key"];
        assert!(choice(&both).unwrap_err().to_string().contains("cannot be combined"));
    }

    #[test]
    fn an_assertion_is_signed_and_new_each_time() {
        let manifest = Manifest::parse(MANIFEST).unwrap();
        let pem = include_str!("../../tests/oauth-test-key.pem");
        // The key with line breaks, and on one line as in an environment variable.
        for pem in [pem.to_owned(), pem.replace('\n', "\\n")] {
            let secrets: Credentials = [("oauth-jwt-key", pem.as_str()), ("oauth-client-id", "client-7")]
                .map(|(name, value)| (name.to_owned(), Secret::new(value)))
                .into();
            let values = Values { secrets: &secrets, variables: &BTreeMap::new() };
            let additions = Additions::new(&manifest.origin[0], &manifest, values, "use the provider").unwrap();
            let assertion = additions.headers.iter().find(|(name, _)| *name == "x-modal-oauth-client-assertion");
            let source = &assertion.unwrap().1;
            let (first, second) = (source.value().unwrap(), source.value().unwrap());
            assert!(first != second && first.is_sensitive());
            let token = first.to_str().unwrap();
            let (signed, mark) = token.rsplit_once('.').unwrap();
            let HeaderSource::Assertion(assertion) = source else { panic!("no assertion") };
            let public: ring::rsa::PublicKeyComponents<Vec<u8>> = assertion.key.public().into();
            let mark = URL_SAFE_NO_PAD.decode(mark).unwrap();
            public.verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &mark).unwrap();
            let part = |part: &str| -> serde_json::Value {
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
            };
            let (header, claims) = signed.split_once('.').map(|(a, b)| (part(a), part(b))).unwrap();
            // Computed by hand from the modulus that openssl prints.
            assert_eq!(header["kid"], "cwhkL_2VrfuZc1klv2mhzgUdJlVCBwcy33ncHuvA3bQ");
            assert_eq!((&header["alg"], &claims["aud"]), (&"RS256".into(), &"modal-server".into()));
            assert_eq!((&claims["iss"], &claims["sub"]), (&"client-7".into(), &"client-7".into()));
            assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
        }
    }

    #[test]
    fn what_is_no_key_is_named_and_not_quoted() {
        let manifest = Manifest::parse(MANIFEST).unwrap();
        let secrets: Credentials = [("oauth-jwt-key", "hush"), ("oauth-client-id", "client")]
            .map(|(name, value)| (name.to_owned(), Secret::new(value)))
            .into();
        let values = Values { secrets: &secrets, variables: &BTreeMap::new() };
        let error = Additions::new(&manifest.origin[0], &manifest, values, "use the provider").err().unwrap();
        let error = error.to_string();
        assert!(error.contains("MODAL_OAUTH_JWT_KEY is not a private key") && !error.contains("hush"), "{error}");
    }

    const FORMS: &str = "
        manifest = 1
        name = 'x'
        interface = 'y'
        [[credential]]
        name = 'token'
        env = 'X_TOKEN'
        [[credential]]
        name = 'user'
        env = 'X_USER'
        [[credential]]
        name = 'password'
        env = 'X_PASSWORD'
        optional = true
        [[env]]
        name = 'X_SERVER'
        [[origin]]
        name = 'o'
        url = { default = 'https://host' }
        headers = [
          { name = 'authorization', value = 'Bearer {token}' },
          { name = 'x-both', value = '{user}/{token}' },
          { name = 'x-basic', basic = { user = '{user}', password = '{password}' } },
          { name = 'x-json', json64 = { user = 'me', password = '{password}', at = '{X_SERVER}' }, on_request = 'store' },
          { name = 'x-nested', json64 = { '{X_SERVER}' = { password = '{password}' } }, on_request = 'store' },
        ]
        query = [{ name = 'api key', credential = 'token' }]";

    fn additions(secrets: &[(&str, &str)]) -> Result<Additions> {
        let manifest = Manifest::parse(FORMS)?;
        let secrets = secrets.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
        let variables = BTreeMap::from([("X_SERVER".to_owned(), "host".to_owned())]);
        Additions::new(
            &manifest.origin[0],
            &manifest,
            Values { secrets: &secrets, variables: &variables },
            "use the provider",
        )
    }

    #[test]
    fn credentials_take_the_forms_of_the_manifest() {
        let added = additions(&[("token", "t/1 &2"), ("user", "me"), ("password", "p:w?")]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-basic", HeaderValue::from_static("forged"));
        // Parameters of the component with the same name are removed, in whatever way they are written.
        let mut uri: Uri = "https://host/a?b=c&api+key=forged&api%20key=forged&d".parse().unwrap();
        added.apply(&mut headers, &mut uri, true, &[]).unwrap();
        assert_eq!(headers["authorization"], "Bearer t/1 &2");
        assert_eq!(headers["x-both"], "me/t/1 &2");
        // printf 'me:p:w?' | base64
        assert_eq!(headers["x-basic"], "Basic bWU6cDp3Pw==");
        assert!(headers.values().all(HeaderValue::is_sensitive));
        assert_eq!(uri, "https://host/a?b=c&d&api+key=t%2F1+%262");
        assert_eq!(added.names(), ["authorization", "x-both", "x-basic", "x-json", "x-nested", "?api key"]);
        let encoded: Vec<_> = added.encoded().iter().map(Secret::expose).collect();
        assert_eq!((encoded.first(), encoded.last()), (Some(&"bWU6cDp3Pw"), Some(&"t%2F1+%262")));
        added.apply(&mut headers, &mut uri, false, &[]).unwrap();
        assert!(headers.is_empty() && uri == "https://host/a?b=c&d", "{headers:?} {uri}");
    }

    #[test]
    fn what_needs_a_credential_that_is_not_set_is_left_out() {
        let added = additions(&[("token", "t"), ("user", "me")]).unwrap();
        assert_eq!(added.names(), ["authorization", "x-both", "?api key"]);
        assert!(additions(&[("user", "me")]).unwrap().is_empty());
    }

    #[test]
    fn what_is_added_on_request_is_added_to_no_other_request() {
        let applied = |added: &Additions, names: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert("x-json", HeaderValue::from_static("forged"));
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let result = added.apply(&mut headers, &mut "https://host/a".parse().unwrap(), true, &names);
            result.map(|()| headers)
        };
        let added = additions(&[("password", "p>?\"w")]).unwrap();
        assert!(applied(&added, &[]).unwrap().is_empty());
        let headers = applied(&added, &["store"]).unwrap();
        // printf '{"at":"host","password":"p>?\\"w","user":"me"}' | base64 -w0 | tr +/ -_
        assert_eq!(headers["x-json"], "eyJhdCI6Imhvc3QiLCJwYXNzd29yZCI6InA-P1widyIsInVzZXIiOiJtZSJ9");
        // printf '{"host":{"password":"p>?\\"w"}}' | base64 -w0 | tr +/ -_
        assert_eq!(headers["x-nested"], "eyJob3N0Ijp7InBhc3N3b3JkIjoicD4_XCJ3In19");
        assert!(headers.values().all(HeaderValue::is_sensitive));
        // The forms in which the credential could come back.
        let encoded: Vec<_> = added.encoded().iter().map(Secret::expose).collect();
        for form in ["eyJob3N0Ijp7InBhc3N3b3JkIjoicD4_XCJ3In19", "eyJob3N0Ijp7InBhc3N3b3JkIjoicD4/XCJ3In19", "p>?\\\"w"]
        {
            assert!(encoded.contains(&form), "{form}: {encoded:?}");
        }
        let unknown = applied(&added, &["store", "other"]).unwrap_err();
        assert!(unknown.contains("the credential \"other\": its manifest declares no header"), "{unknown}");
        let unset = applied(&additions(&[("token", "t")]).unwrap(), &["store"]).unwrap_err();
        assert!(unset.contains("the credential \"store\": X_PASSWORD not set"), "{unset}");
    }

    #[test]
    fn optional_credentials_belong_to_no_set() {
        let manifest = Manifest::parse(FORMS).unwrap();
        let choice = |names: &[&str]| {
            let found = names.iter().map(|name| ((*name).to_owned(), Secret::new("x"))).collect();
            choose(&manifest, found, false, "use the provider").map(|chosen| chosen.len())
        };
        assert_eq!(choice(&["token", "user"]).unwrap(), 2);
        assert_eq!(choice(&["token", "user", "password"]).unwrap(), 3);
        let error = choice(&["password"]).unwrap_err().to_string();
        assert!(error.contains("X_TOKEN and X_USER not set") && !error.contains("X_PASSWORD"), "{error}");
        // A provider whose credentials are all optional needs none.
        let only = Manifest { credential: manifest.credential[2..].to_vec(), ..manifest.clone() };
        assert!(choose(&only, Credentials::new(), false, "use the provider").unwrap().is_empty());
    }

    #[test]
    fn a_user_with_a_colon_and_control_characters_are_refused() {
        let error = additions(&[("user", "a:hush"), ("password", "x")]).err().unwrap().to_string();
        assert!(error.contains("X_USER has a colon") && !error.contains("hush"), "{error}");
        let error = additions(&[("token", "a\nhush")]).err().unwrap().to_string();
        assert!(error.contains("X_TOKEN has characters") && !error.contains("hush"), "{error}");
    }
}
