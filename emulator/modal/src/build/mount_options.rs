//! Parses the values of `RUN --mount`. `run_mounts` carries them out.

use crate::model::build_caches::Sharing;

/// A mount for the time of one command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// Its kind.
    pub kind: Kind,
    /// A stage or image whose files are mounted; `None` for the context.
    pub from: Option<String>,
    /// Path in the context, stage or image.
    pub source: String,
    /// Path in the container; may be relative to the working directory.
    pub target: Option<String>,
    /// Whether the mount is read-only.
    pub read_only: bool,
    /// Id of the cache or the secret.
    pub id: Option<String>,
    /// What happens if two commands use the cache at the same time.
    pub sharing: Sharing,
    /// Whether the command fails if the secret is not given.
    pub required: bool,
    /// Capacity in bytes.
    pub size: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// User id of the owner.
    pub uid: u32,
    /// Group id of the owner.
    pub gid: u32,
    /// Name of the environment variable that gets the secret.
    pub env: Option<String>,
}

/// Kinds of mounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Files of the context, a stage or an image. Writes to it are discarded.
    #[default]
    Bind,
    /// A directory that persists between commands and builds.
    Cache,
    /// An empty directory.
    Tmpfs,
    /// A file that contains a secret.
    Secret,
}

/// A function that expands variables.
pub type Expand<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Checks a value as far as possible before variables have values.
///
/// # Errors
///
/// Returns a text that says what is wrong.
pub fn check(text: &str) -> Result<(), String> {
    read(text, None).map(drop)
}

/// Parses a value, and expands its variables with `expand`.
///
/// # Errors
///
/// Returns a text that says what is wrong.
pub fn parse(text: &str, expand: Expand<'_>) -> Result<Mount, String> {
    let mount = read(text, Some(expand))?;
    let lacks = |what: &str| Err(format!("--mount={text}: {what} is missing"));
    match mount.kind {
        Kind::Secret if mount.id.is_none() && mount.target.is_none() => lacks("id"),
        Kind::Secret => Ok(mount),
        _ if mount.target.as_deref().unwrap_or_default().is_empty() => lacks("target"),
        _ => Ok(mount),
    }
}

fn read(text: &str, expand: Option<Expand<'_>>) -> Result<Mount, String> {
    let mut mount = Mount::default();
    let mut writable = None;
    let mut fields = Vec::new();
    for field in fields_of(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.as_str(), None),
        };
        let value = match (value, expand) {
            (Some(value), Some(expand)) => Some(expand(value)?),
            (Some(value), None) => Some(value.to_owned()),
            (None, _) => None,
        };
        fields.push((key.to_ascii_lowercase(), value));
    }
    // The type is needed first, because the meaning of the other keys depends on it.
    for (key, value) in &fields {
        if key == "type" {
            mount.kind = match value.as_deref().unwrap_or_default() {
                "bind" => Kind::Bind,
                "cache" => Kind::Cache,
                "tmpfs" => Kind::Tmpfs,
                "secret" => Kind::Secret,
                "ssh" => return Err("the emulator has no SSH agent for --mount=type=ssh".to_owned()),
                variable if expand.is_none() && variable.contains('$') => return Ok(mount),
                other => return Err(format!("--mount: unknown type: {other}")),
            };
        }
    }
    for (key, value) in fields {
        let given = value.is_some();
        let text = value.unwrap_or_default();
        let later = expand.is_none() && text.contains('$');
        let bad = || format!("--mount: {key}={text} is not valid");
        let needed = || if given { Ok(text.clone()) } else { Err(format!("--mount: {key} needs a value")) };
        let truth = || match text.to_ascii_lowercase().as_str() {
            "" if !given => Ok(true),
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ if later => Ok(false),
            _ => Err(bad()),
        };
        let number = |radix| match u32::from_str_radix(&text, radix) {
            Ok(number) => Ok(number),
            Err(_) if later => Ok(0),
            Err(_) => Err(bad()),
        };
        match (key.as_str(), mount.kind) {
            ("type", _) => {}
            ("from", Kind::Bind | Kind::Cache) => mount.from = Some(needed()?),
            ("source" | "src", Kind::Bind | Kind::Cache) => mount.source = needed()?,
            ("target" | "dst" | "destination", _) => mount.target = Some(needed()?),
            ("readonly" | "ro", Kind::Bind | Kind::Cache) => writable = Some(!truth()?),
            ("readwrite" | "rw", Kind::Bind | Kind::Cache) => writable = Some(truth()?),
            ("id", Kind::Cache | Kind::Secret) => mount.id = Some(needed()?),
            ("sharing", Kind::Cache) => {
                mount.sharing = match text.as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ if later => Sharing::Shared,
                    _ => return Err(bad()),
                }
            }
            ("required", Kind::Secret) => mount.required = truth()?,
            ("size", Kind::Tmpfs) => mount.size = if later { None } else { Some(size(&text).ok_or_else(bad)?) },
            ("mode", Kind::Cache | Kind::Secret) => mount.mode = Some(number(8)?),
            ("uid", Kind::Cache | Kind::Secret) => mount.uid = number(10)?,
            ("gid", Kind::Cache | Kind::Secret) => mount.gid = number(10)?,
            ("env", Kind::Secret) => mount.env = Some(needed()?),
            _ => return Err(format!("--mount: unknown key: {key}")),
        }
    }
    mount.read_only = !writable.unwrap_or(mount.kind != Kind::Bind);
    Ok(mount)
}

/// Splits a value at commas. A field in double quotes may contain commas.
fn fields_of(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            letter => field.push(letter),
        }
    }
    fields.push(field);
    fields
}

/// Parses a size such as `64m`, `1g` or `1024` to bytes.
fn size(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let text = text.trim_end_matches('b').trim_end_matches('i');
    let digits = text.trim_end_matches(['k', 'm', 'g', 't']);
    let unit = match &text[digits.len()..] {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << unit).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Mount, String> {
        parse(text, &|value| Ok(value.replace("$V", "value")))
    }

    #[test]
    fn kinds_and_what_they_leave_out() {
        let bind = of("target=/a,source=$V/x").unwrap();
        assert_eq!((bind.kind, bind.read_only, bind.source.as_str()), (Kind::Bind, true, "value/x"));
        assert!(!of("type=bind,rw,from=x,dst=a").unwrap().read_only);
        assert!(of("type=bind,rw=false,target=a").unwrap().read_only);
        let cache = of("type=cache,target=/c,sharing=locked,uid=5,mode=0700,\"id=a,b\"").unwrap();
        assert_eq!((cache.sharing, cache.uid, cache.mode, cache.read_only), (Sharing::Locked, 5, Some(0o700), false));
        assert_eq!(cache.id.as_deref(), Some("a,b"));
        assert_eq!(of("type=tmpfs,target=/t,size=64m").unwrap().size, Some(64 << 20));
        assert!(of("type=secret,id=x,required").unwrap().required);
        for (text, says) in [
            ("type=bind", "target is missing"),
            ("type=cache,target=", "target is missing"),
            ("type=secret", "id is missing"),
            ("type=volume,target=/x", "unknown type: volume"),
            ("type=tmpfs,target=/x,from=y", "unknown key: from"),
            ("type=cache,target=/x,sharing=never", "sharing=never is not valid"),
            ("type=cache,target=/x,mode=9", "mode=9 is not valid"),
            ("type=tmpfs,target=/x,size=big", "size=big is not valid"),
            ("type=ssh", "no SSH agent"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert_eq!(check("type=$KIND,target=$V,mode=$M"), Ok(()));
        assert_eq!(check("type=cache,target=$V,mode=$M"), Ok(()));
    }
}
