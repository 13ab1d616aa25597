//! Connections through HTTP and SOCKS proxies, as configured by the user or the environment.
//!
//! The proxy receives a host name and a port. TLS is end to end with the origin, through the proxy. The proxy resolves
//! the name, except for `socks5` and `socks4`, where this host resolves and checks it. The policy can therefore not
//! check the address behind a name that the proxy resolves. It does check origins that are addresses themselves.
//! Addresses of this machine are reached through a proxy only with [`Proxy::Always`].

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::proxy::{SocksV4, SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use super::connect::Io;
use super::failure::{Code, Failure};
use crate::access::policy::Origin;
use crate::access::secret::Secret;

/// The proxy that connections use.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Proxy {
    /// The proxy of `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` (upper or lower case), unless the variable
    /// that the manifest names turns proxies off.
    #[default]
    Environment,
    /// No proxy.
    Off,
    /// This proxy for all connections except those to this machine. The URL begins with `http://`, `https://`,
    /// `socks5://` (names are resolved by this host), `socks5h://` (by the proxy), `socks4://` or `socks4a://`, and may
    /// contain a user and a password.
    To(Secret),
    /// Like [`To`](Proxy::To), but also for connections to this machine. For programs that test a provider by damaging
    /// its connections. A Unix socket is named to the proxy by the host name that the plugin uses for it, with the port
    /// 80; see [`Provider::grants`](crate::Provider::grants). Proxies that take addresses only (`socks4`, `socks5`) are
    /// not used for Unix sockets.
    Always(Secret),
}

/// The rules that select a proxy for an origin.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    rules: Option<Matcher>,
    /// Whether connections to this machine use the proxy too.
    this_machine: bool,
}

impl Proxies {
    /// Creates the rules. `lookup` returns environment variables.
    pub(crate) fn new(setting: &Proxy, lookup: impl Fn(&str) -> Option<String>) -> Result<Proxies, String> {
        let either = |name: &str| {
            let value = |name: &str| lookup(name).filter(|value| !value.is_empty());
            value(name).or_else(|| value(&name.to_ascii_lowercase()))
        };
        let builder = match setting {
            Proxy::Off => return Ok(Proxies::default()),
            Proxy::To(url) | Proxy::Always(url) => Matcher::builder().all(checked("the proxy", url.expose())?),
            Proxy::Environment => {
                let mut builder = Matcher::builder();
                if let Some(url) = either("ALL_PROXY") {
                    builder = builder.all(checked("ALL_PROXY", &url)?);
                }
                if let Some(url) = either("HTTPS_PROXY") {
                    builder = builder.https(checked("HTTPS_PROXY", &url)?);
                }
                if let Some(url) = either("HTTP_PROXY") {
                    builder = builder.http(checked("HTTP_PROXY", &url)?);
                }
                match either("NO_PROXY") {
                    Some(except) => builder.no(except),
                    None => builder,
                }
            }
        };
        Ok(Proxies { rules: Some(builder.build()), this_machine: matches!(setting, Proxy::Always(_)) })
    }

    /// Returns the proxy for an origin, or `None` for a direct connection.
    pub(crate) fn of(&self, origin: &Origin) -> Option<Intercept> {
        if origin.is_this_machine() && !self.this_machine {
            return None;
        }
        self.rules.as_ref()?.intercept(&uri(origin)?)
    }
}

/// Checks that a proxy URL has a known scheme and a host. The message does not quote the URL, which may contain a
/// password.
fn checked(name: &str, url: &str) -> Result<String, String> {
    let scheme = match url.split_once("://") {
        Some((scheme, _)) => scheme.to_ascii_lowercase(),
        // A URL without a scheme means `http`, as in curl and the official clients.
        None => "http".into(),
    };
    let known = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
    let parsed: Result<Uri, _> = url.trim().parse();
    if !known.contains(&scheme.as_str()) || parsed.is_ok_and(|uri| uri.host().is_none()) {
        return Err(format!("{name} is not a proxy URL: it must begin with {} and have a host", known.join("://, ")));
    }
    Ok(url.trim().to_owned())
}

/// Returns the origin of the proxy itself. It is secure if the connection to the proxy uses TLS.
pub(crate) fn origin(proxy: &Intercept) -> Result<Origin, Failure> {
    let uri = proxy.uri();
    let scheme = uri.scheme_str().unwrap_or("http");
    let standard = match scheme {
        "https" => 443,
        "http" => 80,
        _ => 1080,
    };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(Failure::new(Code::Refused, "the proxy's URL has no host"));
    }
    Ok(Origin { secure: scheme == "https", host: host.to_owned(), port: uri.port_u16().unwrap_or(standard) })
}

