//! Reads the addresses of an origin of the manifest, from a variable, a setting or the manifest itself: URLs, Unix
//! sockets, and addresses of the form `tcp://host:port`, which say nothing about TLS.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::access::policy::{Origin, without_user};
use crate::plugin::origin::{OriginWish, TcpWish};

/// The host of an address of the form `tcp://:port`.
const THIS_MACHINE: &str = "localhost";

/// The origins of one wish.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) origins: Vec<Origin>,
    /// The Unix socket behind the only origin.
    pub(crate) socket: Option<PathBuf>,
    /// The address that the component sees.
    pub(crate) shown: String,
}

/// Why an address is not usable, and what to do about it. Both are texts for users.
#[derive(Debug)]
pub(crate) struct Unusable {
    pub(crate) why: String,
    pub(crate) hint: String,
}

impl Places {
    /// Reads the value of a variable, a setting or a default. `tls` says whether addresses of the form `tcp://` use
    /// TLS.
    pub(crate) fn read(urls: &str, wish: &OriginWish, tls: bool) -> Result<Places, Unusable> {
        check_scheme(urls, wish)?;
        let variable = wish.url.env.as_deref().unwrap_or("the plugin's manifest");
        let unusable = |why| Unusable { why, hint: format!("correct {variable}") };
        if let Some(read) = Origin::socket(urls, wish.authority.as_deref()) {
            let (origin, path) = read.map_err(unusable)?;
            let shown = origin.to_string();
            return Ok(Places { origins: vec![origin], socket: Some(path), shown });
        }
        let urls = match wish.url.tcp {
            Some(ports) => {
                Cow::Owned(urls.split(',').map(|url| http_url(url, ports, tls)).collect::<Vec<_>>().join(","))
            }
            None => Cow::Borrowed(urls),
        };
        // The official clients allow a list of alternatives.
        let origins = Origin::list(&urls).map_err(unusable)?;
        if let (true, Some(switch)) = (tls && origins.iter().any(|origin| !origin.secure), wish.switch()) {
            return Err(Unusable {
                why: format!("{:?} is plain http, and {switch} turns TLS on", without_user(&urls)),
                hint: format!("write https:// or tcp:// in {variable}, or unset {switch}"),
            });
        }
        let shown = address(&urls, &origins);
        Ok(Places { origins, socket: None, shown })
    }

    /// Returns whether there are TLS connections to the origins.
    pub(crate) fn is_secure(&self) -> bool {
        self.origins.iter().any(|origin| origin.secure)
    }
}

/// Returns whether one of the addresses says nothing about TLS.
pub(crate) fn is_tcp(urls: &str, wish: &OriginWish) -> bool {
    wish.url.tcp.is_some() && urls.split(',').any(|url| tcp_rest(url).is_some())
}

/// Returns what follows `tcp://`. Like Docker's client, takes an address without a scheme for one with `tcp://`.
fn tcp_rest(url: &str) -> Option<&str> {
    let url = url.trim();
    if url.contains("://") { url.strip_prefix("tcp://") } else { Some(url) }
}

/// Converts an address of the form `tcp://host:port` to a URL. Does not change others.
fn http_url(url: &str, ports: TcpWish, tls: bool) -> Cow<'_, str> {
    let Some(rest) = tcp_rest(url) else { return Cow::Borrowed(url) };
    let (scheme, usual) = if tls { ("https", ports.https) } else { ("http", ports.http) };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // The colons of an IPv6 address are in brackets.
    let end_of_host = authority.rfind(':').filter(|colon| authority.rfind(']').is_none_or(|bracket| bracket < *colon));
    let (host, port) = authority.split_at(end_of_host.unwrap_or(authority.len()));
    let host = if host.is_empty() { THIS_MACHINE } else { host };
    Cow::Owned(match port {
        "" => format!("{scheme}://{host}:{usual}{path}"),
        port => format!("{scheme}://{host}{port}{path}"),
    })
}

/// Refuses schemes that other programs accept in the same variable.
fn check_scheme(urls: &str, wish: &OriginWish) -> Result<(), Unusable> {
    let Some((scheme, _)) = urls.trim().split_once("://") else { return Ok(()) };
    let tcp = wish.url.tcp.is_some();
    if matches!(scheme, "http" | "https" | "unix") || tcp && scheme == "tcp" {
        return Ok(());
    }
    let forms = if tcp { "unix:///path, tcp://host:port or https://host:port" } else { "https://host or unix:///path" };
    let set = match &wish.url.env {
        Some(variable) => format!("set {variable} to {forms}"),
        None => format!("write {forms} in the plugin's manifest"),
    };
    let quoted = without_user(urls);
    let (why, hint) = match scheme {
        "ssh" => (
            format!("{quoted:?} is reached through SSH, which this host does not use"),
            format!(
                "forward the socket with `ssh -N -L /tmp/forwarded.sock:/path/of/the.sock user@host`, and use \
                 unix:///tmp/forwarded.sock{}",
                wish.url.env.as_ref().map_or_else(String::new, |variable| format!(" in {variable}"))
            ),
        ),
        "npipe" => (format!("{quoted:?} is a named pipe of Windows, which this host does not use"), set),
        "fd" => (format!("{quoted:?} is an address for a server and not for its clients"), set),
        _ => (format!("{quoted:?} has the scheme {scheme:?}, which this host does not use"), set),
    };
    Err(Unusable { why, hint })
}

