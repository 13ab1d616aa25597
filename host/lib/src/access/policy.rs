//! The network policy of a provider: the permitted origins and the addresses behind them. Everything else is denied.
//!
//! An origin is permitted for one of two reasons: the manifest names it and the user granted it (*fixed*), or a
//! response of a fixed origin named it, in a field that the manifest names (*learned*). A fixed origin can stand for all
//! host names with one more label, such as `https://*.sandboxes.example.com`, and for a Unix socket. The address to which
//! a name resolves is checked too, and the connection uses exactly the checked address. A name that resolves to this
//! machine or its network is therefore no way around the policy.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use net_classes::Class as AddressClass;

use crate::access::credentials::Additions;
use crate::access::identity::Identity;
use crate::plugin::origin::{CERTIFICATE, LearnWish, is_local_name};

/// Most learned origins per provider. Modal names one per worker. Beyond the limit the least recently used one is
/// removed, and learned again from the next response that names it.
const MAX_LEARNED: usize = 4096;

/// Scheme, host and port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// True for `https`, false for `http`.
    pub secure: bool,
    /// Host name in lower case, or an IP address without brackets. In a granted origin, `*.` before a name stands for one
    /// more label.
    pub host: String,
    /// Port number.
    pub port: u16,
}

impl Origin {
    /// Parses the origin of a URL. Ignores path and query.
    ///
    /// # Errors
    ///
    /// A text for users that names the problem and quotes the URL without user and password.
    pub fn parse(url: &str) -> Result<Origin, String> {
        Origin::read(url).map_err(|why| format!("{:?} {why}", without_user(url)))
    }

    /// Parses a comma-separated list of URLs, which the official clients accept. Their host names may begin with `*.`.
    ///
    /// # Errors
    ///
    /// Those of [`Origin::parse`], and a wildcard without https or for all names of a top-level domain. The whole list is
    /// quoted without user and password, because a comma may be part of a password.
    pub(crate) fn list(urls: &str) -> Result<Vec<Origin>, String> {
        let read = urls.split(',').map(Origin::read_pattern).collect::<Result<_, _>>();
        read.map_err(|why| format!("{:?} {why}", without_user(urls)))
    }

    fn read_pattern(url: &str) -> Result<Origin, String> {
        let Some((scheme, suffix)) = url.trim().split_once("://*.") else { return Origin::read(url) };
        let origin = Origin::read(&format!("{scheme}://{suffix}"))?;
        if !origin.secure || !origin.host.contains('.') || origin.address().is_some() {
            return Err("has a wildcard, which needs https and a domain of at least two labels".into());
        }
        Ok(Origin { host: format!("*.{}", origin.host), ..origin })
    }

    /// Parses the URL of a Unix socket, such as `unix:///var/run/docker.sock`. Returns the origin by which a component
    /// addresses it, and its path. Returns `None` for other URLs.
    ///
    /// # Errors
    ///
    /// A text for users if the path is relative, or if the name of the socket's file cannot be part of a host name and
    /// `authority` is not given.
    pub(crate) fn socket(url: &str, authority: Option<&str>) -> Option<Result<(Origin, PathBuf), String>> {
        let path = url.trim().strip_prefix("unix://")?;
        let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let host = authority.map_or_else(|| format!("{}.localhost", name.to_ascii_lowercase()), str::to_owned);
        if !path.starts_with('/') || name.is_empty() {
            return Some(Err(format!("{url:?} is no URL of the form unix:///path")));
        }
        if !is_local_name(&host) {
            return Some(Err(format!("{url:?} has a file name that cannot be part of a host name")));
        }
        Some(Ok((Origin { secure: false, host, port: 80 }, PathBuf::from(path))))
    }

