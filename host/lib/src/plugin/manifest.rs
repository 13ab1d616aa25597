//! What a plugin wishes for: its manifest.
//!
//! TOML text in the custom section `harness:manifest` of the component or of a core module inside it. The host reads it
//! as data: which environment variables the component may see, which origins it wants to reach, which credentials are
//! to be added for which of them, and which answers hand out further origins. Nothing is granted by being wished for.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Kind, PluginFault, Result};

/// Name of the custom section.
pub const SECTION: &str = "harness:manifest";

/// The largest manifest that is read; real ones have a few KiB.
const MAX: usize = 256 << 10;

/// A plugin's manifest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the manifest's format; 1.
    pub manifest: u32,
    /// Short name of the provider.
    pub name: String,
    /// Headers in which the component counts how often it has tried a request before; for the host's own metrics.
    #[serde(default)]
    pub retry_headers: Vec<String>,
    /// The interface that it was written for, such as `harness:sandbox@0.1.0`.
    pub interface: String,
    /// Environment variables that the component may see.
    #[serde(default)]
    pub env: Vec<EnvWish>,
    /// What another host sets to reach the provider through a [`Gateway`](crate::Gateway).
    #[serde(default)]
    pub gateway: GatewayWish,
    /// How the provider's own tools do without a proxy.
    #[serde(default)]
    pub proxy: ProxyWish,
    /// Where the provider's own tools keep profiles.
    pub profiles: Option<Profiles>,
    /// Long-lived credentials, by name.
    #[serde(default)]
    pub credential: Vec<CredentialWish>,
    /// Origins to be reached.
    #[serde(default)]
    pub origin: Vec<OriginWish>,
}

/// An environment variable that the component may see.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvWish {
    /// Its name.
    pub name: String,
    /// Key of the profile that stands in when it is not set.
    pub setting: Option<String>,
    /// What holds when neither is there.
    pub default: Option<String>,
}

/// What it takes to speak gRPC-Web.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayWish {
    /// Environment variables and their values, besides the address and the credentials.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// How the provider's own tools treat proxies.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyWish {
    /// An environment variable that switches the environment's proxies off unless it is empty, `0` or `false`.
    pub off: Option<String>,
}

/// A profile file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    /// Where it is.
    pub path: PathWish,
    /// The environment variable that selects a profile.
    pub select: String,
}

/// A path that an environment variable can change.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathWish {
    /// The environment variable.
    pub env: Option<String>,
    /// The path without it; `~/` is the home directory.
    pub default: String,
}

/// A credential: read by the host, added by the host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialWish {
    /// Its name within the manifest.
    pub name: String,
    /// The environment variable that holds it.
    pub env: String,
    /// Key of the profile that stands in.
    pub setting: Option<String>,
    /// The sets of credentials that it is part of. One whole set is needed; without a name it is one of a set without.
    #[serde(default)]
    pub sets: Vec<String>,
}

impl CredentialWish {
    pub(crate) fn sets(&self) -> impl Iterator<Item = &str> {
        let unnamed = self.sets.is_empty().then_some("");
        self.sets.iter().map(String::as_str).chain(unnamed)
    }
}

/// An origin, or several, to be reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginWish {
    /// What it is, for people.
    pub name: String,
    /// Where it is.
    pub url: UrlWish,
    /// Headers that the host adds.
    #[serde(default)]
    pub headers: Vec<HeaderWish>,
    /// Answers that hand out further origins.
    #[serde(default)]
    pub learn: Vec<LearnWish>,
}

/// A URL that settings can change.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UrlWish {
    /// The environment variable.
    pub env: Option<String>,
    /// Key of the profile that stands in.
    pub setting: Option<String>,
    /// The URL when neither is there.
    pub default: Option<String>,
}

/// A header with a credential.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderWish {
    /// Name of the header.
    pub name: String,
    /// Name of the credential.
    pub credential: String,
    /// The credential is an RSA key in PEM form; what is sent is a statement signed with it.
    pub assertion: Option<AssertionWish>,
}

/// A statement of who the client is: a JSON web token, signed by RS256, made for each request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssertionWish {
    /// Name of the credential that says who: issuer and subject.
    pub subject: String,
    /// The service that it is meant for.
    pub audience: String,
    /// How long it is good, in seconds.
    pub seconds: u64,
}

/// An answer that hands out an origin.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnWish {
    /// Path of the request, compared as a whole.
    pub path: String,
    /// Protobuf field numbers from the answer's message down to the string.
    pub field: Vec<u32>,
    /// What the origin is, for people.
    pub name: String,
}

