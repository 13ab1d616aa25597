//! Converts outbound network settings of requests to a [`Policy`], when a sandbox is created and while it runs.
//!
//! Settings that need no decryption of traffic are implemented. The others (header replacement, decrypted HTTPS routes, routes
//! through proxies and sidecars) are rejected, never ignored.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use container_network::Policy;
use container_network::policy::{Action, Domain, Rule, Transport};
use ipnet::IpNet;
use modal_proto::client::network_access::NetworkAccessType;
use modal_proto::client::*;
use outbound_policy as wire;

use crate::model::error::Error;

/// TLS port of routes that name none.
const HTTPS: u16 = 443;

/// Returns the policy of a definition.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if a value is not valid or fields exclude each other, with `Kind::Unimplemented` for
/// settings that need decryption or sidecars, and with `Kind::NotFound` if a route names a proxy.
pub fn policy(definition: &Sandbox) -> Result<Policy, Error> {
    if let Some(headers) = &definition.experimental_outbound_policy {
        if definition.outbound_policy.is_some() {
            return Err(Error::invalid_argument("outbound_policy excludes experimental_outbound_policy"));
        }
        if !headers.header_replacements.is_empty() {
            return Err(Error::unimplemented("The emulator does not decrypt traffic: it cannot replace headers"));
        }
    }
    let access = match &definition.network_access {
        _ if definition.block_network => Policy::blocked(),
        Some(access) => of_access(access)?,
        None => Policy::open(),
    };
    match &definition.outbound_policy {
        Some(_) if !is_open(definition) => {
            Err(Error::invalid_argument("outbound_policy excludes every network access but open"))
        }
        Some(routes) => of_routes(routes),
        None => Ok(access),
    }
}

/// Returns whether the definition blocks the network permanently. The container then has no network device.
pub fn is_blocked(definition: &Sandbox) -> bool {
    let access = definition.network_access.as_ref();
    definition.block_network || access.is_some_and(|access| access.network_access_type() == NetworkAccessType::Blocked)
}

/// Returns whether the definition leaves the network open.
pub fn is_open(definition: &Sandbox) -> bool {
    let open = [NetworkAccessType::Open, NetworkAccessType::Unspecified];
    let access = definition.network_access.as_ref();
    !definition.block_network && access.is_none_or(|access| open.contains(&access.network_access_type()))
}

/// Converts a network access to a policy.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if the access type, an address range or a domain is not valid.
pub fn of_access(access: &NetworkAccess) -> Result<Policy, Error> {
    let addresses = cidrs(&access.allowed_cidrs)?;
    let domains = domains(&access.allowed_domains)?;
    match NetworkAccessType::try_from(access.network_access_type) {
        Ok(NetworkAccessType::Open | NetworkAccessType::Unspecified) => Ok(Policy::open()),
        Ok(NetworkAccessType::Blocked) => Ok(Policy::blocked()),
        Ok(NetworkAccessType::Allowlist) => Ok(Policy::only(addresses, domains)),
        Err(_) => Err(Error::invalid_argument("Unknown network access type")),
    }
}

