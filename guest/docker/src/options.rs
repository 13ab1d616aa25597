//! Provider options: settings of the engine that the interface does not have. `options.json` is their schema, which
//! `describe` returns.

use sandbox_provider_kit::{Result, call::json::Value, options};

use crate::engine::{map, number, texts};

/// The schema, which is the only list of names and types.
pub const SCHEMA: &str = include_str!("options.json");

/// The parsed provider options.
#[derive(Debug, Default, PartialEq)]
pub struct Options {
    /// The network of an open sandbox.
    pub network: Option<String>,
    /// The host name.
    pub hostname: Option<String>,
    /// The address on which ports are published.
    pub publish: Option<String>,
    /// Members of the engine's `HostConfig`.
    pub host_config: Vec<(&'static str, Value)>,
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
                "network" => options.network = Some(option.text()?),
                "hostname" => options.hostname = Some(option.text()?),
                "publish" => options.publish = Some(option.text()?),
                "binds" => options.set("Binds", texts(option.texts()?)),
                "tmpfs" => {
                    options.set("Tmpfs", map(option.map()?.into_iter().map(|(key, text)| (key, text[..].into()))))
                }
                "pids_limit" => options.set("PidsLimit", number(option.amount::<u64>()?)),
                "shm_size_mib" => options.set("ShmSize", number(option.amount::<u64>()?.saturating_mul(1 << 20))),
                "read_only" => options.set("ReadonlyRootfs", option.flag()?.into()),
                "privileged" => options.set("Privileged", option.flag()?.into()),
                "cap_add" => options.set("CapAdd", texts(option.texts()?)),
                "cap_drop" => options.set("CapDrop", texts(option.texts()?)),
                "security_opt" => options.set("SecurityOpt", texts(option.texts()?)),
                "runtime" => options.set("Runtime", option.text()?.as_str().into()),
                "extra_hosts" => options.set("ExtraHosts", texts(option.texts()?)),
                "dns" => options.set("Dns", texts(option.texts()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(options)
    }

    fn set(&mut self, member: &'static str, value: Value) {
        self.host_config.push((member, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Options> {
        Options::read(&[(name.to_string(), text.to_string())])
    }

    #[test]
    fn each_option_of_the_schema_is_read() {
        let schema = Value::parse(SCHEMA).expect("the schema is JSON");
        let Value::Map(properties) = schema.get("properties") else { panic!("properties") };
        for (name, property) in properties {
            let value = match property.get("type").text() {
                Some("string") => r#""x""#,
                Some("array") => r#"["x"]"#,
                Some("object") => r#"{"x":"y"}"#,
                Some("boolean") => "true",
                _ => "7",
            };
            assert!(read(name, value).is_ok_and(|options| options != Options::default()), "{name}");
            let error = read(name, "[1]").expect_err(name);
            assert_eq!(error.subject.as_deref(), Some(name.as_str()));
        }
        let error = read("other", "1").expect_err("an unknown option");
        assert!(error.message.contains("network, binds, tmpfs"), "{}", error.message);
        let twice = ["1", "2"].map(|value| ("pids_limit".to_string(), value.to_string()));
        assert!(Options::read(&twice).is_err());
    }
}
