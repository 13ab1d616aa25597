//! Provider options: features of Modal that the interface does not have. `options.json` is their schema, which
//! `describe` returns.

use sandbox_provider_kit::{
    Error, Result,
    call::json::Value,
    options::{self, Given, put},
};

/// The schema, which is the only list of names and types.
pub const SCHEMA: &str = include_str!("options.json");

/// Keys of Modal's experimental options that are separate options here.
const EXIT_SNAPSHOT: &str = "enable_exit_snapshot";
const DOCKER: &str = "enable_docker";
const SIDECAR_MEMORY: &str = "vm_sidecar_memory_reserve_mib";

/// The backends of Modal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The older one, which supports accelerators.
    V1,
    /// The newer one.
    V2,
}

/// The parsed provider options.
#[derive(Debug, Default, PartialEq)]
pub struct Options {
    /// The requested backend.
    pub backend: Option<Backend>,
    /// The cloud provider.
    pub cloud: String,
    /// `gvisor` or `vm`.
    pub runtime: Option<String>,
    /// Assigns a private IPv6 address.
    pub i6pn: bool,
    /// Allows memory snapshots.
    pub memory_snapshots: bool,
    /// Logs execs and file operations.
    pub verbose: bool,
    /// Parent domain of the tunnels.
    pub custom_domain: String,
    /// Passes an identity token to the commands.
    pub identity_token: bool,
    /// Network file systems: path and id.
    pub network_file_systems: Vec<(String, String)>,
    /// Modal's experimental options, in the form of the official client.
    pub experimental: Vec<(String, String)>,
}

impl Options {
    /// Parses options. Sends nothing.
    ///
    /// # Errors
    ///
    /// `invalid-argument` with the option as its subject if it is unknown, is given twice or has the wrong type.
    pub fn read(given: &[(String, String)]) -> Result<Options> {
        let mut options = Options::default();
        options::read(given, SCHEMA, |option| {
            match option.name {
                "backend" => {
                    options.backend = Some(match option.one_of(&["v1", "v2"])?.as_str() {
                        "v1" => Backend::V1,
                        _ => Backend::V2,
                    });
                }
                "cloud" => options.cloud = option.text()?,
                "runtime" => options.runtime = Some(option.one_of(&["gvisor", "vm"])?),
                "i6pn" => options.i6pn = option.flag()?,
                "memory_snapshots" => options.memory_snapshots = option.flag()?,
                "verbose" => options.verbose = option.flag()?,
                "custom_domain" => options.custom_domain = option.text()?,
                "identity_token" => options.identity_token = option.flag()?,
                "network_file_systems" => options.network_file_systems = option.map()?,
                "exit_snapshot" => options.experiment(option, EXIT_SNAPSHOT, scalar(&Value::Bool(option.flag()?)))?,
                "docker" => options.experiment(option, DOCKER, scalar(&Value::Bool(option.flag()?)))?,
                "sidecar_memory_mib" => {
                    options.experiment(option, SIDECAR_MEMORY, Some(option.amount::<u32>()?.to_string()))?;
                }
                "experimental" => {
                    for (key, value) in option.members("an object of strings, numbers and booleans", scalar)? {
                        options.experiment(option, &key, Some(value))?;
                    }
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(options)
    }

    fn experiment(&mut self, option: &Given<'_>, key: &str, value: Option<String>) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        if put(&mut self.experimental, key, value) {
            return Err(Error::invalid(format!(
                "The option `{}` sets `{key}`, which another option also sets.",
                option.name
            ))
            .about(option.name));
        }
        Ok(())
    }
}

/// Converts a value to the form in which the official client sends experimental options (docs/modal-protocol.md,
/// section 5.2).
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(true) => Some("True".to_string()),
        Value::Bool(false) => Some("False".to_string()),
        Value::Number(text) | Value::Text(text) => Some(text.clone()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;

    fn read(given: &[(&str, &str)]) -> Result<Options, String> {
        let given: Vec<_> = given.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
        Options::read(&given).map_err(|error| error.into_record().message)
    }

    /// The parser accepts each option of the schema with a value of its type, and nothing else.
    #[test]
    fn the_schema_is_what_is_understood() {
        let schema: Json = serde_json::from_str(SCHEMA).unwrap();
        assert_eq!(schema["additionalProperties"], Json::Bool(false));
        for (name, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
            let good = match (&property["enum"], property["type"].as_str().unwrap()) {
                (Json::Array(values), _) => values[0].to_string(),
                (_, "boolean") => "true".to_string(),
                (_, "string") => "\"x\"".to_string(),
                (_, "integer") => "7".to_string(),
                (_, "object") => r#"{"/a": "b"}"#.to_string(),
                (_, other) => panic!("{name} has the type {other}"),
            };
            let options = read(&[(name, &good)]).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_ne!(options, Options::default(), "{name} changes nothing");
            for bad in ["[1]", "null", "{", "", "\"\"", "-1.5"] {
                let message = read(&[(name, bad)]).expect_err(name);
                assert!(message.contains(name.as_str()), "{message}");
            }
        }
    }

    #[test]
    fn an_unknown_option_names_the_known_ones() {
        let message = read(&[("gpus", "1")]).unwrap_err();
        assert!(message.contains("`gpus`") && message.contains("backend, cloud"), "{message}");
    }

    #[test]
    fn twice_is_a_contradiction() {
        assert!(read(&[("i6pn", "true"), ("i6pn", "true")]).unwrap_err().contains("twice"));
        let both = [("exit_snapshot", "true"), ("experimental", r#"{"enable_exit_snapshot": false}"#)];
        assert!(read(&both).unwrap_err().contains("enable_exit_snapshot"));
    }

    #[test]
    fn experimental_values_are_written_as_the_official_client_does() {
        let options = read(&[("experimental", r#"{"a": true, "b": 3, "c": "x"}"#), ("docker", "false")]).unwrap();
        let all: Vec<_> = options.experimental.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(all, ["a=True", "b=3", "c=x", "enable_docker=False"]);
        // If a name occurs twice in an object, the last member is used, as is usual for JSON.
        let options = read(&[("network_file_systems", r#"{"/a": "x", "/b": "y", "/a": "z"}"#)]).unwrap();
        let all: Vec<_> = options.network_file_systems.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(all, ["/a=z", "/b=y"]);
    }
}