    /// Returns whether a granted origin includes this one: whether they are equal, or whether this one has a label in
    /// the place of the wildcard.
    pub(crate) fn covers(&self, origin: &Origin) -> bool {
        if (self.secure, self.port) != (origin.secure, origin.port) {
            return false;
        }
        let Some(suffix) = self.host.strip_prefix('*') else { return self.host == origin.host };
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        };
        origin.host.strip_suffix(suffix).is_some_and(label)
    }

    fn read(url: &str) -> Result<Origin, String> {
        let uri: http::Uri = url.trim().parse().map_err(|error| format!("is not a URL: {error}"))?;
        Origin::of(&uri).ok_or_else(|| "is not a URL of the form http://host:port or https://host".into())
    }

    /// Returns the origin of an absolute http or https URI.
    pub(crate) fn of(uri: &http::Uri) -> Option<Origin> {
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        // User information in a URL can hide the host, so such a URL is refused.
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        if host.is_empty() || host.contains('*') {
            return None;
        }
        // `authority.port()` is not used, because it returns `None` for a port that is out of range.
        let port = match authority.as_str().strip_prefix(authority.host())? {
            "" if secure => 443,
            "" => 80,
            rest => rest.strip_prefix(':')?.parse().ok().filter(|port| *port != 0)?,
        };
        Some(Origin { secure, host: host.to_ascii_lowercase(), port })
    }

    /// Returns the host as an IP address, if it is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Returns the authority of a URL: an IPv6 address has brackets, and the default port of the scheme is left out.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// Returns whether the host names this machine. Includes the unspecified address, because connections to it go
    /// here.
    pub(crate) fn is_this_machine(&self) -> bool {
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || self.address().is_some_and(|address| AddressClass::of(address) == AddressClass::Loopback)
    }

    /// Returns whether the host names this machine or is an address that is not public.
    fn is_local(&self) -> bool {
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || self.address().is_some_and(|address| AddressClass::of(address) != AddressClass::Public)
    }
}

/// Removes user and password from a URL that is quoted in a message. Removes everything before the last `@`, because a
/// password may contain any character, including those that end an authority.
pub(super) fn without_user(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before.split_once("://").map(|(scheme, _)| scheme);
            match scheme.filter(|scheme| scheme.chars().all(|c| c.is_ascii_alphabetic())) {
                Some(scheme) => format!("{scheme}://…@{after}"),
                None => format!("…@{after}"),
            }
        }
        None => url.to_owned(),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "https" } else { "http" }, self.authority())
    }
}

/// Returns the name of a class of addresses for messages.
pub(crate) fn class_name(class: AddressClass) -> &'static str {
    match class {
        AddressClass::Public => "a public address",
        AddressClass::Loopback => "an address of this machine",
        AddressClass::Private => "an address of a private network",
        AddressClass::LinkLocal => "a link-local address",
        AddressClass::Metadata => "the address of a cloud's metadata service",
        _ => "a reserved address",
    }
}

/// An origin that the manifest names and the user granted.
#[derive(Clone)]
pub(crate) struct Fixed {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    /// Whether the user set the URL (environment, profile, code), so that it is not the default of the manifest.
    pub(crate) explicit: bool,
    /// The Unix socket that is behind the origin.
    pub(crate) socket: Option<PathBuf>,
    /// The variable in which the user can set the URL.
    pub(crate) variable: Option<String>,
    /// The certificates for TLS connections.
    pub(crate) identity: Option<Arc<Identity>>,
    /// What is added to each request.
    pub(crate) additions: Arc<Additions>,
    /// Rules that find further origins in the responses.
    pub(crate) learn: Arc<[LearnWish]>,
}

impl Fixed {
    /// Returns the addresses that origins named by this service may have; plain http is then permitted too. Returns
    /// `None` for an https service on the internet and for one that the user did not set, which may name only public
    /// https origins. A service may not name origins that are nearer than it is itself: only a service on this machine
    /// may name this machine.
    fn hands_out(&self) -> Option<Reach> {
        // The user has chosen plain http or an address that is not public, for example for an emulator.
        let chosen = self.explicit && (!self.origin.secure || self.origin.is_local());
        chosen.then(|| match self.origin.address().map(AddressClass::of) {
            _ if self.origin.is_this_machine() => Reach::Near,
            Some(AddressClass::Public) => Reach::Public,
            // Includes names with plain http, such as those of containers or of the local network. They are not
            // resolved here.
            _ => Reach::Private,
        })
    }
}

