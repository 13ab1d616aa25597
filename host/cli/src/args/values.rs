//! Values of options: times, sizes, ports, mounts and pairs.

use std::path::PathBuf;

use clap::builder::TypedValueParser;
use sandbox_host::types::{BucketMount, PortKind, VolumeMount};

pub(super) fn ports(text: &str) -> Result<(u16, u16), String> {
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    match (local.parse(), remote.parse()) {
        (Ok(local), Ok(remote)) if remote != 0 => Ok((local, remote)),
        _ => Err("expected REMOTE or LOCAL:REMOTE, with port numbers up to 65535".into()),
    }
}

/// An accelerator: its model, and how many.
pub(super) fn gpu(text: &str) -> Result<(String, u32), String> {
    let (model, count) = text.split_once(':').unwrap_or((text, "1"));
    match count.parse() {
        Ok(count) if count > 0 && !model.is_empty() => Ok((model.to_owned(), count)),
        _ => Err("expected MODEL or MODEL:COUNT, with a count of at least 1".into()),
    }
}

pub(super) fn port(text: &str) -> Result<(PortKind, u16), String> {
    let (number, kind) = text.split_once('/').unwrap_or((text, "tls"));
    let kind = match kind {
        "tls" => PortKind::Tls,
        "h2" => PortKind::H2,
        "tcp" => PortKind::Tcp,
        _ => return Err(format!("unknown kind of port {kind:?}; use tls, h2 or tcp")),
    };
    match number.parse() {
        Ok(number) if number != 0 => Ok((kind, number)),
        _ => Err("expected a port number from 1 to 65535".into()),
    }
}

/// Name, path, and options as name and value.
type Mounted<'a> = (&'a str, &'a str, Vec<(&'a str, Option<&'a str>)>);

/// `NAME:PATH:OPTION,…` in its parts.
fn mounted(text: &str) -> Result<Mounted<'_>, String> {
    let mut parts = text.splitn(3, ':');
    let (Some(name), Some(path)) = (parts.next().filter(|name| !name.is_empty()), parts.next()) else {
        return Err("expected NAME:/path or NAME:/path:OPTION,…".into());
    };
    let options = parts.next().into_iter().flat_map(|options| options.split(','));
    let options = options.map(|option| match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    });
    Ok((name, path, options.collect()))
}

pub(super) fn volume(text: &str) -> Result<VolumeMount, String> {
    let (volume, path, options) = mounted(text)?;
    let (volume, path) = (volume.to_owned(), path.to_owned());
    let mut mount = VolumeMount { volume, path, read_only: false, sub_path: None, create: false };
    for option in options {
        match option {
            ("ro", None) => mount.read_only = true,
            ("create", None) => mount.create = true,
            ("sub", Some(directory)) => mount.sub_path = Some(directory.to_owned()),
            (name, _) => return Err(format!("unknown volume option {name:?}; use ro, create or sub=DIR")),
        }
    }
    Ok(mount)
}

pub(super) fn bucket(text: &str) -> Result<BucketMount, String> {
    let (bucket, path, options) = mounted(text)?;
    let mut mount = BucketMount::new(bucket, path);
    for option in options {
        match option {
            ("ro", None) => mount.read_only = true,
            ("prefix", Some(prefix)) => mount.prefix = Some(prefix.to_owned()),
            ("secret", Some(secret)) => mount.secret = Some(secret.to_owned()),
            ("endpoint", Some(url)) => mount.endpoint = Some(url.to_owned()),
            (name, None) => mount.extra.push((name.to_owned(), "true".to_owned())),
            (name, Some(value)) => mount.extra.push((name.to_owned(), serde_json::json!(value).to_string())),
        }
    }
    Ok(mount)
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected K=V".into()),
    }
}

pub(super) fn env_pair(text: &str) -> Result<(String, String), String> {
    if text.contains('=') {
        return pair(text);
    }
    match std::env::var(text) {
        Ok(value) if !text.is_empty() => Ok((text.to_owned(), value)),
        _ => Err(format!("the variable {text} is not set on this machine; write {text}=VALUE")),
    }
}

/// A path, or nothing, as which an empty environment variable counts.
pub(super) fn path_or_nothing() -> impl TypedValueParser<Value = PathBuf> {
    clap::builder::OsStringValueParser::new().map(PathBuf::from)
}

/// A span of time: a number of seconds, or one with a unit.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let (number, factor) = match text.char_indices().find(|(_, c)| c.is_ascii_alphabetic()) {
        None => (text, 1.0),
        Some((at, _)) => match &text[at..] {
            "ms" => (&text[..at], 0.001),
            "s" => (&text[..at], 1.0),
            "m" | "min" => (&text[..at], 60.0),
            "h" => (&text[..at], 3600.0),
            "d" => (&text[..at], 86400.0),
            unit => return Err(format!("unknown unit of time {unit:?}; use ms, s, m, h or d")),
        },
    };
    match number.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 && value * factor < 1e9 => {
            Ok(std::time::Duration::from_secs_f64(value * factor))
        }
        _ => Err("expected a positive time such as 90s, 10m or 2h".into()),
    }
}

/// A size in MiB: a number of MiB, or one with a unit.
pub(super) fn mebibytes(text: &str) -> Result<u32, String> {
    let (number, factor) = match text.char_indices().find(|(_, c)| c.is_ascii_alphabetic()) {
        None => (text, 1.0),
        Some((at, _)) => match text[at..].to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
            "m" => (&text[..at], 1.0),
            "g" => (&text[..at], 1024.0),
            "t" => (&text[..at], 1024.0 * 1024.0),
            _ => return Err("expected a positive size such as 512M or 4G".into()),
        },
    };
    match number.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 && value * factor <= f64::from(u32::MAX) => {
            Ok((value * factor).ceil() as u32)
        }
        _ => Err("expected a positive size such as 512M or 4G".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        assert_eq!(duration("1.5m").unwrap().as_secs(), 90);
        assert_eq!(duration("250ms").unwrap().as_millis(), 250);
        assert_eq!(duration("7").unwrap().as_secs(), 7);
        assert!(duration("0").is_err() && duration("5y").is_err() && duration("-1s").is_err());
        assert_eq!(mebibytes("4G").unwrap(), 4096);
        assert_eq!(mebibytes("512").unwrap(), 512);
        assert_eq!(mebibytes("1GiB").unwrap(), 1024);
        assert!(mebibytes("4K").is_err());
    }

    #[test]
    fn ports_and_mounts() {
        assert_eq!(port("80").unwrap(), (PortKind::Tls, 80));
        assert_eq!(port("53/tcp").unwrap(), (PortKind::Tcp, 53));
        assert!(port("0").is_err() && port("80/udp").is_err() && port("x").is_err());
        let mount = volume("data:/data:ro,create,sub=a/b").unwrap();
        assert_eq!(
            (mount.volume.as_str(), mount.path.as_str(), mount.sub_path.as_deref()),
            ("data", "/data", Some("a/b"))
        );
        assert!(mount.read_only && mount.create);
        assert!(volume("data").is_err() && volume(":/data").is_err() && volume("data:/data:rw").is_err());
        let mount = bucket("b:/b:ro,requester_pays,endpoint=https://s3.example.org:9000/x").unwrap();
        assert_eq!(mount.endpoint.as_deref(), Some("https://s3.example.org:9000/x"));
        assert_eq!(mount.extra, [("requester_pays".to_owned(), "true".to_owned())]);
        assert_eq!(gpu("A100:2").unwrap(), ("A100".to_owned(), 2));
        assert!(gpu("A100:x").is_err() && gpu(":1").is_err() && gpu("A100:0").is_err());
    }
}