/// Returns whether this host has to resolve names, because the proxy accepts only addresses.
pub(crate) fn resolves_here(proxy: &Intercept) -> bool {
    matches!(proxy.uri().scheme_str(), Some("socks4" | "socks5"))
}

/// Asks the proxy at the other end of `stream` to connect to `target`, or to this address of it.
pub(crate) async fn through(
    proxy: &Intercept,
    stream: Box<dyn Io>,
    target: &Origin,
    address: Option<SocketAddr>,
) -> Result<Box<dyn Io>, Failure> {
    let shown = proxy.uri().authority().map(|authority| authority.as_str()).unwrap_or_default();
    let shown = shown.rsplit('@').next().unwrap_or_default();
    let failed = |why: &dyn std::fmt::Display| {
        // No request is sent before the connection is open, so this code says that nothing was sent.
        Failure::new(Code::Unroutable, format!("the proxy {shown} does not connect to {target}: {why}"))
    };
    let target_uri = match address {
        Some(address) => format!("{}://{address}", if target.secure { "https" } else { "http" }).parse().ok(),
        None => uri(target),
    };
    let target_uri = target_uri.ok_or_else(|| failed(&"its address is not a valid URL"))?;
    let given = Given(Some(TokioIo::new(stream)));
    let nowhere = Uri::from_static("http://proxy");
    let scheme = proxy.uri().scheme_str().unwrap_or("http");
    let stream = match scheme {
        "socks5" | "socks5h" => {
            let mut socks = SocksV5::new(nowhere, given);
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            socks.call(target_uri).await.map_err(|error| failed(&error))?
        }
        "socks4" | "socks4a" => SocksV4::new(nowhere, given).call(target_uri).await.map_err(|error| failed(&error))?,
        _ => {
            let mut tunnel = Tunnel::new(nowhere, given);
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            tunnel.call(target_uri).await.map_err(|error| failed(&error))?
        }
    };
    Ok(stream.into_inner())
}

fn uri(origin: &Origin) -> Option<Uri> {
    let host = if origin.host.contains(':') { format!("[{}]", origin.host) } else { origin.host.clone() };
    format!("{}://{host}:{}", if origin.secure { "https" } else { "http" }, origin.port).parse().ok()
}

/// Passes an existing connection to code that expects a connector.
struct Given(Option<TokioIo<Box<dyn Io>>>);

impl Service<Uri> for Given {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Box<dyn Io>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::Error::other("the stream was taken already")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(setting: &Proxy, variables: &[(&str, &str)]) -> Result<Proxies, String> {
        Proxies::new(setting, |name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn of(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.of(&Origin::parse(url).unwrap()).map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn the_environment_is_read_in_either_case() {
        let rules = proxies(&Proxy::Environment, &[("https_proxy", "http://p:1"), ("NO_PROXY", "no.org,10.0.0.0/8")]);
        let rules = rules.unwrap();
        assert_eq!(of(&rules, "https://api.modal.com").as_deref(), Some("http://p:1/"));
        for direct in ["http://api.modal.com", "https://a.no.org", "https://10.1.2.3"] {
            assert_eq!(of(&rules, direct), None, "{direct}");
        }
        let rules = proxies(&Proxy::Environment, &[("ALL_PROXY", "socks5h://u:p@s:2")]).unwrap();
        assert!(of(&rules, "http://anything").is_some());
        assert_eq!(of(&proxies(&Proxy::Off, &[("ALL_PROXY", "http://p")]).unwrap(), "https://x.org"), None);
    }

    #[test]
    fn this_machine_is_never_behind_a_proxy() {
        let rules = proxies(&Proxy::To(Secret::new("http://p:1")), &[]).unwrap();
        for local in ["http://127.0.0.1:8000", "https://localhost", "http://[::1]:1", "http://x.localhost"] {
            assert_eq!(of(&rules, local), None, "{local}");
        }
        assert!(of(&rules, "https://10.0.0.1").is_some());
        let rules = proxies(&Proxy::Always(Secret::new("http://p:1")), &[]).unwrap();
        assert!(of(&rules, "http://127.0.0.1:8000").is_some() && of(&rules, "https://localhost").is_some());
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_being_quoted() {
        for url in ["ftp://user:secret@host", "gopher://secret"] {
            let why = proxies(&Proxy::Environment, &[("HTTPS_PROXY", url)]).unwrap_err();
            assert!(why.contains("HTTPS_PROXY") && !why.contains("secret"), "{why}");
        }
    }
}