impl Fixed {
    /// Returns what the host adds, for [`Grant::credentials`].
    fn credentials(&self) -> Vec<String> {
        let certificate = self.identity.iter().filter(|identity| identity.client.is_some());
        self.additions.names().into_iter().chain(certificate.map(|_| CERTIFICATE.to_owned())).collect()
    }
}

impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixed")
            .field("name", &self.name)
            .field("origin", &self.origin)
            .field("socket", &self.socket)
            .field("credentials", &self.credentials())
            .finish()
    }
}

/// A granted origin, as listed by [`crate::Provider::grants`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The origin. Its host may begin with `*.`, which stands for one more label.
    pub origin: Origin,
    /// The Unix socket that is behind the origin. The plugin does not see its path.
    pub socket: Option<PathBuf>,
    /// The description of the origin in the manifest.
    pub name: String,
    /// The request path whose response named the origin, or `None` for an origin of the manifest.
    pub learned_from: Option<String>,
    /// What the host adds: names of headers with credentials, names of query parameters with `?` before them, and
    /// `client certificate`.
    pub credentials: Vec<String>,
    /// Whether the host may resolve to an address of this machine or of a private network.
    pub private_addresses: bool,
}

/// Why a request is not sent.
#[derive(Clone, Debug)]
pub(crate) struct Denied(pub(crate) String);

/// The classes of addresses to which an origin's name may resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Public addresses.
    Public,
    /// Also private networks, but not this machine: for origins named by a service on a private network.
    Private,
    /// Also private networks and this machine, for origins named by a service on this machine. Not link-local
    /// addresses, metadata services or reserved ranges, because a service on this machine names other services here and
    /// never the metadata of a cloud.
    Near,
    /// All addresses, for origins that the user named.
    Any,
}

impl Reach {
    pub(crate) fn allows(self, class: AddressClass) -> bool {
        match self {
            Reach::Public => class == AddressClass::Public,
            Reach::Private => matches!(class, AddressClass::Public | AddressClass::Private),
            Reach::Near => {
                matches!(class, AddressClass::Public | AddressClass::Private | AddressClass::Loopback)
            }
            Reach::Any => true,
        }
    }
}

/// The permission to send a request.
#[derive(Clone)]
pub(crate) struct Pass {
    /// What is added to the request. `None` for learned origins.
    pub(crate) additions: Option<Arc<Additions>>,
    pub(crate) learn: Arc<[LearnWish]>,
    /// The permitted addresses of the origin.
    pub(crate) reach: Reach,
    /// The permitted addresses of origins that this one names, with plain http permitted. `None` means public addresses
    /// and https.
    pub(crate) hands_out: Option<Reach>,
}

/// The policy of one provider.
#[derive(Debug)]
pub(crate) struct Policy {
    fixed: Vec<Fixed>,
    learned: Mutex<HashMap<Origin, Learned>>,
    /// Counts uses, to find the least recently used entry.
    clock: AtomicU64,
}

#[derive(Debug)]
struct Learned {
    name: String,
    path: String,
    reach: Reach,
    used: u64,
}

impl Policy {
    pub(crate) fn new(fixed: Vec<Fixed>) -> Policy {
        Policy { fixed, learned: Mutex::default(), clock: AtomicU64::new(0) }
    }

    /// Returns the permission for a request to this origin.
    pub(crate) fn check(&self, origin: &Origin) -> Result<Pass, Denied> {
        if let Some(fixed) = self.granting(origin) {
            if !origin.secure && !fixed.explicit && fixed.socket.is_none() {
                return Err(Denied(format!(
                    "{origin} uses plain http, which is permitted only for URLs that the user set"
                )));
            }
            return Ok(Pass {
                additions: Some(fixed.additions.clone()),
                learn: fixed.learn.clone(),
                reach: if fixed.explicit { Reach::Any } else { Reach::Public },
                hands_out: fixed.hands_out(),
            });
        }
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        match learned.get_mut(origin) {
            Some(entry) => {
                entry.used = now;
                Ok(Pass { additions: None, learn: Arc::new([]), reach: entry.reach, hands_out: None })
            }
            None => Err(Denied(format!("the policy does not permit the plugin to reach {origin}"))),
        }
    }

