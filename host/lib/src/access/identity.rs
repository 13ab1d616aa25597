//! The certificates of a plugin's origins: the client certificate that the host shows to a service, and the authorities
//! that it trusts there. They are read from files that the manifest names, and used for that origin only.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::access::profile::{self, Lookup};
use crate::error::{Error, Kind, Result};
use crate::plugin::origin::{FileWish, TlsWish};

/// The certificates for the TLS connections to one origin.
#[derive(Default)]
pub(crate) struct Identity {
    /// The client certificate, with those that lead to its authority, and its key.
    pub(crate) client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// The trusted authorities, instead of the usual ones.
    pub(crate) authorities: Option<Vec<CertificateDer<'static>>>,
}

impl Identity {
    /// Reads the files. Returns `None` if none of them is set.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`] for a file that cannot be read or does not contain what it should, and for a certificate without
    /// a key or a key without a certificate. The text does not quote the files.
    pub(crate) fn read(wish: &TlsWish, env: Lookup<'_>, what: &str) -> Result<Option<Identity>> {
        let failed = |file: &Found<'_>, why: String| {
            Error::new(Kind::Config, what, format!("the file {}: {why}", file.path.display()))
                .with_hint(format!("correct {}", file.variable))
        };
        let certificates = |file: &Found<'_>| -> Result<Vec<CertificateDer<'static>>> {
            let list: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file.text.as_bytes()).collect();
            list.ok()
                .filter(|list| !list.is_empty())
                .ok_or_else(|| failed(file, "it contains no certificate in PEM form".into()))
        };
        let found = match authorities_alone(wish, env) {
            true => (None, None),
            false => (Found::of(wish.certificate.as_ref(), env, what)?, Found::of(wish.key.as_ref(), env, what)?),
        };
        let client = match &found {
            (Some(certificate), Some(key)) => {
                let secret = PrivateKeyDer::from_pem_slice(key.text.as_bytes())
                    .map_err(|_| failed(key, "it contains no private key in PEM form".into()))?;
                Some((certificates(certificate)?, secret))
            }
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                let missing = if found.0.is_some() { &wish.key } else { &wish.certificate };
                let variable = missing.as_ref().map_or("", |wish| &wish.env);
                let why = format!("{} is set, and {variable} is not", one.variable);
                return Err(Error::new(Kind::Config, what, why).with_hint("set both, or neither"));
            }
        };
        let authorities = Found::of(wish.authorities.as_ref(), env, what)?.as_ref().map(certificates).transpose()?;
        Ok((client.is_some() || authorities.is_some()).then_some(Identity { client, authorities }))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authorities = self.authorities.as_ref().map(Vec::len);
        f.debug_struct("Identity").field("client", &self.client.is_some()).field("authorities", &authorities).finish()
    }
}

/// Returns whether the user named a directory that contains the authorities, and neither a certificate nor a key. Such
/// a directory is for services that require no client certificate.
fn authorities_alone(wish: &TlsWish, env: Lookup<'_>) -> bool {
    let exists = |wish: &Option<FileWish>| {
        let wish = wish.as_ref()?;
        let directory = env(&wish.env).filter(|path| !path.is_empty())?;
        Some(Path::new(&directory).join(wish.file.as_ref()?).exists())
    };
    [&wish.certificate, &wish.key, &wish.authorities].map(exists) == [Some(false), Some(false), Some(true)]
}

/// A file that was read.
struct Found<'a> {
    variable: &'a str,
    path: PathBuf,
    text: String,
}

impl<'a> Found<'a> {
    /// Reads the file. Returns `None` if the variable is not set and there is no file at the default path.
    fn of(wish: Option<&'a FileWish>, env: Lookup<'_>, what: &str) -> Result<Option<Found<'a>>> {
        let Some(wish) = wish else { return Ok(None) };
        let set = env(&wish.env).filter(|path| !path.is_empty());
        let path = match (&set, &wish.default) {
            (Some(path), _) => match &wish.file {
                Some(file) => Path::new(path).join(file),
                None => PathBuf::from(path),
            },
            (None, Some(default)) => profile::expanded(default, env),
            (None, None) => return Ok(None),
        };
        match profile::text(&path) {
            Ok(text) => Ok(Some(Found { variable: &wish.env, path, text })),
            Err(error) if set.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let why = format!("the file {}: {error}", path.display());
                Err(Error::new(Kind::Config, what, why).with_hint(format!("correct {}", wish.env)))
            }
        }
    }
}
