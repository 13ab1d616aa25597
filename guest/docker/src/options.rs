//! Provider options: settings of the engine that the interface does not have. `options.json` is their schema, which
//! `describe` returns.

use sandbox_provider_kit::{Error, Result, api::error::shown, call::json::Value};

use crate::engine::{items, number, pairs};

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
        for (index, (name, text)) in given.iter().enumerate() {
            if given[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(Error::invalid(format!("The option `{name}` is given twice.")).about(name));
            }
            let option = Given { name, text, value: Value::parse(text).unwrap_or(Value::Null) };
            match name.as_str() {
                "network" => options.network = Some(option.text()?),
                "hostname" => options.hostname = Some(option.text()?),
                "publish" => options.publish = Some(option.text()?),
                "binds" => options.set("Binds", option.texts()?),
                "tmpfs" => options.set("Tmpfs", option.map()?),
                "pids_limit" => options.set("PidsLimit", number(option.amount()?)),
                "shm_size_mib" => options.set("ShmSize", number(option.amount()?.saturating_mul(1 << 20))),
                "read_only" => options.set("ReadonlyRootfs", option.flag()?.into()),
                "privileged" => options.set("Privileged", option.flag()?.into()),
                "cap_add" => options.set("CapAdd", option.texts()?),
                "cap_drop" => options.set("CapDrop", option.texts()?),
                "security_opt" => options.set("SecurityOpt", option.texts()?),
                "runtime" => options.set("Runtime", option.text()?.as_str().into()),
                "extra_hosts" => options.set("ExtraHosts", option.texts()?),
                "dns" => options.set("Dns", option.texts()?),
                _ => {
                    return Err(Error::invalid(format!(
                        "There is no option `{}`: `describe` lists the options of this provider.",
                        shown(name)
                    ))
                    .about(name));
                }
            }
        }
        Ok(options)
    }

    fn set(&mut self, member: &'static str, value: Value) {
        self.host_config.push((member, value));
    }
}

/// An option as it was given.
struct Given<'a> {
    name: &'a str,
    text: &'a str,
    value: Value,
}

impl Given<'_> {
    fn wrong(&self, wanted: &str) -> Error {
        Error::invalid(format!("The option `{}` has the value `{}`: give {wanted}.", self.name, shown(self.text)))
            .about(self.name)
    }

    fn text(&self) -> Result<String> {
        let text = self.value.text().filter(|text| !text.is_empty());
        text.map(str::to_string).ok_or_else(|| self.wrong("a string in quotation marks"))
    }

    fn flag(&self) -> Result<bool> {
        self.value.flag().ok_or_else(|| self.wrong("true or false"))
    }

    fn amount(&self) -> Result<u64> {
        self.value.whole().filter(|amount| *amount > 0).ok_or_else(|| self.wrong("a whole number above 0"))
    }

    fn texts(&self) -> Result<Value> {
        let good = matches!(self.value, Value::List(_)) && items(&self.value).iter().all(|item| item.text().is_some());
        if good { Ok(self.value.clone()) } else { Err(self.wrong("a JSON array of strings")) }
    }

    fn map(&self) -> Result<Value> {
        let good = matches!(&self.value, Value::Map(members) if pairs(&self.value).len() == members.len());
        if good { Ok(self.value.clone()) } else { Err(self.wrong("a JSON object of strings")) }
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
        assert!(read("other", "1").is_err());
        let twice = ["1", "2"].map(|value| ("pids_limit".to_string(), value.to_string()));
        assert!(Options::read(&twice).is_err());
    }
}