    /// Adds an origin that a response named. `hands_out` is [`Pass::hands_out`] of the origin that responded.
    pub(crate) fn learn(&self, url: &str, rule: &LearnWish, hands_out: Option<Reach>) {
        let origin = match Origin::parse(url) {
            Ok(origin) => origin,
            Err(why) => return tracing::debug!(%why, path = %rule.path, "no origin learned"),
        };
        let (local, reach) = (hands_out.is_some(), hands_out.unwrap_or(Reach::Public));
        let within = match origin.address() {
            Some(address) => reach.allows(AddressClass::of(address)),
            None => reach >= Reach::Near || !origin.is_this_machine(),
        };
        if !within || !(local || origin.secure) {
            let why = if local { "not a place that this service may name" } else { "not a public https origin" };
            return tracing::warn!(%origin, path = %rule.path, "the service named an origin that is not allowed: {why}");
        }
        if self.granting(&origin).is_some() {
            return;
        }
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let used = self.clock.fetch_add(1, Ordering::Relaxed);
        if learned.len() >= MAX_LEARNED
            && !learned.contains_key(&origin)
            && let Some(oldest) = learned.iter().min_by_key(|(_, entry)| entry.used).map(|(origin, _)| origin.clone())
        {
            learned.remove(&oldest);
        }
        tracing::debug!(%origin, name = %rule.name, "origin learned");
        learned.insert(origin, Learned { name: rule.name.clone(), path: rule.path.clone(), reach, used });
    }

    /// Returns the permitted addresses of origins that the granted origins name. Used for addresses that come from the
    /// plugin and not from a response.
    pub(crate) fn handed_out(&self) -> Reach {
        self.fixed.iter().filter_map(Fixed::hands_out).max().unwrap_or(Reach::Public)
    }

    /// Returns the granted origin of the manifest that includes this one. An equal one goes before a wildcard.
    pub(crate) fn granting(&self, origin: &Origin) -> Option<&Fixed> {
        let equal = self.fixed.iter().find(|fixed| fixed.origin == *origin);
        equal.or_else(|| self.fixed.iter().find(|fixed| fixed.origin.covers(origin)))
    }

    /// Returns the granted origins of the manifest, in its order.
    pub(crate) fn fixed(&self) -> &[Fixed] {
        &self.fixed
    }

