//! Provider options: features of Modal that the interface does not have. `options.json` is their schema, which
//! `describe` returns.

use sandbox_provider_kit::{Error, Result, api::error::shown, call::json::Value};

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
        for (index, (name, text)) in given.iter().enumerate() {
            if given[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(Error::invalid(format!("The option `{name}` is given twice.")).about(name));
            }
            let option = Given { name, text, value: Value::parse(text).unwrap_or(Value::Null) };
            match name.as_str() {
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
                "network_file_systems" => options.network_file_systems = option.map(false)?,
                "exit_snapshot" => options.experiment(&option, EXIT_SNAPSHOT, scalar(&Value::Bool(option.flag()?)))?,
                "docker" => options.experiment(&option, DOCKER, scalar(&Value::Bool(option.flag()?)))?,
                "sidecar_memory_mib" => {
                    let amount = option.value.whole::<u32>().filter(|amount| *amount > 0);
                    let amount = amount.ok_or_else(|| option.wrong("a whole number of MiB"))?;
                    options.experiment(&option, SIDECAR_MEMORY, Some(amount.to_string()))?;
                }
                "experimental" => {
                    for (key, value) in option.map(true)? {
                        options.experiment(&option, &key, Some(value))?;
                    }
                }
                _ => return Err(unknown(name)),
            }
        }
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

struct Given<'a> {
    name: &'a str,
    text: &'a str,
    value: Value,
}

impl Given<'_> {
    fn wrong(&self, wanted: &str) -> Error {
        Error::invalid(format!("The value of the option `{}` must be {wanted}, not `{}`.", self.name, shown(self.text)))
            .about(self.name)
    }

    fn flag(&self) -> Result<bool> {
        self.value.flag().ok_or_else(|| self.wrong("true or false"))
    }

    fn text(&self) -> Result<String> {
        let text = self.value.text().filter(|text| !text.is_empty());
        text.map(str::to_string).ok_or_else(|| self.wrong("a JSON string"))
    }

    fn one_of(&self, accepted: &[&str]) -> Result<String> {
        let text = self.value.text().filter(|text| accepted.contains(text));
        text.map(str::to_string).ok_or_else(|| self.wrong(&format!("one of \"{}\"", accepted.join("\", \""))))
    }

    /// Returns an object of strings, or with `scalars` of strings, numbers and booleans.
    fn map(&self, scalars: bool) -> Result<Vec<(String, String)>> {
        let wrong =
            || self.wrong(if scalars { "an object of strings, numbers and booleans" } else { "an object of strings" });
        let Value::Map(members) = &self.value else { return Err(wrong()) };
        let mut map = Vec::new();
        for (key, value) in members {
            let text = if scalars { scalar(value) } else { value.text().map(str::to_string) };
            put(&mut map, key, text.ok_or_else(wrong)?);
        }
        Ok(map)
    }
}

/// Sets the value of a key. Returns whether the key had a value before.
fn put(map: &mut Vec<(String, String)>, key: &str, value: String) -> bool {
    let known = map.iter().position(|(other, _)| other == key);
    match known {
        Some(index) => map[index].1 = value,
        None => map.push((key.to_string(), value)),
    }
    known.is_some()
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

fn unknown(name: &str) -> Error {
    let schema = Value::parse(SCHEMA).unwrap_or(Value::Null);
    let members = if let Value::Map(members) = schema.get("properties") { &members[..] } else { &[] };
    let names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
    Error::invalid(format!("The option `{}` is unknown; the options are: {}.", shown(name), names.join(", ")))
        .about(name)
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
