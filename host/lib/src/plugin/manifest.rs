//! The manifest of a plugin, which lists what the plugin asks for.
//!
//! It is TOML text in the custom section `harness:manifest` of the component or of a core module inside it. The host
//! reads it as data: the environment variables that the component may see, the origins that it connects to, the
//! credentials that the host adds for them, and the responses that name further origins. The manifest alone grants
//! nothing.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Kind, PluginFault, Result};
use crate::plugin::origin::{Names, OriginWish};

/// The name of the custom section.
pub const SECTION: &str = "harness:manifest";

/// Largest manifest, in bytes. Real ones have a few KiB.
const MAX: usize = 256 << 10;

/// The manifest of a plugin.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the manifest's format, which is 1.
    pub manifest: u32,
    /// The short name of the provider.
    pub name: String,
    /// Headers in which the component counts its attempts at a request. The host uses them for its metrics.
    #[serde(default)]
    pub retry_headers: Vec<String>,
    /// The interface that the plugin was written for, such as `harness:sandbox@0.1.0`.
    pub interface: String,
    /// How the calls are distributed to instances of the component.
    #[serde(default)]
    pub instances: InstancesWish,
    /// Environment variables that the component may see.
    #[serde(default)]
    pub env: Vec<EnvWish>,
    /// Settings for another host that uses the provider through a [`Gateway`](crate::Gateway).
    #[serde(default)]
    pub gateway: GatewayWish,
    /// How the provider's own tools turn off proxies.
    #[serde(default)]
    pub proxy: ProxyWish,
    /// Where the provider's own tools store profiles.
    pub profiles: Option<Profiles>,
    /// Long-lived credentials.
    #[serde(default)]
    pub credential: Vec<CredentialWish>,
    /// Origins that the component connects to.
    #[serde(default)]
    pub origin: Vec<OriginWish>,
}

/// How the calls are distributed to instances of the component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstancesWish {
    /// Each concurrent call has an instance of its own. No instance has to keep anything.
    #[default]
    Many,
    /// All calls of a provider run in one instance, one after another, and the instance lives as long as the provider.
    /// For plugins that keep their state in memory, such as test doubles. A long call delays all others, so such a
    /// plugin returns early from calls that wait. A crash loses the state.
    One,
}

/// An environment variable that the component may see.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvWish {
    /// The name of the variable.
    pub name: String,
    /// The key of the profile that is used if the variable is not set.
    pub setting: Option<String>,
    /// The value that is used if neither is set.
    pub default: Option<String>,
}

/// The settings of the component for gRPC-Web.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayWish {
    /// Environment variables and their values, in addition to the address and the credentials.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// How the provider's own tools handle proxies.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyWish {
    /// An environment variable that turns off the proxies of the environment unless it is empty, `0` or `false`.
    pub off: Option<String>,
}

/// The profile file of a provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    /// The path of the file.
    pub path: PathWish,
    /// The environment variable that selects a profile.
    pub select: String,
}

/// A path that an environment variable can replace.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathWish {
    /// The environment variable that contains the path.
    pub env: Option<String>,
    /// The path that is used if the variable is not set. `~/` is the home directory.
    pub default: String,
}

/// A credential, which the host reads and adds to requests. The component does not see it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialWish {
    /// The name of the credential in the manifest.
    pub name: String,
    /// The environment variable that contains the credential.
    pub env: String,
    /// The key of the profile that is used if the variable is not set.
    pub setting: Option<String>,
    /// The sets of credentials that contain this one. The user has to supply exactly one set completely. A credential
    /// without sets belongs to the unnamed set.
    #[serde(default)]
    pub sets: Vec<String>,
    /// Whether the provider can be used without this credential. If so, it belongs to no set.
    #[serde(default)]
    pub optional: bool,
}

impl CredentialWish {
    /// Returns the sets that contain this credential. The unnamed set is `""`.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &str> {
        let unnamed = (self.sets.is_empty() && !self.optional).then_some("");
        self.sets.iter().map(String::as_str).chain(unnamed)
    }
}