impl Manifest {
    /// Reads a manifest's text.
    ///
    /// # Errors
    ///
    /// [`PluginFault::Invalid`] when it is no TOML, has unknown keys, another format version, names of variables that are
    /// none, refers to a credential that it does not declare, or wishes to be shown one that it does.
    pub fn parse(text: &str) -> Result<Manifest> {
        let invalid = |why: String| Error::new(Kind::Plugin(PluginFault::Invalid), "read the plugin's manifest", why);
        if text.len() > MAX {
            return Err(invalid(format!("it has {} bytes, more than the {MAX} that are allowed", text.len())));
        }
        let manifest: Manifest = toml::from_str(text).map_err(|error| invalid(error.message().to_owned()))?;
        if manifest.manifest != 1 {
            return Err(invalid(format!(
                "it is written in format {}, and this host reads format 1",
                manifest.manifest
            )));
        }
        for name in manifest.variables() {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(word) {
                return Err(invalid(format!("{name:?} is no name of an environment variable")));
            }
        }
        manifest.check_credentials_stay_here().map_err(invalid)?;
        // They are printed, one per line, for another program to set.
        if let Some((name, value)) = manifest.gateway.env.iter().find(|(_, value)| value.contains(char::is_control)) {
            return Err(invalid(format!("the value for {name}, {value:?}, has a control character")));
        }
        // Origins are granted by their names.
        for (n, origin) in manifest.origin.iter().enumerate() {
            if manifest.origin[..n].iter().any(|other| other.name == origin.name) {
                return Err(invalid(format!("two origins have the name {:?}", origin.name)));
            }
            for header in &origin.headers {
                if http::HeaderName::try_from(header.name.as_str()).is_err() {
                    return Err(invalid(format!("{:?} is no header name", header.name)));
                }
                let subject = header.assertion.as_ref().map(|assertion| &assertion.subject);
                let declared = |name: &String| manifest.credential.iter().any(|credential| credential.name == *name);
                if !declared(&header.credential) || !subject.is_none_or(declared) {
                    return Err(invalid(format!("the header {} names no declared credential", header.name)));
                }
            }
            for rule in &origin.learn {
                if rule.field.is_empty() || rule.field.len() > 16 || !rule.path.starts_with('/') {
                    return Err(invalid(format!("the rule for {:?} is unusable", rule.path)));
                }
            }
        }
        Ok(manifest)
    }

    /// Finds the manifest in a component, nested modules and components included. None when there is none.
    ///
    /// # Errors
    ///
    /// As [`Manifest::parse`]; also when the section is not UTF-8.
    pub fn find(wasm: &[u8]) -> Result<Option<Manifest>> {
        for payload in wasmparser::Parser::new(0).parse_all(wasm) {
            // Malformed binaries are the compiler's to report.
            let Ok(payload) = payload else { return Ok(None) };
            if let wasmparser::Payload::CustomSection(section) = payload
                && section.name() == SECTION
            {
                let text = std::str::from_utf8(section.data()).map_err(|_| {
                    Error::new(Kind::Plugin(PluginFault::Invalid), "read the plugin's manifest", "it is not UTF-8")
                })?;
                return Manifest::parse(text).map(Some);
            }
        }
        Ok(None)
    }

    /// What holds a credential is nothing else besides: whatever `env` and `url` name is given to the component. An `env`
    /// wish for the credential's own variable is let be, since that variable is never given out.
    fn check_credentials_stay_here(&self) -> Result<(), String> {
        let of = |name: &str| {
            let holds = |wish: &&CredentialWish| wish.env == name || wish.setting.as_deref() == Some(name);
            self.credential.iter().find(holds)
        };
        let env = self.env.iter().flat_map(|wish| {
            let name = Some(&wish.name).filter(|name| !self.credential_variables().any(|variable| variable == *name));
            name.into_iter().chain(&wish.setting).map(move |source| (&wish.name, source))
        });
        let urls = self
            .origin
            .iter()
            .flat_map(|wish| wish.url.env.iter().chain(&wish.url.setting).map(move |source| (&wish.name, source)));
        for (wish, source) in env.chain(urls) {
            if let Some(credential) = of(source) {
                let name = &credential.name;
                return Err(format!(
                    "it wishes {source:?} to be shown as {wish:?}, and that is the credential {name:?}"
                ));
            }
        }
        Ok(())
    }

    /// All environment variables that it names.
    fn variables(&self) -> impl Iterator<Item = &String> {
        let origins = self.origin.iter().filter_map(|origin| origin.url.env.as_ref());
        let profiles = self.profiles.iter().flat_map(|profiles| profiles.path.env.iter().chain([&profiles.select]));
        (self.env.iter().map(|wish| &wish.name))
            .chain(self.credential.iter().map(|wish| &wish.env))
            .chain(origins)
            .chain(profiles)
            .chain(self.gateway.env.keys())
            .chain(&self.proxy.off)
    }

