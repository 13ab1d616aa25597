//! Provider options: settings of a service that the interface does not have. A provider describes its options by a JSON
//! schema, which `describe` returns, and reads them with [`read`].
//!
//! ```
//! use sandbox_provider_kit::options;
//!
//! let schema = r#"{"type":"object","properties":{"debug":{"type":"boolean"}},"additionalProperties":false}"#;
//! let mut debug = false;
//! let given = [("debug".to_string(), "true".to_string())];
//! options::read(&given, schema, |option| {
//!     match option.name {
//!         "debug" => debug = option.flag()?,
//!         _ => return Ok(false),
//!     }
//!     Ok(true)
//! })?;
//! assert!(debug);
//! # Ok::<(), sandbox_provider_kit::Error>(())
//! ```

use crate::{
    api::error::{Error, Result, shown},
    call::json::Value,
};

/// An option as the caller gave it.
pub struct Given<'a> {
    /// Its name.
    pub name: &'a str,
    text: &'a str,
    /// Its value; null if its text is not JSON.
    pub value: Value,
}

/// Calls `take` for each option, in their order. `take` returns `false` for an option that it does not know.
///
/// # Errors
///
/// The error of `take`, or `invalid-argument` with the option as its subject if it is given twice or unknown. The message
/// about an unknown one lists the properties of the JSON `schema`.
pub fn read<'a>(
    given: &'a [(String, String)],
    schema: &str,
    mut take: impl FnMut(&Given<'a>) -> Result<bool>,
) -> Result<()> {
    for (index, (name, text)) in given.iter().enumerate() {
        if given[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(Error::invalid(format!("The option `{}` is given twice.", shown(name))).about(name));
        }
        if !take(&Given { name, text, value: Value::parse(text).unwrap_or(Value::Null) })? {
            return Err(unknown(name, schema));
        }
    }
    Ok(())
}

fn unknown(name: &str, schema: &str) -> Error {
    let schema = Value::parse(schema).unwrap_or(Value::Null);
    let members = if let Value::Map(members) = schema.get("properties") { &members[..] } else { &[] };
    let names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
    Error::invalid(format!("The option `{}` is unknown; the options are: {}.", shown(name), names.join(", ")))
        .about(name)
}

/// Each function fails with `invalid-argument` about the option if its value has another form.
#[allow(clippy::missing_errors_doc)]
impl Given<'_> {
    /// Makes the error of a value of another form. `wanted` completes the sentence "The value must be …".
    #[must_use]
    pub fn wrong(&self, wanted: &str) -> Error {
        Error::invalid(format!("The value of the option `{}` must be {wanted}, not `{}`.", self.name, shown(self.text)))
            .about(self.name)
    }

    /// Returns a text that is not empty.
    pub fn text(&self) -> Result<String> {
        let text = self.value.text().filter(|text| !text.is_empty());
        text.map(str::to_string).ok_or_else(|| self.wrong("a JSON string"))
    }

    /// Returns one of the `accepted` texts.
    pub fn one_of(&self, accepted: &[&str]) -> Result<String> {
        let text = self.value.text().filter(|text| accepted.contains(text));
        text.map(str::to_string).ok_or_else(|| self.wrong(&format!("one of \"{}\"", accepted.join("\", \""))))
    }

    /// Returns a truth value.
    pub fn flag(&self) -> Result<bool> {
        self.value.flag().ok_or_else(|| self.wrong("true or false"))
    }

    /// Returns a whole number of at least 1. A number that `T` cannot hold has another form.
    pub fn amount<T: std::str::FromStr + PartialOrd + From<u8>>(&self) -> Result<T> {
        let amount = self.value.whole::<T>().filter(|amount| *amount >= T::from(1));
        amount.ok_or_else(|| self.wrong("a whole number above 0"))
    }

    /// Returns an array of strings.
    pub fn texts(&self) -> Result<Vec<String>> {
        let texts = if let Value::List(items) = &self.value {
            items.iter().map(|item| item.text().map(str::to_string)).collect()
        } else {
            None
        };
        texts.ok_or_else(|| self.wrong("an array of strings"))
    }

    /// Returns the members of an object of strings. If a name occurs twice, its last value counts, as is usual for JSON.
    pub fn map(&self) -> Result<Vec<(String, String)>> {
        self.members("an object of strings", |value| value.text().map(str::to_string))
    }

    /// Returns the members of an object whose values `convert` accepts. `wanted` describes it for the error.
    pub fn members(&self, wanted: &str, convert: impl Fn(&Value) -> Option<String>) -> Result<Vec<(String, String)>> {
        let Value::Map(members) = &self.value else { return Err(self.wrong(wanted)) };
        let mut map = Vec::new();
        for (key, value) in members {
            put(&mut map, key, convert(value).ok_or_else(|| self.wrong(wanted))?);
        }
        Ok(map)
    }
}

