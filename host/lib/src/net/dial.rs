//! Single connections for the command line, which downloads plugins before there is a provider. They are made by the
//! connector of the providers, with the same certificate authorities, proxies, name resolution and time limit.

use std::path::PathBuf;

use http::Uri;

use super::connect::{Connector, Io, Offer, Trust};
use super::failure::{Code, Failure};
use super::proxy::{Proxies, Proxy};
use crate::access::policy::{Origin, Reach};
use crate::error::{Error, Kind, Result};

/// Opens connections that belong to no provider, so no policy limits where they lead. Not part of the stable API.
#[derive(Debug)]
pub struct Dialer(Connector);

impl Dialer {
    /// Creates a dialer that uses the proxies of the environment, and trusts the certificate authorities of the machine,
    /// the built-in ones, and those in the PEM file `extra`. The file is read now.
    ///
    /// # Errors
    ///
    /// Fails with [`Kind::Config`] if the file is unusable, or a variable names an unusable proxy.
    pub async fn new(extra: Option<PathBuf>) -> Result<Dialer> {
        let shown = extra.as_ref().map(|path| path.display().to_string());
        let proxies = Proxies::new(&Proxy::Environment, |name| std::env::var(name).ok())
            .map_err(|why| Error::new(Kind::Config, "use the proxies of the environment", why))?;
        let connector = Connector::new(Trust { extra }, proxies);
        if let Some(path) = shown {
            let what = format!("use the certificate authorities in {path}");
            connector.usual_config(Offer::Bytes).await.map_err(|why| Error::new(Kind::Config, what, why))?;
        }
        Ok(Dialer(connector))
    }

    /// Connects to the host of an absolute http or https URI, within 10 seconds. For https, the TLS handshake is
    /// complete; no protocol is negotiated, so the connection is for HTTP/1.1.
    ///
    /// # Errors
    ///
    /// Fails with [`Kind::InvalidArgument`] if the URI has no such scheme or host, with [`Kind::TimedOut`] if there is
    /// no connection in time, and with [`Kind::Unavailable`] if there is none for another reason.
    pub async fn connect(&self, uri: &Uri) -> Result<Box<dyn Io>> {
        let origin = Origin::of(uri)
            .ok_or_else(|| Error::invalid("connect", "the address has no host, or is neither http nor https"))?;
        match self.0.connect(&origin, Reach::Any, Offer::Bytes).await {
            Ok(connected) => Ok(connected.io),
            Err(Failure { code, text }) => {
                let kind = if code == Code::Timeout { Kind::TimedOut } else { Kind::Unavailable };
                Err(Error::new(kind, format!("connect to {origin}"), text))
            }
        }
    }
}
