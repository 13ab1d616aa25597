//! Selects credentials and converts them to headers.
//!
//! A provider may accept one of several sets of credentials, such as a pair of tokens, or an OAuth client with a secret
//! or with a key. Exactly one set must be complete. Credentials of another set in addition are an error, because it is
//! unclear which set the user meant. A key is never sent: the host sends a statement that it signs with the key, anew
//! for each request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use ring::rand::SystemRandom;
use ring::signature::{self, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use crate::access::secret::Secret;
use crate::error::{Error, Kind, Result};
use crate::plugin::manifest::{AssertionWish, CredentialWish, HeaderWish, Manifest};

/// Credentials by their names in the manifest.
pub(crate) type Credentials = BTreeMap<String, Secret>;

/// Checks that `found` contains one complete set of credentials and nothing else, and returns it. With `anonymous`, also
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
        if anonymous || manifest.credential.is_empty() {
            return Ok(found);
        }
        // The error names the set with the most credentials found, which the user probably meant, or else the first of
        // the manifest.
        let present = |set: &str| manifest.members(set).filter(|wish| found.contains_key(&wish.name)).count();
        let first = manifest.credential.first().and_then(|wish| wish.sets().next()).unwrap_or_default();
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
        .filter(|wish| found.contains_key(&wish.name) && !wish.sets().any(|name| name == chosen))
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

/// The source of the value of a header.
#[derive(Clone)]
pub(crate) enum HeaderSource {
    /// The credential itself.
    Credential(HeaderValue),
    /// A statement signed with the credential.
    Assertion(Arc<Assertion>),
}

impl HeaderSource {
    /// Creates the source of a header. Returns `None` if its credential is not set.
    ///
    /// # Errors
    ///
    /// [`Kind::Unauthenticated`] for a value that a header cannot contain, and for an unusable key.
    pub(crate) fn new(
        wish: &HeaderWish,
        manifest: &Manifest,
        secrets: &Credentials,
        what: &str,
    ) -> Result<Option<HeaderSource>> {
        let Some(secret) = secrets.get(&wish.credential) else { return Ok(None) };
        let variable = manifest.credential.iter().find(|credential| credential.name == wish.credential);
        let variable = variable.map_or(wish.credential.as_str(), |credential| credential.env.as_str());
        let unusable = |why: &str| Error::new(Kind::Unauthenticated, what, format!("the value of {variable} {why}"));
        let Some(assertion) = &wish.assertion else {
            let value = secret.header().ok_or_else(|| unusable("contains characters that are invalid in a header"))?;
            return Ok(Some(HeaderSource::Credential(value)));
        };
        let Some(subject) = secrets.get(&assertion.subject) else { return Ok(None) };
        let assertion = Assertion::new(secret, subject, assertion).map_err(|why| unusable(&why))?;
        Ok(Some(HeaderSource::Assertion(Arc::new(assertion))))
    }

    /// Returns the value for one request.
    pub(crate) fn value(&self) -> Option<HeaderValue> {
        match self {
            HeaderSource::Credential(value) => Some(value.clone()),
            HeaderSource::Assertion(assertion) => assertion.mint(),
        }
    }
}

/// A client assertion (RFC 7523), signed with the RSA key of the client.
pub(crate) struct Assertion {
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
        let wish = manifest.origin[0].headers.iter().find(|header| header.assertion.is_some()).unwrap();
        let pem = include_str!("../../tests/oauth-test-key.pem");
        // The key with line breaks, and on one line as in an environment variable.
        for pem in [pem.to_owned(), pem.replace('\n', "\\n")] {
            let secrets: Credentials = [("oauth-jwt-key", pem.as_str()), ("oauth-client-id", "client-7")]
                .map(|(name, value)| (name.to_owned(), Secret::new(value)))
                .into();
            let source = HeaderSource::new(wish, &manifest, &secrets, "use the provider").unwrap().unwrap();
            let (first, second) = (source.value().unwrap(), source.value().unwrap());
            assert!(first != second && first.is_sensitive());
            let token = first.to_str().unwrap();
            let (signed, mark) = token.rsplit_once('.').unwrap();
            let HeaderSource::Assertion(assertion) = &source else { panic!("no assertion") };
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
        let wish = manifest.origin[0].headers.iter().find(|header| header.assertion.is_some()).unwrap();
        let secrets: Credentials = [("oauth-jwt-key", "hush"), ("oauth-client-id", "client")]
            .map(|(name, value)| (name.to_owned(), Secret::new(value)))
            .into();
        let error = HeaderSource::new(wish, &manifest, &secrets, "use the provider").err().unwrap().to_string();
        assert!(error.contains("MODAL_OAUTH_JWT_KEY is not a private key") && !error.contains("hush"), "{error}");
    }
}
