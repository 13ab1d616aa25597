//! The network policy of a container: an ordered list of rules, of which the first matching rule decides.
//!
//! Open networks, blocked networks and allow-lists are all expressed as such lists. Domain rules match the server name
//! (SNI) in the TLS ClientHello, the first message of a connection, which is not encrypted. Nothing is ever decrypted.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
};

use ipnet::IpNet;

/// The transport protocol of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP connections.
    Tcp,
    /// UDP datagrams.
    Udp,
}

/// What to do with traffic that matches a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Forward it.
    Pass,
    /// Reject it.
    Block,
}

/// The decision of a policy about a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Forward it to its destination.
    Pass,
    /// Forward it to an address that its server name resolves to, even if that differs from its destination.
    PassByName,
    /// The decision depends on the TLS server name. The connection must be accepted first to read it.
    Inspect,
    /// Reject it.
    Block,
}

/// A set of domain names: a single name, a name with all its subdomains (`*.`), or all names (`*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    /// Exactly this name.
    Name(String),
    /// This name and all its subdomains.
    Below(String),
    /// All names.
    All,
}

impl Domain {
    /// Parses `example.com`, `*.example.com` or `*`. Returns `None` if the text is not a valid domain name.
    pub fn parse(text: &str) -> Option<Domain> {
        if text == "*" {
            return Some(Domain::All);
        }
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let fits = |part: &str| {
            !part.is_empty()
                && part.len() <= 63
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(fits) {
            return None;
        }
        let name = name.to_ascii_lowercase();
        Some(if below { Domain::Below(name) } else { Domain::Name(name) })
    }

    /// Returns whether the set contains `name`. The comparison ignores case and a trailing dot.
    pub fn contains(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        match self {
            Domain::All => true,
            Domain::Name(own) => name.eq_ignore_ascii_case(own),
            Domain::Below(own) => {
                let start = name.len().checked_sub(own.len());
                start.and_then(|start| name.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(own))
                    && (name.len() == own.len() || name.as_bytes()[name.len() - own.len() - 1] == b'.')
            }
        }
    }
}

/// A rule of a policy.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Matches traffic by destination address.
    Ip {
        /// The transport to match; `None` matches both.
        transport: Option<Transport>,
        /// The destination ports to match; empty matches all.
        ports: Vec<RangeInclusive<u16>>,
        /// The destination networks to match.
        addresses: Vec<IpNet>,
        /// What to do with matching traffic.
        action: Action,
    },
    /// Matches TCP connections that start with a TLS handshake, by server name.
    Tls {
        /// The destination ports to match.
        ports: Vec<RangeInclusive<u16>>,
        /// The server names to match.
        domains: Vec<Domain>,
        /// What to do with matching connections.
        action: Action,
    },
}

/// The network policy of a container. The default blocks everything.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The rules in order; the first matching rule decides.
    pub rules: Vec<Rule>,
    /// What to do with traffic that matches no rule.
    pub otherwise: Action,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::blocked()
    }
}

impl Policy {
    /// Returns a policy that permits everything.
    pub fn open() -> Policy {
        Policy { rules: Vec::new(), otherwise: Action::Pass }
    }

    /// Returns a policy that blocks everything.
    pub fn blocked() -> Policy {
        Policy { rules: Vec::new(), otherwise: Action::Block }
    }

    /// Returns a policy that permits all traffic to `addresses` and TLS connections on port 443 for `domains`.
    pub fn only(addresses: Vec<IpNet>, domains: Vec<Domain>) -> Policy {
        let ip = Rule::Ip { transport: None, ports: Vec::new(), addresses, action: Action::Pass };
        let tls = Rule::Tls { ports: vec![443..=443], domains, action: Action::Pass };
        Policy { rules: vec![ip, tls], otherwise: Action::Block }
    }

    /// Decides about a new flow to the destination `to`, before any of its data is known.
    pub fn verdict(&self, transport: Transport, to: SocketAddr) -> Verdict {
        self.decide(transport, to, None)
    }

    /// Decides about a TCP connection whose beginning has been read. `name` is its TLS server name, or `None` if it has
    /// none or is not TLS.
    pub fn verdict_for(&self, to: SocketAddr, name: Option<&str>) -> Verdict {
        self.decide(Transport::Tcp, to, Some(name))
    }