impl Manifest {
    /// Parses the text of a manifest.
    ///
    /// # Errors
    ///
    /// [`PluginFault::Invalid`] if the text is larger than 256 KiB, is not TOML, has unknown keys, another format
    /// version or unusable values, refers to an undeclared credential, or asks for a credential to be shown to the
    /// component.
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
                return Err(invalid(format!("{name:?} is not a valid name of an environment variable")));
            }
        }
        manifest.check_credentials_stay_here().map_err(invalid)?;
        if let Some(wish) = manifest.credential.iter().find(|wish| wish.optional && !wish.sets.is_empty()) {
            return Err(invalid(format!("the credential {:?} is optional, so it belongs to no set", wish.name)));
        }
        // The values are printed, one per line, for other programs.
        if let Some((name, value)) = manifest.gateway.env.iter().find(|(_, value)| value.contains(char::is_control)) {
            return Err(invalid(format!("the value for {name}, {value:?}, has a control character")));
        }
        let names = Names {
            credentials: manifest.credential.iter().map(|wish| wish.name.as_str()).collect(),
            variables: manifest.env.iter().map(|wish| wish.name.as_str()).collect(),
        };
        // Grants refer to origins by name, so the names must differ.
        for (n, origin) in manifest.origin.iter().enumerate() {
            if manifest.origin[..n].iter().any(|other| other.name == origin.name) {
                return Err(invalid(format!("two origins have the name {:?}", origin.name)));
            }
            origin.check(&names).map_err(invalid)?;
        }
        Ok(manifest)
    }

    /// Finds and parses the manifest of a component. Searches nested modules and components too. Returns `None` if
    /// there is none.
    ///
    /// # Errors
    ///
    /// Those of [`Manifest::parse`], and [`PluginFault::Invalid`] if the section is not UTF-8.
    pub fn find(wasm: &[u8]) -> Result<Option<Manifest>> {
        for payload in wasmparser::Parser::new(0).parse_all(wasm) {
            // The compiler reports malformed binaries.
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

    /// Checks that no source of a credential is also a source of a value that the component sees, which are all sources
    /// in `env` and `url`. An `env` entry for the credential's own variable is accepted, because that variable is never
    /// shown.
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
                    "it asks to show {source:?} to the plugin as {wish:?}, and that is the credential {name:?}"
                ));
            }
        }
        Ok(())
    }

    /// Returns all environment variables that the manifest names.
    fn variables(&self) -> impl Iterator<Item = &String> {
        let origins = self.origin.iter().filter_map(|origin| origin.url.env.as_ref());
        let files = self.origin.iter().flat_map(OriginWish::files).map(|wish| &wish.env);
        let switches = self.origin.iter().filter_map(|origin| Some(&origin.tls.as_ref()?.on.as_ref()?.env));
        let profiles = self.profiles.iter().flat_map(|profiles| profiles.path.env.iter().chain([&profiles.select]));
        (self.env.iter().map(|wish| &wish.name))
            .chain(self.credential.iter().map(|wish| &wish.env))
            .chain(origins)
            .chain(files)
            .chain(switches)
            .chain(profiles)
            .chain(self.gateway.env.keys())
            .chain(&self.proxy.off)
    }

    /// Returns the environment variables that contain credentials. They are never shown to the component, even if `env`
    /// names them.
    pub(crate) fn credential_variables(&self) -> impl Iterator<Item = &str> {
        self.credential.iter().map(|credential| credential.env.as_str())
    }

    /// Returns the credentials of a set.
    pub(crate) fn members<'a>(&'a self, set: &'a str) -> impl Iterator<Item = &'a CredentialWish> {
        self.credential.iter().filter(move |wish| wish.sets().any(|name| name == set))
    }

    /// Returns the credentials of the first set in the manifest.
    pub fn first_set(&self) -> impl Iterator<Item = &CredentialWish> {
        self.members(self.first_set_name())
    }

    /// Returns the name of the first set in the manifest.
    pub(crate) fn first_set_name(&self) -> &str {
        self.credential.iter().find_map(|wish| wish.sets().next()).unwrap_or_default()
    }

    /// Returns a hint for users that names the variables of a set of credentials.
    pub(crate) fn credential_hint(&self, set: &str) -> String {
        let names: Vec<_> = self.members(set).map(|wish| wish.env.as_str()).collect();
        let mut hint = format!("set {}", names.join(" and "));
        if let Some(profiles) = &self.profiles {
            hint = format!("{hint}, or put them into a profile in {}", profiles.path.default);
        }
        hint
    }
}

