//! The image registry: its configuration, and the image that it has from the start.

use std::{fs, io, net::TcpStream, path::Path};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    error::Error,
    http,
    image::{self, IMAGES},
};

/// The port on which the registry listens in its own namespace.
pub(crate) const PORT: u16 = 5000;

/// The user and the password of a registry with a login.
pub const USER: (&str, &str) = ("agent", "secret");

/// The repository that a registry has from the start. Its tag is `latest`.
pub const REPOSITORY: &str = "busybox";

/// The line of the password file for [`USER`], and the same as a header of a request.
const PASSWORD: &str = "agent:$2y$05$M6rTOhVTcuu91OQTH85kNOwUufw24IToAR2Rh0swbmROKz2zwyyY.\n";
const AUTHORIZATION: (&str, &str) = ("Authorization", "Basic YWdlbnQ6c2VjcmV0");

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Writes the configuration of a registry. With `login`, each request needs [`USER`].
///
/// # Errors
///
/// Fails if a file cannot be written.
pub(crate) fn configure(folder: &Path, login: bool) -> io::Result<()> {
    let mut config = json!({
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": folder.join("data")}, "delete": {"enabled": true}},
        "http": {"addr": format!("127.0.0.1:{PORT}"), "relativeurls": true},
    });
    if login {
        let file = folder.join("passwords");
        fs::write(&file, PASSWORD)?;
        config["auth"] = json!({"htpasswd": {"realm": "engines", "path": file}});
    }
    fs::write(folder.join("registry.json"), config.to_string())
}

/// Pushes [`REPOSITORY`] to the registry at a port of 127.0.0.1.
///
/// # Errors
///
/// Fails if the registry refuses it, or a program of the image is missing.
pub(crate) fn fill(port: u16, packages: &Path) -> Result<(), Error> {
    let layer = image::archive(IMAGES[0], packages)?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Env": [image::CHANGES[0].trim_start_matches("ENV ")], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "history": [{"created_by": "import"}],
    });
    let config = config.to_string().into_bytes();
    let describe = |kind: &str, bytes: &[u8]| -> Value {
        json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": describe(CONFIG_TYPE, &config),
        "layers": [describe(LAYER_TYPE, &layer)],
    });
    for blob in [&layer, &config] {
        let begun = send(port, "POST", &format!("/v2/{REPOSITORY}/blobs/uploads/"), "application/octet-stream", &[])?;
        let place = begun.header("Location").ok_or_else(|| io::Error::other("the upload has no location"))?;
        let mark = if place.contains('?') { '&' } else { '?' };
        let target = format!("{place}{mark}digest={}", digest(blob));
        send(port, "PUT", &target, "application/octet-stream", blob)?;
    }
    let target = format!("/v2/{REPOSITORY}/manifests/latest");
    send(port, "PUT", &target, MANIFEST_TYPE, manifest.to_string().as_bytes())?;
    Ok(())
}

fn send(port: u16, method: &str, target: &str, kind: &str, body: &[u8]) -> Result<http::Answer, Error> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    let answer = http::request(stream, method, target, &[AUTHORIZATION, ("Content-Type", kind)], body)?;
    if answer.status >= 300 {
        let what = format!("{method} {target}");
        return Err(Error::Refused { what, status: answer.status, text: answer.text() });
    }
    Ok(answer)
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