/// Returns the address that the component sees for `urls`. A path is part of the address. User info, a query or a
/// fragment may be meant for other programs, so a URL with one of them is reduced to its origin.
fn address(urls: &str, origins: &[Origin]) -> String {
    if urls.contains(['@', '?', '#']) {
        return origins.iter().map(Origin::to_string).collect::<Vec<_>>().join(",");
    }
    urls.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::manifest::Manifest;

    fn wish(url: &str, tls: &str) -> OriginWish {
        let text = format!(
            "manifest = 1\nname = 'x'\ninterface = 'y'\n[[origin]]\nname = 'engine'\nurl = {{ {url} }}\n\
             authority = 'engine.localhost'\n{tls}"
        );
        Manifest::parse(&text).unwrap().origin.remove(0)
    }

    fn engine() -> OriginWish {
        wish("env = 'ENGINE', tcp = { http = 2375, https = 2376 }", "tls.on = { env = 'VERIFY' }")
    }

    #[test]
    fn tcp_means_http_or_https() {
        for (url, tls, shown, origin) in [
            ("tcp://10.0.0.5", false, "http://10.0.0.5:2375", "http://10.0.0.5:2375"),
            ("tcp://10.0.0.5", true, "https://10.0.0.5:2376", "https://10.0.0.5:2376"),
            ("tcp://host:443", true, "https://host:443", "https://host"),
            (" tcp://Host:7/base ", false, "http://Host:7/base", "http://host:7"),
            ("tcp://[::1]", true, "https://[::1]:2376", "https://[::1]:2376"),
            ("tcp://[::1]:99", false, "http://[::1]:99", "http://[::1]:99"),
            ("tcp://:2375", false, "http://localhost:2375", "http://localhost:2375"),
            ("tcp://", true, "https://localhost:2376", "https://localhost:2376"),
            ("host:2375", false, "http://host:2375", "http://host:2375"),
            ("https://host:2376", false, "https://host:2376", "https://host:2376"),
            ("http://host:2375", false, "http://host:2375", "http://host:2375"),
            ("unix:///run/user/1000/docker.sock", true, "http://engine.localhost", "http://engine.localhost"),
        ] {
            let places = Places::read(url, &engine(), tls).unwrap();
            assert_eq!((places.shown.as_str(), places.origins[0].to_string().as_str()), (shown, origin), "{url}");
            assert_eq!(places.is_secure(), origin.starts_with("https"), "{url}");
        }
        assert!(is_tcp("tcp://host", &engine()) && is_tcp("host:1", &engine()) && !is_tcp("unix:///x", &engine()));
        // Without ports of its own, an origin has no addresses of this form.
        let plain = wish("env = 'URL'", "");
        assert!(!is_tcp("tcp://host", &plain) && Places::read("tcp://host:1", &plain, false).is_err());
        for url in ["tcp://user@host:1", "tcp://host:x", "tcp://host:", "tcp://a:1:2", "tcp://host:70000"] {
            assert!(Places::read(url, &engine(), false).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_not_reached_is_refused_with_advice() {
        for (url, why, hint) in [
            ("ssh://me:hush@host", "\"ssh://…@host\" is reached through SSH", "ssh -N -L"),
            ("npipe:////./pipe/docker_engine", "named pipe of Windows", "set ENGINE to unix:///path, tcp://host:port"),
            ("fd://", "for a server", "set ENGINE to"),
            ("ftp://host", "scheme \"ftp\"", "set ENGINE to"),
            ("unix://relative", "unix:///path", "correct ENGINE"),
            ("tcp://host:x", "http://host:port", "correct ENGINE"),
        ] {
            let error = Places::read(url, &engine(), false).unwrap_err();
            assert!(error.why.contains(why) && error.hint.contains(hint), "{url}: {error:?}");
            assert!(!error.why.contains("hush") && !error.hint.contains("hush"), "{error:?}");
        }
    }

    /// What the user wanted encrypted is not sent in the clear.
    #[test]
    fn http_with_tls_turned_on_is_refused() {
        let error = Places::read("http://host:2375", &engine(), true).unwrap_err();
        assert!(error.why.contains("VERIFY turns TLS on") && error.hint.contains("unset VERIFY"), "{error:?}");
        assert!(Places::read("https://host:2376", &engine(), true).is_ok());
    }
}
