//! Downloads plugins and stores them under names that the user chooses.
//!
//! A name does not identify a plugin, because it can refer to another file later. So trust is granted to digests
//! (`grants.plugins` in a policy file), and downloading a file without a known digest is refused unless its source is a
//! registry.

pub mod registry;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::Uri;

use self::registry::{Digest, Fetcher, Reference};
use crate::output::Failure;

/// The source of a plugin: a URL, or a reference in an OCI registry.
pub enum Source {
    File(Uri),
    Registry(Reference),
}

/// Downloads a component. Returns it with the digest of its manifest if it comes from a registry. Limits its size, and
/// the total time of all requests to `time`.
pub async fn fetch(
    fetcher: &Fetcher,
    what: &str,
    source: &Source,
    progress: impl FnMut(u64, Option<u64>),
    time: Duration,
) -> Result<(Bytes, Option<Digest>)> {
    let fetched = async {
        match source {
            Source::File(uri) => Ok((fetcher.file(what, uri, progress).await?, None)),
            Source::Registry(reference) => {
                let (bytes, manifest) = fetcher.component(what, reference, progress).await?;
                Ok((bytes, Some(manifest)))
            }
        }
    };
    match tokio::time::timeout(time, fetched).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(what, format!("the download takes longer than {time:?}"))
            .hint("download it with another program, and use --plugin FILE")
            .into()),
    }
}

/// Hides the user name and password in a URL, for messages.
pub fn without_user(reference: &str) -> String {
    match url::Url::parse(reference) {
        Ok(mut url) if matches!(url.scheme(), "http" | "https") && !url.username().is_empty() => {
            let _ = url.set_username("***").and_then(|()| url.set_password(None));
            url.into()
        }
        _ => reference.to_owned(),
    }
}

/// Parses a URL or an `oci://` reference. Returns the source, and the digest that the component must have. `digest` is
/// the value of `--digest`. Fails if a URL comes without a digest.
pub fn parse(what: &str, text: &str, digest: Option<&str>) -> Result<(Source, Option<Digest>)> {
    let wanted = |text: &str| {
        Digest::parse(text).ok_or_else(|| {
            Failure::new(what, format!("{text:?} is not a SHA-256 digest")).hint("give 64 hexadecimal digits")
        })
    };
    let mut pin = digest.map(wanted).transpose()?;
    if let Some(reference) = text.strip_prefix("oci://") {
        let reference = Reference::parse(reference).ok_or_else(|| {
            Failure::new(what, "it is not a valid OCI reference")
                .hint("write oci://HOST/NAME:TAG or oci://HOST/NAME@sha256:…")
        })?;
        return Ok((Source::Registry(reference), pin));
    }
    let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
    if !fragment.is_empty() {
        let Some(digest) = fragment.strip_prefix("sha256=") else {
            return Err(Failure::new(what, format!("`#{fragment}` is not a digest")).hint("write #sha256=…").into());
        };
        let digest = wanted(digest)?;
        if pin.as_ref().is_some_and(|pin| *pin != digest) {
            return Err(Failure::new(what, "the digest in the URL and --digest differ").into());
        }
        pin = Some(digest);
    }
    let uri = Uri::try_from(address).ok().filter(|uri| matches!(uri.scheme_str(), Some("https" | "http")));
    let uri = uri.ok_or_else(|| {
        Failure::new(what, "it is not a valid URL").hint("write https://HOST/PATH#sha256=… or oci://HOST/NAME:TAG")
    })?;
    if pin.is_none() {
        return Err(Failure::new(what, "the digest of the file is missing")
            .hint("append #sha256=DIGEST to the URL, or use --digest; the publisher states the digest")
            .into());
    }
    Ok((Source::File(uri), pin))
}

/// Returns the last component of the source's path without `.wasm`, if it is a valid name.
pub fn name_of(source: &Source) -> Option<String> {
    let path = match source {
        Source::File(uri) => uri.path(),
        Source::Registry(reference) => &reference.repository,
    };
    let name = path.rsplit('/').next()?;
    let name = name.strip_suffix(".wasm").unwrap_or(name);
    is_name(Path::new(name)).then(|| name.to_owned())
}

/// Returns whether `name` can be the name of a downloaded plugin. Such a name is never a path.
pub fn is_name(name: &Path) -> bool {
    let Some(name) = name.to_str() else { return false };
    name.len() <= 100
        && !name.ends_with(".wasm")
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Returns the directory of downloaded plugins: `SANDBOX_PLUGIN_DIR`, or a directory below `XDG_DATA_HOME` or `HOME`.
pub fn directory() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("SANDBOX_PLUGIN_DIR")
        .or_else(|| set("XDG_DATA_HOME").map(|data| data.join("sandbox/plugins")))
        .or_else(|| set("HOME").map(|home| home.join(".local/share/sandbox/plugins")))
        .ok_or_else(|| {
            Failure::new("find the directory of plugins", "neither XDG_DATA_HOME nor HOME is set")
                .hint("set SANDBOX_PLUGIN_DIR")
                .into()
        })
}

/// Returns the file of a downloaded plugin. Returns `None` if `name` is not a valid name or no such file exists.
pub fn find(name: &Path) -> Option<PathBuf> {
    let name = is_name(name).then(|| name.to_str()).flatten()?;
    let file = directory().ok()?.join(format!("{name}.wasm"));
    file.is_file().then_some(file)
}

/// Writes a temporary file in the same directory and renames it, so that no reader sees an incomplete file.
pub fn store(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::DirBuilderExt;

    let directory = file.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server stays within all other limits: it sends a byte now and then, for ever.
    #[tokio::test]
    async fn a_pull_that_does_not_end_is_given_up() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let source = Source::File(format!("http://{}/x.wasm", listener.local_addr().unwrap()).parse().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
            loop {
                let _ = stream.write_all(b"x").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let fetcher = Fetcher::new(None).await.unwrap();
        let fetched = tokio::select! {
            fetched = fetch(&fetcher, "pull it", &source, |_, _| {}, Duration::from_millis(300)) => fetched,
            () = server => unreachable!(),
        };
        assert!(fetched.unwrap_err().to_string().contains("longer than 300ms"));
    }

    #[test]
    fn names() {
        for good in ["modal-provider", "a", "a.b_c-1"] {
            assert!(is_name(Path::new(good)), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "./a", "a.wasm", "-a", "ä", "a b"] {
            assert!(!is_name(Path::new(bad)), "{bad}");
        }
        let name = |text: &str| name_of(&Source::File(text.parse().unwrap()));
        assert_eq!(name("https://x.org/a/b.wasm?c=d").as_deref(), Some("b"));
        assert_eq!(name("https://x.org/").as_deref(), None);
    }
}