/// Sets the value of a key. Returns whether the key had a value before.
pub fn put(map: &mut Vec<(String, String)>, key: &str, value: String) -> bool {
    let known = map.iter().position(|(other, _)| other == key);
    match known {
        Some(index) => map[index].1 = value,
        None => map.push((key.to_string(), value)),
    }
    known.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"properties":{"one":{},"two":{}}}"#;

    fn given(options: &[(&str, &str)]) -> Vec<(String, String)> {
        options.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
    }

    /// Reads one option by a function of [`Given`], which returns nothing for a value of another form.
    fn by<T>(text: &str, take: impl Fn(&Given<'_>) -> Result<T>) -> Option<T> {
        let mut taken = None;
        let result = read(&given(&[("one", text)]), SCHEMA, |option| {
            taken = Some(take(option)?);
            Ok(true)
        });
        if let Err(error) = result {
            assert_eq!(error.subject.as_deref(), Some("one"));
            assert!(error.message.starts_with("The value of the option `one` must be "), "{}", error.message);
            return None;
        }
        taken
    }

    #[test]
    fn values_have_types() {
        assert_eq!(by(r#""a""#, |option| option.text()).as_deref(), Some("a"));
        assert!([r#""""#, "a", "1", "null"].iter().all(|text| by(text, |option| option.text()).is_none()));
        assert_eq!(by(r#""a""#, |option| option.one_of(&["b", "a"])).as_deref(), Some("a"));
        assert!(by(r#""c""#, |option| option.one_of(&["b", "a"])).is_none());
        assert_eq!(by("false", |option| option.flag()), Some(false));
        assert!(by("0", |option| option.flag()).is_none());
        assert_eq!(by("7", |option| option.amount::<u32>()), Some(7));
        assert!(
            ["0", "-1", "1.5", "4294967296", r#""7""#]
                .iter()
                .all(|text| by(text, |option| option.amount::<u32>()).is_none())
        );
        assert_eq!(by(r#"["a","b"]"#, |option| option.texts()), Some(vec!["a".to_string(), "b".to_string()]));
        assert!([r#"["a",1]"#, r#""a""#, "{}"].iter().all(|text| by(text, |option| option.texts()).is_none()));
        assert_eq!(by(r#"{"a":"x","b":"y","a":"z"}"#, |option| option.map()), Some(given(&[("a", "z"), ("b", "y")])));
        assert!([r#"{"a":1}"#, "[]"].iter().all(|text| by(text, |option| option.map()).is_none()));
    }

    #[test]
    fn an_option_that_is_unknown_or_given_twice_is_refused() {
        let refused = |options: &[(&str, &str)]| {
            let error = read(&given(options), SCHEMA, |option| Ok(option.name == "one")).expect_err("an error");
            (error.subject.clone().unwrap_or_default(), error.message.clone())
        };
        let unknown = "The option `x` is unknown; the options are: one, two.";
        assert_eq!(refused(&[("one", "1"), ("x", "1")]), ("x".to_string(), unknown.to_string()));
        let twice = "The option `one` is given twice.";
        assert_eq!(refused(&[("one", "1"), ("one", "1")]), ("one".to_string(), twice.to_string()));
    }
}