    /// The environment variables that hold credentials. Never given to the component, whatever `env` says.
    pub(crate) fn credential_variables(&self) -> impl Iterator<Item = &str> {
        self.credential.iter().map(|credential| credential.env.as_str())
    }

    /// The credentials that are part of a set.
    pub(crate) fn members<'a>(&'a self, set: &'a str) -> impl Iterator<Item = &'a CredentialWish> {
        self.credential.iter().filter(move |wish| wish.sets().any(|name| name == set))
    }

    /// The credentials of the first set that it names.
    pub fn first_set(&self) -> impl Iterator<Item = &CredentialWish> {
        let set = self.credential.first().and_then(|wish| wish.sets().next()).unwrap_or_default();
        self.members(set)
    }

    /// What to set for a set of credentials.
    pub(crate) fn credential_hint(&self, set: &str) -> String {
        let names: Vec<_> = self.members(set).map(|wish| wish.env.as_str()).collect();
        let mut hint = format!("set {}", names.join(" and "));
        if let Some(profiles) = &self.profiles {
            hint = format!("{hint}, or put them into a profile in {}", profiles.path.default);
        }
        hint
    }
}

/// Values of a manifest's settings, resolved. Kept apart from the manifest: these are the user's, not the plugin's.
pub(crate) type Settings = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::Manifest;

    #[test]
    fn the_modal_manifest_is_understood() {
        let manifest = Manifest::parse(include_str!("../../../../guest/modal/manifest.toml")).unwrap();
        assert_eq!(manifest.name, "modal");
        assert!(manifest.origin[0].headers.len() >= 2);
        assert!(manifest.origin[0].learn.iter().any(|rule| rule.field == [5, 2]));
    }

    #[test]
    fn unknown_keys_and_credentials_are_refused() {
        assert!(Manifest::parse("manifest = 1\nname = 'x'\ninterface = 'y'\nwish = 3").is_err());
        let text = "manifest = 1\nname = 'x'\ninterface = 'y'\n[[origin]]\nname = 'o'\nurl = { default = 'https://a' }\n\
                    headers = [{ name = 'h', credential = 'c' }]";
        assert!(Manifest::parse(text).unwrap_err().to_string().contains("no declared credential"));
    }

    #[test]
    fn a_credential_is_not_shown_under_another_name() {
        let head = "manifest = 1\nname = 'x'\ninterface = 'y'\n\
                    [[credential]]\nname = 'token'\nenv = 'X_TOKEN'\nsetting = 'token_id'\n";
        for wish in [
            "[[env]]\nname = 'X_PLAIN'\nsetting = 'token_id'",
            "[[env]]\nname = 'X_TOKEN'\nsetting = 'token_id'",
            "[[env]]\nname = 'X_PLAIN'\nsetting = 'X_TOKEN'",
            "[[env]]\nname = 'token_id'",
            "[[origin]]\nname = 'o'\nurl = { env = 'X_TOKEN' }",
            "[[origin]]\nname = 'o'\nurl = { env = 'X_URL', setting = 'token_id' }",
        ] {
            let error = Manifest::parse(&format!("{head}{wish}")).unwrap_err().to_string();
            assert!(error.contains("that is the credential \"token\""), "{wish}: {error}");
        }
        // Its own variable is never given to the component, so that the wish is in vain.
        for wish in ["[[env]]\nname = 'X_TOKEN'", "[[origin]]\nname = 'o'\nurl = { env = 'X_URL', setting = 'url' }"] {
            Manifest::parse(&format!("{head}{wish}")).unwrap();
        }
    }

    #[test]
    fn what_could_be_read_as_a_line_of_its_own_is_refused() {
        let head = "manifest = 1\nname = 'x'\ninterface = 'y'\n";
        for (text, why) in [
            (r#"gateway.env = { X = "1\nB=2" }"#, "control character"),
            (r#"gateway.env = { X = "\u001b[1m" }"#, "control character"),
            (r#"gateway.env = { "X=1\nB" = "2" }"#, "no name of an environment variable"),
            ("[[env]]\nname = ''", "no name of an environment variable"),
            ("[[env]]\nname = '1X'", "no name of an environment variable"),
            ("[[origin]]\nname = 'o'\nurl = { env = 'A B' }", "no name of an environment variable"),
        ] {
            let error = Manifest::parse(&format!("{head}{text}")).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Manifest::parse(&format!("{head}gateway.env = {{ X_1 = 'a b' }}")).is_ok());
    }
}
