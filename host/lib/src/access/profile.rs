//! Reads settings from the profile file of a provider. `builder` uses them if a variable is not set in the environment,
//! and before the default of the manifest.
//!
//! The rules are those of the provider's official clients (docs/modal-protocol.md, section 1.4). The variable that the
//! manifest names selects a profile. Otherwise the profile with `active = true` is used, or else the one called
//! `default`. Several active profiles and a selected profile that does not exist are errors.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::plugin::manifest::{Profiles, Settings};

/// Looks up environment variables: those of the process, or those of an embedder or a test.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Largest profile file that is read, in bytes. Real ones are small.
const MAX: u64 = 1 << 20;

/// Reads the selected profile. Returns an empty map if there is no file or no profile to select.
pub(crate) fn read(profiles: &Profiles, chosen: Option<&str>, env: Lookup<'_>) -> Result<Settings> {
    let path = path(profiles, env);
    let chosen = chosen.map(str::to_owned).or_else(|| env(&profiles.select).filter(|name| !name.is_empty()));
    let what = || format!("read the profiles in {}", path.display());
    let text = match text(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match chosen {
                None => Ok(Settings::new()),
                Some(name) => Err(Error::new(
                    Kind::Config,
                    format!("use the profile {name:?}"),
                    format!("the file {} does not exist", path.display()),
                )
                .with_hint(format!("create it, or unset {}", profiles.select))),
            };
        }
        Err(error) => return Err(Error::new(Kind::Config, what(), error.to_string())),
    };
    // The message of the parser may quote a line of the file with a credential, so only the line number is reported.
    let file: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        Error::new(Kind::Config, what(), format!("line {line} is not valid TOML"))
    })?;
    select(&file, chosen.as_deref(), &path.display().to_string(), &profiles.select)
}

/// Reads a file that a manifest or a variable names, of at most 1 MiB. The plugin may have chosen the path, so only
/// regular files are read: a pipe could block, and a device could be endless.
pub(super) fn text(path: &Path) -> io::Result<String> {
    let regular = |meta: Metadata| match meta.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is not a regular file")),
    };
    // Checked before opening, because opening a device can have an effect, and again afterwards, because the path may
    // have been replaced.
    let meta = std::fs::metadata(path)?;
    if is_null(&meta) {
        return Ok(String::new());
    }
    regular(meta)?;
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    regular(file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX {
        return Err(io::Error::other("the file is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

/// Returns whether the file is `/dev/null` under any name, which is a common way to specify that there is no file.
fn is_null(meta: &Metadata) -> bool {
    meta.file_type().is_char_device()
        && std::fs::metadata("/dev/null")
            .is_ok_and(|null| null.file_type().is_char_device() && null.rdev() == meta.rdev())
}

/// Returns the path of the profile file.
pub(crate) fn path(profiles: &Profiles, env: Lookup<'_>) -> PathBuf {
    let set = profiles.path.env.as_deref().and_then(env).filter(|path| !path.is_empty());
    expanded(&set.unwrap_or_else(|| profiles.path.default.clone()), env)
}

/// Returns a path of the manifest, in which `~/` is the home directory.
pub(super) fn expanded(path: &str, env: Lookup<'_>) -> PathBuf {
    match path.strip_prefix("~/") {
        Some(rest) => PathBuf::from(env("HOME").unwrap_or_else(|| "/".into())).join(rest),
        None => PathBuf::from(path),
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
                .with_hint(format!("its profiles: {}", names.join(", ")))
        })?),
        None => match (active.next(), active.next()) {
            (Some((first, _)), Some((second, _))) => {
                return Err(Error::new(
                    Kind::Config,
                    format!("choose a profile from {path}"),
                    format!("{first:?} and {second:?} are both active"),
                )
                .with_hint(format!("keep `active = true` in one of them, or set {variable}")));
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

/// Converts a setting to text. Returns `None` for arrays and tables, which belong to other programs.
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
    use super::{MAX, Settings, read, select};
    use crate::error::Result;
    use crate::plugin::manifest::{PathWish, Profiles};

    /// Reads the profiles in this file. Panics if reading does not end within 20 seconds.
    fn from(path: impl AsRef<std::path::Path>) -> Result<Settings> {
        let default = path.as_ref().to_str().unwrap().to_owned();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let profiles = Profiles { path: PathWish { env: None, default }, select: "V".into() };
            sender.send(read(&profiles, None, &|_| None))
        });
        receiver.recv_timeout(std::time::Duration::from_secs(20)).expect("it does not wait")
    }

    #[test]
    fn only_regular_files_of_a_moderate_size_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        std::os::unix::fs::symlink("pipe", at("link")).unwrap();
        for path in [at("pipe"), at("link"), directory.path().to_owned(), "/dev/zero".into()] {
            let error = from(&path).unwrap_err().to_string();
            assert!(error.contains("not a regular file") && error.contains(path.to_str().unwrap()), "{error}");
        }
        std::fs::write(at("file"), "[default]\ntoken_id = 'd'\n").unwrap();
        std::os::unix::fs::symlink("file", at("good")).unwrap();
        assert_eq!(from(at("good")).unwrap()["token_id"], "d");
        // A file of exactly the maximum size is read.
        let comment = |size: u64| format!("{}\n", "#".repeat(size as usize - 1));
        std::fs::write(at("file"), comment(MAX)).unwrap();
        assert!(from(at("file")).unwrap().is_empty());
        std::fs::write(at("file"), comment(MAX + 1)).unwrap();
        assert!(from(at("file")).unwrap_err().to_string().contains("larger than 1 MiB"));
    }

    #[test]
    fn no_file_is_no_profile() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", directory.path().join("null")).unwrap();
        for path in [directory.path().join("missing"), directory.path().join("null"), "/dev/null".into()] {
            assert!(from(&path).unwrap().is_empty(), "{path:?}");
        }
    }

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
