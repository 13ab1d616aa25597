//! What may leave a container, and where to: an ordered list of rules, of which the first that fits decides.
//!
//! Open, blocked and allow-lists are short lists of the same rules. Names are those of TLS: a connection's first message
//! gives, unencrypted, the name of the server that it is for; nothing is ever decrypted.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
};

use ipnet::IpNet;

/// What carries a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What happens to traffic that fits a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// On its way.
    Pass,
    /// Nowhere.
    Block,
}

/// What a policy says of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To where it wants to go.
    Pass,
    /// To an address of the name it is for, whatever address it was sent to.
    PassByName,
    /// It depends on the server name of its TLS, which shows only once it has begun.
    Inspect,
    /// Nowhere.
    Block,
}

/// A set of names: one, one with everything below it (`*.`), or all (`*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    /// Exactly this one.
    Name(String),
    /// This one and those below it.
    Below(String),
    /// Any.
    All,
}

impl Domain {
    /// From its text; none if no name can look so.
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

    /// Whether a name, with or without the dot at its end, is one of them.
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

/// One rule.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Traffic to addresses.
    Ip {
        /// Of this kind; none for both.
        transport: Option<Transport>,
        /// To these ports; empty for all.
        ports: Vec<RangeInclusive<u16>>,
        /// To these addresses.
        addresses: Vec<IpNet>,
        /// What happens to it.
        action: Action,
    },
    /// TCP connections that carry TLS from their first byte.
    Tls {
        /// To these ports.
        ports: Vec<RangeInclusive<u16>>,
        /// For these names.
        domains: Vec<Domain>,
        /// What happens to them.
        action: Action,
    },
}

/// What may leave a container. The default blocks everything.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The first that fits decides.
    pub rules: Vec<Rule>,
    /// What happens to what fits none.
    pub otherwise: Action,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::blocked()
    }
}

impl Policy {
    /// Everything may leave.
    pub fn open() -> Policy {
        Policy { rules: Vec::new(), otherwise: Action::Pass }
    }

    /// Nothing may.
    pub fn blocked() -> Policy {
        Policy { rules: Vec::new(), otherwise: Action::Block }
    }

    /// What goes to these addresses, and TLS on port 443 for these names.
    pub fn only(addresses: Vec<IpNet>, domains: Vec<Domain>) -> Policy {
        let ip = Rule::Ip { transport: None, ports: Vec::new(), addresses, action: Action::Pass };
        let tls = Rule::Tls { ports: vec![443..=443], domains, action: Action::Pass };
        Policy { rules: vec![ip, tls], otherwise: Action::Block }
    }

    /// Of a flow that begins.
    pub fn verdict(&self, transport: Transport, to: SocketAddr) -> Verdict {
        self.decide(transport, to, None)
    }

    /// Of a connection whose name is known, or known not to exist because it is not TLS.
    pub fn verdict_for(&self, to: SocketAddr, name: Option<&str>) -> Verdict {
        self.decide(Transport::Tcp, to, Some(name))
    }

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

    /// Whether a name may be asked for. To ask is to send something out: where not everything may leave, only names that
    /// connections may be for, or any where every address may be reached.
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
