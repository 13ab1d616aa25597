//! Where settings and credentials come from: the environment first, then a profile file, then the manifest's default.
//!
//! The rules are those of the provider's official clients (fact sheet 1.4): a profile is chosen by the variable that
//! the manifest names, else the one with `active = true`, else the one called `default`; more than one active profile
//! and a chosen profile that does not exist are errors, not guesses.

use std::path::PathBuf;

use crate::error::{Error, Kind, Result};
use crate::manifest::{Profiles, Settings};

/// Where environment variables are looked up: the process's own, or what a test or an embedder gives.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A profile file is small; anything larger is not one.
const MAX: u64 = 1 << 20;

/// Reads the chosen profile. Empty when there is no file or no profile to choose.
pub(crate) fn read(profiles: &Profiles, chosen: Option<&str>, env: Lookup<'_>) -> Result<Settings> {
    let path = path(profiles, env);
    let chosen = chosen.map(str::to_owned).or_else(|| env(&profiles.select).filter(|name| !name.is_empty()));
    let what = || format!("read the profiles in {}", path.display());
    let text = match std::fs::metadata(&path).and_then(|meta| {
        if meta.len() > MAX {
            return Err(std::io::Error::other("the file is larger than 1 MiB"));
        }
        std::fs::read_to_string(&path)
    }) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return match chosen {
                None => Ok(Settings::new()),
                Some(name) => Err(Error::new(
                    Kind::Config,
                    format!("use the profile {name:?}"),
                    format!("there is no file {}", path.display()),
                )
                .with_hint(format!("create it, or unset {}", profiles.select))),
            };
        }
        Err(error) => return Err(Error::new(Kind::Config, what(), error.to_string())),
    };
    // The parser's own message can quote a line of the file, which may be a credential.
    let file: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        Error::new(Kind::Config, what(), format!("line {line} is not valid TOML"))
    })?;
    select(&file, chosen.as_deref(), &path.display().to_string(), &profiles.select)
}

/// The file of the manifest's profiles.
pub(crate) fn path(profiles: &Profiles, env: Lookup<'_>) -> PathBuf {
    let set = profiles.path.env.as_deref().and_then(env).filter(|path| !path.is_empty());
    let text = set.unwrap_or_else(|| profiles.path.default.clone());
    match text.strip_prefix("~/") {
        Some(rest) => PathBuf::from(env("HOME").unwrap_or_else(|| "/".into())).join(rest),
        None => PathBuf::from(text),
    }
}

fn select(file: &toml::Table, chosen: Option<&str>, path: &str, variable: &str) -> Result<Settings> {
    let mut active = file.iter().filter(|(_, profile)| {
        profile.get("active").is_some_and(|value| value.as_bool() == Some(true) || value.as_integer() == Some(1))
    });
    let profile = match chosen {
        Some(name) => Some(file.get(name).ok_or_else(|| {
            let names: Vec<_> = file.keys().map(String::as_str).collect();
            Error::new(Kind::Config, format!("use the profile {name:?}"), format!("{path} has no such profile"))
                .with_hint(format!("it has: {}", names.join(", ")))
        })?),
        None => match (active.next(), active.next()) {
            (Some((first, _)), Some((second, _))) => {
                return Err(Error::new(
                    Kind::Config,
                    format!("choose a profile from {path}"),
                    format!("{first:?} and {second:?} are both active"),
                )
                .with_hint(format!("leave one `active = true`, or set {variable}")));
            }
            (Some((_, profile)), None) => Some(profile),
            (None, _) => file.get("default"),
        },
    };
    let Some(profile) = profile else { return Ok(Settings::new()) };
    let table = profile
        .as_table()
        .ok_or_else(|| Error::new(Kind::Config, format!("read the profiles in {path}"), "a profile is not a table"))?;
    Ok(table.iter().filter_map(|(key, value)| Some((key.clone(), scalar(value)?))).collect())
}

/// Settings are text wherever they go; nested ones are nobody's.
fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Boolean(value) => Some(value.to_string()),
        toml::Value::Integer(value) => Some(value.to_string()),
        toml::Value::Float(value) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::select;

    const FILE: &str = "[one]\ntoken_id = 'a'\nactive = true\n[two]\ntoken_id = 'b'\nsandbox_v2 = false\n";

    #[test]
    fn the_active_profile_is_chosen_and_a_name_wins() {
        let file = FILE.parse().unwrap();
        assert_eq!(select(&file, None, "f", "V").unwrap()["token_id"], "a");
        let two = select(&file, Some("two"), "f", "V").unwrap();
        assert_eq!((two["token_id"].as_str(), two["sandbox_v2"].as_str()), ("b", "false"));
    }

    #[test]
    fn two_active_profiles_and_unknown_names_are_errors() {
        let file = FILE.replace("token_id = 'b'", "active = true").parse().unwrap();
        assert!(select(&file, None, "f", "V").unwrap_err().to_string().contains("both active"));
        assert!(select(&file, Some("three"), "f", "V").unwrap_err().to_string().contains("no such profile"));
    }

    #[test]
    fn default_stands_in() {
        let file = "[default]\ntoken_id = 'd'\n[other]\ntoken_id = 'o'\n".parse().unwrap();
        assert_eq!(select(&file, None, "f", "V").unwrap()["token_id"], "d");
        let file = "[other]\ntoken_id = 'o'\n".parse().unwrap();
        assert!(select(&file, None, "f", "V").unwrap().is_empty());
    }
}
