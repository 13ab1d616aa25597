//! Certificates for an engine with TLS, and the options of dockerd that use them.

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::error::Error;

/// The port on which dockerd listens with TLS in its own namespace.
pub(crate) const PORT: u16 = 2376;

/// The folder for clients below the folder of the engine, with the names that `DOCKER_CERT_PATH` expects.
pub(crate) const CLIENT: &str = "client";

/// Writes a certificate authority and certificates of it for the server (127.0.0.1) and a client. Returns the options
/// of dockerd.
///
/// # Errors
///
/// Fails if a file cannot be written.
pub(crate) fn prepare(folder: &Path) -> Result<Vec<String>, Error> {
    let mut params = named("engines test authority")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let authority = pem("CERTIFICATE", params.self_signed(&key)?.der());
    let issuer = Issuer::new(params, key);
    for (name, purpose) in
        [("server", ExtendedKeyUsagePurpose::ServerAuth), (CLIENT, ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let mut params = named(name)?;
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        let files = folder.join(name);
        fs::create_dir(&files)?;
        fs::write(files.join("ca.pem"), &authority)?;
        fs::write(files.join("cert.pem"), pem("CERTIFICATE", certificate.der()))?;
        fs::write(files.join("key.pem"), pem("PRIVATE KEY", &key.serialize_der()))?;
    }
    let file = |name: &str| folder.join("server").join(name).display().to_string();
    Ok(vec![
        format!("--host=tcp://127.0.0.1:{PORT}"),
        "--tlsverify".to_owned(),
        format!("--tlscacert={}", file("ca.pem")),
        format!("--tlscert={}", file("cert.pem")),
        format!("--tlskey={}", file("key.pem")),
    ])
}

fn named(name: &str) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// Writes an object in the text form that dockerd reads. `rcgen` does so with a feature that would compile it again for
/// the tests.
fn pem(label: &str, bytes: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(bytes);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