    /// Returns all granted and learned origins.
    pub(crate) fn grants(&self) -> Vec<Grant> {
        let fixed = self.fixed.iter().map(|fixed| Grant {
            origin: fixed.origin.clone(),
            socket: fixed.socket.clone(),
            name: fixed.name.clone(),
            learned_from: None,
            credentials: fixed.credentials(),
            private_addresses: fixed.explicit || fixed.socket.is_some(),
        });
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut learned: Vec<_> = learned
            .iter()
            .map(|(origin, entry)| Grant {
                origin: origin.clone(),
                socket: None,
                name: entry.name.clone(),
                learned_from: Some(entry.path.clone()),
                credentials: vec![],
                private_addresses: entry.reach > Reach::Public,
            })
            .collect();
        learned.sort_by(|a, b| a.origin.cmp(&b.origin));
        fixed.chain(learned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(url: &str, explicit: bool) -> Fixed {
        Fixed {
            name: "control plane".into(),
            origin: Origin::parse(url).unwrap(),
            explicit,
            socket: None,
            variable: None,
            identity: None,
            additions: Arc::default(),
            learn: Arc::new([]),
        }
    }

    fn rule() -> LearnWish {
        LearnWish { path: "/a/B".into(), field: vec![1], name: "router".into(), pointer: None }
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let pattern = Origin::list("https://*.Sandboxes.example.com:8443").unwrap().remove(0);
        assert_eq!(pattern.to_string(), "https://*.sandboxes.example.com:8443");
        let policy = Policy::new(vec![Fixed { origin: pattern, ..fixed("https://a", false) }]);
        let check = |url: &str| Origin::parse(url).is_ok_and(|origin| policy.check(&origin).is_ok());
        assert!(check("https://49983-sb_1.sandboxes.example.com:8443"));
        for url in [
            "https://sandboxes.example.com:8443",
            "https://a.b.sandboxes.example.com:8443",
            "https://sb-1.sandboxes.example.com",
            "http://sb-1.sandboxes.example.com:8443",
            "https://sb-1.sandboxes.example.com.evil.net:8443",
            "https://sb-1-sandboxes.example.com:8443",
            "https://.sandboxes.example.com:8443",
            "https://*.sandboxes.example.com:8443",
            "https://sb%2e1.sandboxes.example.com:8443",
        ] {
            assert!(!check(url), "{url}");
        }
        for url in ["http://*.example.com", "https://*.com", "https://*.", "https://*", "https://*.127.0.0.1"] {
            assert!(Origin::list(url).is_err(), "{url}");
        }
        // A service cannot hand out a wildcard.
        policy.learn("https://*.example.net", &rule(), None);
        assert_eq!(policy.grants().len(), 1);
    }

    #[test]
    fn a_socket_has_a_host_name_of_this_machine() {
        let socket = |url, authority| Origin::socket(url, authority).map(|read| read.map_err(drop));
        let place = |host: &str, path: &str| {
            Some(Ok((Origin { secure: false, host: host.into(), port: 80 }, PathBuf::from(path))))
        };
        assert_eq!(socket("unix:///var/run/Docker.sock", None), place("docker.sock.localhost", "/var/run/Docker.sock"));
        assert_eq!(socket("unix:///x/odd name", Some("a.localhost")), place("a.localhost", "/x/odd name"));
        assert_eq!(socket("http://host", None), None);
        for url in ["unix://docker.sock", "unix:///", "unix://", "unix:///x/odd name"] {
            assert_eq!(socket(url, None), Some(Err(())), "{url}");
        }
        let (origin, path) = Origin::socket("unix:///var/run/docker.sock", None).unwrap().unwrap();
        let policy = Policy::new(vec![Fixed { origin, socket: Some(path), ..fixed("http://a", false) }]);
        let check = |url: &str| policy.check(&Origin::parse(url).unwrap()).is_ok();
        assert!(check("http://docker.sock.localhost"));
        for url in ["http://docker.sock.localhost:81", "https://docker.sock.localhost", "http://other.sock.localhost"] {
            assert!(!check(url), "{url}");
        }
        assert_eq!(policy.grants()[0].socket.as_deref(), Some(Path::new("/var/run/docker.sock")));
    }

    #[test]
    fn origins_are_canonical() {
        assert_eq!(Origin::parse("https://API.example.com/x?y").unwrap().to_string(), "https://api.example.com");
        assert_eq!(Origin::parse("https://a:443").unwrap(), Origin::parse("https://a.").unwrap());
        assert_eq!(Origin::parse("http://[::1]:80").unwrap().to_string(), "http://[::1]");
        for bad in ["ftp://a", "a", "https://user@host", "/path", "https://", "https://host:70000"] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_do_not_quote_passwords() {
        for url in ["https://user:hush@host", "http://user:hu/sh@host:1/x", "user:hush@host", "https://hush@host:70000"]
        {
            let why = Origin::parse(url).unwrap_err();
            assert!(why.contains("@host") && !why.contains("hu") && !why.contains("user"), "{why}");
        }
        // A comma in a password does not separate list items.
        let why = Origin::list("https://a,https://user:hu,sh@host").unwrap_err();
        assert!(why.contains("@host") && !why.contains("hu") && !why.contains("sh@"), "{why}");
        assert!(Origin::parse("ftp://host/x").unwrap_err().contains("ftp://host/x"));
        assert_eq!(Origin::list("https://a/x, http://b:1").unwrap().len(), 2);
    }

    #[test]
    fn nothing_is_reached_that_was_not_granted() {
        let policy = Policy::new(vec![fixed("https://api.example.com", false)]);
        let check = |url: &str| policy.check(&Origin::parse(url).unwrap());
        assert!(check("https://api.example.com").is_ok());
        assert!(check("http://api.example.com").is_err());
        assert!(check("https://api.example.com:444").is_err());
        assert!(check("https://worker.example.com").is_err());
        policy.learn("https://worker.example.com:1234/", &rule(), None);
        assert!(check("https://worker.example.com:1234").is_ok());
        assert!(check("https://worker.example.com").is_err());
    }

    #[test]
    fn a_public_service_cannot_hand_out_private_places() {
        let policy = Policy::new(vec![fixed("https://api.example.com", false)]);
        for url in ["http://worker.example.com", "https://127.0.0.1", "https://169.254.169.254", "https://localhost"] {
            policy.learn(url, &rule(), None);
        }
        assert_eq!(policy.grants().len(), 1);
    }

    #[test]
    fn a_local_service_can() {
        let policy = Policy::new(vec![fixed("http://127.0.0.1:9", true)]);
        let pass = policy.check(&Origin::parse("http://127.0.0.1:9").unwrap()).unwrap();
        policy.learn("http://127.0.0.1:10", &rule(), pass.hands_out);
        let reach = policy.check(&Origin::parse("http://127.0.0.1:10").unwrap()).unwrap().reach;
        assert!(reach.allows(AddressClass::Loopback) && reach.allows(AddressClass::Private));
        for class in [AddressClass::LinkLocal, AddressClass::Metadata, AddressClass::Reserved] {
            assert!(!reach.allows(class), "{class:?}");
        }
    }

    /// Returns the permitted addresses of `url` after a service at `from` named it, or `None` if it was refused.
    fn handed_out(from: &str, explicit: bool, url: &str) -> Option<Reach> {
        let policy = Policy::new(vec![fixed(from, explicit)]);
        let hands_out = policy.check(&Origin::parse(from).unwrap()).ok().and_then(|pass| pass.hands_out);
        policy.learn(url, &rule(), hands_out);
        policy.check(&Origin::parse(url).unwrap()).ok().map(|pass| pass.reach)
    }

    /// A service elsewhere may not name this machine in any form.
    #[test]
    fn a_service_elsewhere_does_not_hand_out_this_machine() {
        let this_machine =
            ["http://127.0.0.1:1", "https://localhost", "http://a.localhost:1", "http://[::1]:1", "http://0.0.0.0:1"];
        for from in ["http://control.example.com", "http://10.0.0.5:7000", "http://emulator:7000", "https://10.0.0.5"] {
            for url in this_machine.into_iter().chain(["http://169.254.169.254", "http://[64:ff9b:1::a9fe:a9fe]"]) {
                assert_eq!(handed_out(from, true, url), None, "{from} {url}");
            }
            // A name that resolves to this machine is refused when connecting.
            let reach = handed_out(from, true, "http://worker.example.com:1").unwrap();
            let never = [AddressClass::LinkLocal, AddressClass::Metadata, AddressClass::Reserved];
            for class in never.into_iter().chain([AddressClass::Loopback]) {
                assert!(!reach.allows(class), "{from} {class:?}");
            }
        }
        for from in ["http://localhost:7000", "http://127.0.0.1:7000", "http://[::1]:7000", "http://0.0.0.0:7000"] {
            for url in this_machine.into_iter().chain(["http://10.0.0.5:1", "http://worker:1"]) {
                assert_eq!(handed_out(from, true, url), Some(Reach::Near), "{from} {url}");
            }
        }
    }

    #[test]
    fn no_service_hands_out_metadata_services() {
        for from in ["http://localhost:7000", "http://10.0.0.5:7000", "http://emulator:7000", "https://api.example.com"]
        {
            for host in
                ["169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "168.63.129.16", "[64:ff9b:1::a9fe:a9fe]"]
            {
                for url in [format!("http://{host}"), format!("https://{host}")] {
                    assert_eq!(handed_out(from, true, &url), None, "{from} {url}");
                }
            }
        }
    }

    #[test]
    fn a_service_on_a_private_network_hands_out_itself_and_its_neighbours() {
        for from in [
            "http://192.168.1.5:7000",
            "http://172.17.0.1:7000",
            "http://host.docker.internal:7000",
            "http://emulator:7000",
        ] {
            let other_port = from.replace("7000", "7001");
            for url in [&*other_port, "http://192.168.1.6:7000", "http://worker:1", "https://worker.example.com"] {
                assert_eq!(handed_out(from, true, url), Some(Reach::Private), "{from} {url}");
            }
        }
        // A service with a public address and plain http may not name private addresses.
        let public = "http://93.184.216.34:7000";
        assert_eq!(handed_out(public, true, "http://93.184.216.34:7001"), Some(Reach::Public));
        assert_eq!(handed_out(public, true, "http://worker.example.com"), Some(Reach::Public));
        assert_eq!(handed_out(public, true, "http://192.168.1.6:7000"), None);
        // The same holds for https with a host name, and for an origin that the user did not set.
        assert_eq!(handed_out("https://api.example.com", true, "https://worker.example.com"), Some(Reach::Public));
        for url in ["http://worker.example.com", "https://192.168.1.6"] {
            assert_eq!(handed_out("https://api.example.com", true, url), None, "{url}");
            assert_eq!(handed_out("https://192.168.1.5", false, url), None, "{url}");
        }
    }

    #[test]
    fn learned_origins_are_bounded() {
        let policy = Policy::new(vec![]);
        for n in 0..MAX_LEARNED + 10 {
            policy.learn(&format!("https://w{n}.example.com"), &rule(), None);
        }
        assert_eq!(policy.grants().len(), MAX_LEARNED);
    }

    #[test]
    fn addresses_are_classified() {
        for (text, class) in [
            ("127.0.0.1", AddressClass::Loopback),
            ("::1", AddressClass::Loopback),
            ("::ffff:127.0.0.1", AddressClass::Loopback),
            ("::ffff:10.0.0.1", AddressClass::Private),
            ("2002:0a00:0001::", AddressClass::Private),
            ("64:ff9b::a9fe:a9fe", AddressClass::LinkLocal),
            ("64:ff9b:1::5db8:d822", AddressClass::Reserved),
            ("64:ff9b:1:a9fe:a9:fe00::", AddressClass::Reserved),
            ("64:ff9b:1:7f00:0:100:5db8:d822", AddressClass::Reserved),
            ("64:ff9b::1:0:5db8:d822", AddressClass::Reserved),
            ("::7f00:1", AddressClass::Loopback),
            ("10.1.2.3", AddressClass::Private),
            ("100.64.0.1", AddressClass::Private),
            ("172.21.0.1", AddressClass::Private),
            ("169.254.169.254", AddressClass::LinkLocal),
            ("fe80::1", AddressClass::LinkLocal),
            ("fd00:ec2::254", AddressClass::Metadata),
            ("100.100.100.200", AddressClass::Metadata),
            ("168.63.129.16", AddressClass::Metadata),
            ("3fff::1", AddressClass::Reserved),
            ("2001:10::1", AddressClass::Reserved),
            ("0.0.0.0", AddressClass::Loopback),
            ("::", AddressClass::Loopback),
            ("255.255.255.255", AddressClass::Reserved),
            ("93.184.216.34", AddressClass::Public),
            ("2606:2800:220:1::1", AddressClass::Public),
        ] {
            assert_eq!(AddressClass::of(text.parse().unwrap()), class, "{text}");
        }
    }
}