/// The values of the settings in a profile. Separate from the manifest, because they come from the user and not from
/// the plugin.
pub(crate) type Settings = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::{InstancesWish, Manifest};

    #[test]
    fn the_modal_manifest_is_understood() {
        let manifest = Manifest::parse(include_str!("../../../../guest/modal/manifest.toml")).unwrap();
        assert_eq!(manifest.name, "modal");
        assert!(manifest.origin[0].headers.len() >= 2);
        assert!(manifest.origin[0].learn.iter().any(|rule| rule.field == [5, 2]));
    }

    #[test]
    fn a_plugin_may_ask_for_a_single_instance() {
        let text = include_str!("../../../../guest/memory/manifest.toml");
        assert_eq!(Manifest::parse(text).unwrap().instances, InstancesWish::One);
        let head = "manifest = 1\nname = 'x'\ninterface = 'y'\n";
        assert_eq!(Manifest::parse(head).unwrap().instances, InstancesWish::Many);
        assert!(Manifest::parse(&format!("{head}instances = 'two'")).is_err());
    }

    #[test]
    fn unknown_keys_and_credentials_are_refused() {
        assert!(Manifest::parse("manifest = 1\nname = 'x'\ninterface = 'y'\nwish = 3").is_err());
        let text = "manifest = 1\nname = 'x'\ninterface = 'y'\n[[origin]]\nname = 'o'\nurl = { default = 'https://a' }\n\
                    headers = [{ name = 'h', credential = 'c' }]";
        assert!(Manifest::parse(text).unwrap_err().to_string().contains("\"c\", which is not a declared credential"));
    }

    #[test]
    fn the_documented_examples_are_understood() {
        let text = include_str!("../../../../docs/manifest.md");
        let examples: Vec<_> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert_eq!(examples.len(), 4);
        for example in examples {
            Manifest::parse(example).unwrap_or_else(|error| panic!("{error}: {example}"));
        }
    }

    #[test]
    fn origins_that_cannot_be_meant_are_refused() {
        let head = "manifest = 1\nname = 'x'\ninterface = 'y'\n[[credential]]\nname = 'c'\nenv = 'C'\n\
                    [[env]]\nname = 'V'\n[[origin]]\nname = 'o'\nurl = { default = 'https://a' }\n";
        for (line, why) in [
            ("headers = [{ name = 'h' }]", "needs one of `credential`, `value`, `basic` and `json64`"),
            ("headers = [{ name = 'h', credential = 'c', value = '{c}' }]", "needs one of"),
            ("headers = [{ name = 'h h', credential = 'c' }]", "not a valid name of a header"),
            ("headers = [{ name = 'Harness-Credential', credential = 'c' }]", "is reserved"),
            ("headers = [{ name = 'h', credential = 'c', on_request = 'a, b' }]", "`on_request` \"a, b\""),
            ("headers = [{ name = 'h', credential = 'c', on_request = '' }]", "`on_request` \"\""),
            ("headers = [{ name = 'h', json64 = {} }]", "refers to no credential"),
            ("headers = [{ name = 'h', json64 = { a = '{d}' } }]", "\"d\", which is not a declared credential"),
            ("headers = [{ name = 'h', json64 = { a = '{c', b = '{c}' } }]", "single"),
            ("headers = [{ name = 'h', json64 = { '{c' = 'b' } }]", "single"),
            ("headers = [{ name = 'h', json64 = { a = { b = { c = '{c}' } } } }]", "expected a string"),
            ("headers = [{ name = 'h', json64 = { a = 3 } }]", "a text or a table of texts"),
            ("headers = [{ name = 'h', json64 = { a = '{c}' }, value = '{c}' }]", "needs one of"),
            ("headers = [{ name = 'h', value = 'Bearer' }]", "refers to no credential"),
            ("headers = [{ name = 'h', value = 'Bearer {d}' }]", "\"d\", which is not a declared credential"),
            ("headers = [{ name = 'h', value = 'Bearer {V}' }]", "refers to no credential"),
            ("headers = [{ name = 'h', credential = 'V' }]", "\"V\", which is not a declared credential"),
            ("headers = [{ name = 'h', value = 'Bearer {c' }]", "single"),
            ("headers = [{ name = 'h', basic = { user = 'u', password = 'p' } }]", "refers to no credential"),
            (
                "headers = [{ name = 'h', value = '{c}', assertion = { subject = 'c', audience = 'a', seconds = 1 } }]",
                "needs `credential`",
            ),
            ("query = [{ name = 'q' }]", "needs one of `credential` and `value`"),
            ("query = [{ name = '', credential = 'c' }]", "has no name"),
            ("query = [{ name = 'q', credential = 'd' }]", "\"d\", which is not a declared credential"),
            ("authority = 'example.com'", "ends in .localhost"),
            ("tls = { certificate = { env = 'CERT' } }", "`certificate` and `key` together"),
            ("tls = { on = { env = 'A' } }", "needs `url.tcp`"),
            ("tls = { on = { env = 'A B' } }", "not a valid name of an environment variable"),
            ("tls = { authorities = { env = 'A B' } }", "not a valid name of an environment variable"),
            ("tls = { authorities = { env = 'A', file = '../x' } }", "\"../x\" is not the name of a file"),
            ("learn = [{ path = '/a', name = 'n' }]", "needs one of `field` and `pointer`"),
            (
                "learn = [{ path = '/a', field = [1], pointer = '/a', name = 'n' }]",
                "needs one of `field` and `pointer`",
            ),
            ("learn = [{ path = '/a', pointer = 'a', name = 'n' }]", "a `pointer` that begins with `/`"),
            ("learn = [{ path = 'a', pointer = '/a', name = 'n' }]", "a path that begins with `/`"),
            (
                "learn = [{ path = '/a', field = [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1], name = 'n' }]",
                "more than 16 steps",
            ),
        ] {
            let error = Manifest::parse(&format!("{head}{line}")).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
        for line in [
            "headers = [{ name = 'h', value = 'Bearer {c}' }, { name = 'i', basic = { user = 'u', password = '{c}' } }]",
            "headers = [{ name = 'h', json64 = { '{V}' = { user = 'u', password = '{c}' } }, on_request = 'registry' }]",
            "headers = [{ name = 'h', json64 = { a = '{V}', b = 'p-{c}', d = { } } }]",
            "query = [{ name = 'q', value = 'k-{c}' }]",
            "tls = { certificate = { env = 'D', file = 'cert.pem' }, key = { env = 'D', file = 'key.pem' } }",
            "learn = [{ path = '/a/*', pointer = '/data/*/url', name = 'n' }]",
        ] {
            Manifest::parse(&format!("{head}{line}")).unwrap();
        }
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
        // The variable of a credential is never shown to the component, so the manifest may name it.
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
            (r#"gateway.env = { "X=1\nB" = "2" }"#, "not a valid name of an environment variable"),
            ("[[env]]\nname = ''", "not a valid name of an environment variable"),
            ("[[env]]\nname = '1X'", "not a valid name of an environment variable"),
            ("[[origin]]\nname = 'o'\nurl = { env = 'A B' }", "not a valid name of an environment variable"),
            ("[[credential]]\nname = 'c'\nenv = 'C'\noptional = true\nsets = ['s']", "belongs to no set"),
        ] {
            let error = Manifest::parse(&format!("{head}{text}")).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Manifest::parse(&format!("{head}gateway.env = {{ X_1 = 'a b' }}")).is_ok());
    }
}