    /// Returns the verdict of the first matching rule. `seen` is `None` before the beginning of the connection has been
    /// read, and the server name found there afterwards.
    fn decide(&self, transport: Transport, to: SocketAddr, seen: Option<Option<&str>>) -> Verdict {
        for rule in &self.rules {
            match rule {
                Rule::Ip { transport: of, ports, addresses, action } => {
                    if of.is_none_or(|of| of == transport)
                        && (ports.is_empty() || has(ports, to.port()))
                        && addresses.iter().any(|net| net.contains(&to.ip()))
                    {
                        return match action {
                            Action::Pass => Verdict::Pass,
                            Action::Block => Verdict::Block,
                        };
                    }
                }
                Rule::Tls { ports, domains, action } => {
                    if transport != Transport::Tcp || !has(ports, to.port()) || domains.is_empty() {
                        continue;
                    }
                    match seen {
                        None => return Verdict::Inspect,
                        Some(Some(name)) if domains.iter().any(|domain| domain.contains(name)) => {
                            return match action {
                                Action::Pass => Verdict::PassByName,
                                Action::Block => Verdict::Block,
                            };
                        }
                        Some(_) => {}
                    }
                }
            }
        }
        match self.otherwise {
            Action::Pass => Verdict::Pass,
            Action::Block => Verdict::Block,
        }
    }

    /// Returns whether a container may resolve this name. DNS queries can carry data out of the sandbox, so a policy that
    /// blocks by default permits only names that match a passing TLS rule, or all names if it permits all IPv4 addresses.
    pub fn resolves(&self, name: &str) -> bool {
        let everywhere = |net: &IpNet| net.prefix_len() == 0 && net.addr() == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.otherwise == Action::Pass
            || self.rules.iter().any(|rule| match rule {
                Rule::Ip { addresses, action, .. } => *action == Action::Pass && addresses.iter().any(everywhere),
                Rule::Tls { domains, action, .. } => {
                    *action == Action::Pass && domains.iter().any(|domain| domain.contains(name))
                }
            })
    }
}

/// Returns whether one of the ranges contains the port.
fn has(ports: &[RangeInclusive<u16>], port: u16) -> bool {
    ports.iter().any(|range| range.contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn names_and_what_is_below_them() {
        for (list, name, inside) in [
            ("example.com", "example.com", true),
            ("example.com", "EXAMPLE.com.", true),
            ("example.com", "a.example.com", false),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", true),
            ("*.example.com", "badexample.com", false),
            ("*.example.com", "com", false),
            ("*.example.com", "é", false),
            ("*", "anything", true),
        ] {
            assert_eq!(domain(list).contains(name), inside, "{list} {name}");
        }
        for bad in ["", "*.", "a..b", "a b", "**", "*.*", "a.*.b", "http://a", &"x".repeat(64)] {
            assert_eq!(Domain::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn lists_permit_addresses_and_tls_for_names() {
        let policy = Policy::only(vec!["10.1.0.0/16".parse().unwrap()], vec![domain("*.example.com")]);
        let to = |text: &str| -> SocketAddr { text.parse().unwrap() };
        assert_eq!(policy.verdict(Transport::Udp, to("10.1.2.3:1")), Verdict::Pass);
        assert_eq!(policy.verdict(Transport::Tcp, to("10.1.2.3:443")), Verdict::Pass);
        assert_eq!(policy.verdict(Transport::Tcp, to("10.2.0.1:443")), Verdict::Inspect);
        assert_eq!(policy.verdict(Transport::Tcp, to("10.2.0.1:80")), Verdict::Block);
        assert_eq!(policy.verdict(Transport::Udp, to("10.2.0.1:443")), Verdict::Block);
        assert_eq!(policy.verdict_for(to("10.2.0.1:443"), Some("a.example.com")), Verdict::PassByName);
        assert_eq!(policy.verdict_for(to("10.2.0.1:443"), Some("example.org")), Verdict::Block);
        assert_eq!(policy.verdict_for(to("10.2.0.1:443"), None), Verdict::Block);
        assert!(policy.resolves("a.example.com") && !policy.resolves("example.org"));
        assert!(Policy::only(vec!["0.0.0.0/0".parse().unwrap()], Vec::new()).resolves("example.org"));
        assert!(!Policy::only(Vec::new(), Vec::new()).resolves("example.org"));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy {
            rules: vec![
                Rule::Ip {
                    transport: Some(Transport::Tcp),
                    ports: vec![25..=25],
                    addresses: vec!["0.0.0.0/0".parse().unwrap()],
                    action: Action::Block,
                },
                Rule::Tls { ports: vec![443..=443], domains: vec![domain("bad.example")], action: Action::Block },
            ],
            otherwise: Action::Pass,
        };
        let mail: SocketAddr = "10.0.0.1:25".parse().unwrap();
        let web: SocketAddr = "10.0.0.1:443".parse().unwrap();
        assert_eq!(policy.verdict(Transport::Tcp, mail), Verdict::Block);
        assert_eq!(policy.verdict(Transport::Udp, mail), Verdict::Pass);
        assert_eq!(policy.verdict_for(web, Some("bad.example")), Verdict::Block);
        assert_eq!(policy.verdict_for(web, Some("good.example")), Verdict::Pass);
        assert_eq!(policy.verdict_for(web, None), Verdict::Pass);
    }
}