/// Converts the routes of an outbound policy to a policy.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if a route is not valid or the last one is not `any`, with `Kind::Unimplemented` for
/// routes that need decryption or sidecars, and with `Kind::NotFound` if a route names a proxy.
pub fn of_routes(policy: &OutboundPolicy) -> Result<Policy, Error> {
    use wire::route::Route;
    let bad = |text: &str| Error::invalid_argument(text);
    let mut rules = Vec::new();
    let (last, routes) = policy.routes.split_last().ok_or_else(|| bad("An outbound policy needs an `any` route"))?;
    let Some(Route::Any(any)) = &last.route else {
        return Err(bad("The last route of an outbound policy must be `any`"));
    };
    let otherwise = action(any.redirect.as_ref())?;
    for route in routes {
        rules.push(match &route.route {
            Some(Route::Ip(ip)) => Rule::Ip {
                transport: transport(ip.transport, None)?,
                ports: ports(&ip.ports)?,
                addresses: cidrs(&ip.cidrs)?,
                action: action(ip.redirect.as_ref())?,
            },
            Some(Route::Tls(tls)) => {
                if transport(tls.transport, Some(Transport::Tcp))? != Some(Transport::Tcp) {
                    return Err(Error::unimplemented("The emulator does not look into QUIC: TLS routes are for TCP"));
                }
                let named = ports(&tls.ports)?;
                let ports = if named.is_empty() { vec![HTTPS..=HTTPS] } else { named };
                Rule::Tls { ports, domains: domains(&tls.domains)?, action: action(tls.redirect.as_ref())? }
            }
            Some(Route::Https(_)) if !policy.tls_decryption.as_ref().is_some_and(|tls| tls.allowed) => {
                return Err(bad("HTTPS routes need TLS decryption to be allowed"));
            }
            Some(Route::Https(_)) => {
                return Err(Error::unimplemented("The emulator does not decrypt traffic: it has no HTTPS routes"));
            }
            Some(Route::Any(_)) => return Err(bad("Only the last route of an outbound policy may be `any`")),
            None => return Err(bad("A route of the outbound policy is empty")),
        });
    }
    Ok(Policy { rules, otherwise })
}

fn action(redirect: Option<&wire::Redirect>) -> Result<Action, Error> {
    use wire::redirect::Redirect;
    match redirect.and_then(|redirect| redirect.redirect.as_ref()) {
        None => Ok(Action::Pass),
        Some(Redirect::Block(_)) => Ok(Action::Block),
        Some(Redirect::ViaProxy(proxy)) => Err(Error::not_found(format!("Proxy {} not found", proxy.proxy_id))),
        Some(Redirect::ViaSidecar(_)) => {
            Err(Error::unimplemented("The emulator does not send traffic through sidecars"))
        }
    }
}

fn transport(value: i32, unspecified: Option<Transport>) -> Result<Option<Transport>, Error> {
    match wire::Transport::try_from(value) {
        Ok(wire::Transport::Unspecified) => Ok(unspecified),
        Ok(wire::Transport::Any) => Ok(None),
        Ok(wire::Transport::Tcp) => Ok(Some(Transport::Tcp)),
        Ok(wire::Transport::Udp) => Ok(Some(Transport::Udp)),
        Err(_) => Err(Error::invalid_argument("Unknown transport of a route")),
    }
}

fn ports(ranges: &[wire::PortRange]) -> Result<Vec<RangeInclusive<u16>>, Error> {
    let range = |range: &wire::PortRange| {
        let port = |number: u32| u16::try_from(number).ok().filter(|port| *port > 0);
        let (start, end) = (port(range.start)?, port(range.end)?);
        (start <= end).then_some(start..=end)
    };
    let bad = |r: &wire::PortRange| Error::invalid_argument(format!("Invalid port range: {}-{}", r.start, r.end));
    ranges.iter().map(|one| range(one).ok_or_else(|| bad(one))).collect()
}

/// Parses a list of address ranges.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if a text is not a range in CIDR notation.
pub fn cidrs(texts: &[String]) -> Result<Vec<IpNet>, Error> {
    texts
        .iter()
        .map(|text| text.parse().map_err(|_| Error::invalid_argument(format!("Invalid CIDR: {text}"))))
        .collect()
}

/// Returns whether an address is in one of the ranges. An empty list permits all addresses.
pub fn may_enter(address: IpAddr, ranges: &[IpNet]) -> bool {
    ranges.is_empty() || ranges.iter().any(|range| range.contains(&address))
}

fn domains(texts: &[String]) -> Result<Vec<Domain>, Error> {
    let domain =
        |text: &String| Domain::parse(text).ok_or_else(|| Error::invalid_argument(format!("Invalid domain: {text}")));
    texts.iter().map(domain).collect()
}
