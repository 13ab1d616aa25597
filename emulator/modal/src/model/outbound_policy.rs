//! What a sandbox may reach: requests become a [`Policy`], at its creation and while it runs.
//!
//! What can be done without looking into encrypted traffic is done. The rest (header replacement, decrypted HTTPS routes,
//! detours through proxies and sidecars) is refused, never ignored.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context as _;
use ipnet::IpNet;
use modal_proto::client::network_access::NetworkAccessType;
use modal_proto::client::*;
use outbound_policy as wire;
use tokio::sync::watch;
use tonic::Status;

use crate::model::sandbox::Sandbox as Made;
use crate::model::state::State;
use crate::service::control::Caller;
use container_network::policy::{Action, Domain, Rule, Transport};
use container_network::{Network, Policy, Port, Switch};

/// Port of TLS where a route names none.
const HTTPS: u16 = 443;

/// Finds a static-address proxy; there are none.
pub async fn proxy(state: &Arc<State>, _: &Caller, request: ProxyGetRequest) -> Result<ProxyGetResponse, Status> {
    state.environment(&request.environment_name)?;
    Err(Status::not_found(format!("Proxy '{}' not found", request.name)))
}

/// Replaces the route-based policy of a running sandbox.
pub async fn set(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxSetOutboundPolicyRequest,
) -> Result<SandboxSetOutboundPolicyResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    let routes = request.outbound_policy.ok_or_else(|| Status::invalid_argument("outbound_policy is required"))?;
    let policy = of_routes(&routes)?;
    sandbox.unit().await?;
    if !is_open(&sandbox.definition) {
        return Err(Status::failed_precondition("An outbound policy needs a sandbox whose network is open"));
    }
    sandbox.policy.send_replace(Arc::new(policy));
    Ok(SandboxSetOutboundPolicyResponse {})
}

/// Replaces the network access of a running sandbox. What is established and no longer permitted is cut.
pub async fn set_access(sandbox: &Made, access: &NetworkAccess) -> Result<(), Status> {
    let policy = of_access(access)?;
    sandbox.unit().await?;
    if access.network_access_type() == NetworkAccessType::Blocked {
        return Err(Status::invalid_argument(
            "The network of a running sandbox cannot be blocked: use an empty allow-list",
        ));
    }
    if is_blocked(&sandbox.definition) {
        return Err(Status::failed_precondition("The sandbox was created with its network blocked"));
    }
    if sandbox.definition.outbound_policy.is_some() {
        return Err(Status::failed_precondition("The sandbox has an outbound policy: replace that"));
    }
    sandbox.policy.send_replace(Arc::new(policy));
    Ok(())
}

/// Replaces header replacements; there are none to replace, since no sandbox is created with any.
pub async fn set_headers(sandbox: &Made) -> Result<(), Status> {
    sandbox.unit().await?;
    Err(Status::failed_precondition("The sandbox was created without an outbound policy"))
}

/// The policy that a definition asks for, if it can be had.
pub fn policy(definition: &Sandbox) -> Result<Policy, Status> {
    if let Some(headers) = &definition.experimental_outbound_policy {
        if definition.outbound_policy.is_some() {
            return Err(Status::invalid_argument("outbound_policy excludes experimental_outbound_policy"));
        }
        if !headers.header_replacements.is_empty() {
            return Err(Status::unimplemented("The emulator does not decrypt traffic: it cannot replace headers"));
        }
    }
    let access = match &definition.network_access {
        _ if definition.block_network => Policy::blocked(),
        Some(access) => of_access(access)?,
        None => Policy::open(),
    };
    match &definition.outbound_policy {
        Some(_) if !is_open(definition) => {
            Err(Status::invalid_argument("outbound_policy excludes every network access but open"))
        }
        Some(routes) => of_routes(routes),
        None => Ok(access),
    }
}

/// Whether the definition blocks the network for good: then there is no device inside.
pub fn is_blocked(definition: &Sandbox) -> bool {
    let access = definition.network_access.as_ref();
    definition.block_network || access.is_some_and(|access| access.network_access_type() == NetworkAccessType::Blocked)
}

fn is_open(definition: &Sandbox) -> bool {
    let open = [NetworkAccessType::Open, NetworkAccessType::Unspecified];
    let access = definition.network_access.as_ref();
    !definition.block_network && access.is_none_or(|access| open.contains(&access.network_access_type()))
}

/// The policy that is meant by an access.
pub fn of_access(access: &NetworkAccess) -> Result<Policy, Status> {
    let addresses = cidrs(&access.allowed_cidrs)?;
    let domains = domains(&access.allowed_domains)?;
    match NetworkAccessType::try_from(access.network_access_type) {
        Ok(NetworkAccessType::Open | NetworkAccessType::Unspecified) => Ok(Policy::open()),
        Ok(NetworkAccessType::Blocked) => Ok(Policy::blocked()),
        Ok(NetworkAccessType::Allowlist) => Ok(Policy::only(addresses, domains)),
        Err(_) => Err(Status::invalid_argument("Unknown network access type")),
    }
}

fn of_routes(policy: &OutboundPolicy) -> Result<Policy, Status> {
    use wire::route::Route;
    let bad = |text: &str| Status::invalid_argument(text);
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
                    return Err(Status::unimplemented("The emulator does not look into QUIC: TLS routes are for TCP"));
                }
                let named = ports(&tls.ports)?;
                let ports = if named.is_empty() { vec![HTTPS..=HTTPS] } else { named };
                Rule::Tls { ports, domains: domains(&tls.domains)?, action: action(tls.redirect.as_ref())? }
            }
            Some(Route::Https(_)) if !policy.tls_decryption.as_ref().is_some_and(|tls| tls.allowed) => {
                return Err(bad("HTTPS routes need TLS decryption to be allowed"));
            }
            Some(Route::Https(_)) => {
                return Err(Status::unimplemented("The emulator does not decrypt traffic: it has no HTTPS routes"));
            }
            Some(Route::Any(_)) => return Err(bad("Only the last route of an outbound policy may be `any`")),
            None => return Err(bad("A route of the outbound policy is empty")),
        });
    }
    Ok(Policy { rules, otherwise })
}

fn action(redirect: Option<&wire::Redirect>) -> Result<Action, Status> {
    use wire::redirect::Redirect;
    match redirect.and_then(|redirect| redirect.redirect.as_ref()) {
        None => Ok(Action::Pass),
        Some(Redirect::Block(_)) => Ok(Action::Block),
        Some(Redirect::ViaProxy(proxy)) => Err(Status::not_found(format!("Proxy {} not found", proxy.proxy_id))),
        Some(Redirect::ViaSidecar(_)) => {
            Err(Status::unimplemented("The emulator does not send traffic through sidecars"))
        }
    }
}

fn transport(value: i32, unspecified: Option<Transport>) -> Result<Option<Transport>, Status> {
    match wire::Transport::try_from(value) {
        Ok(wire::Transport::Unspecified) => Ok(unspecified),
        Ok(wire::Transport::Any) => Ok(None),
        Ok(wire::Transport::Tcp) => Ok(Some(Transport::Tcp)),
        Ok(wire::Transport::Udp) => Ok(Some(Transport::Udp)),
        Err(_) => Err(Status::invalid_argument("Unknown transport of a route")),
    }
}

fn ports(ranges: &[wire::PortRange]) -> Result<Vec<RangeInclusive<u16>>, Status> {
    let range = |range: &wire::PortRange| {
        let port = |number: u32| u16::try_from(number).ok().filter(|port| *port > 0);
        let (start, end) = (port(range.start)?, port(range.end)?);
        (start <= end).then_some(start..=end)
    };
    let bad = |r: &wire::PortRange| Status::invalid_argument(format!("Invalid port range: {}-{}", r.start, r.end));
    ranges.iter().map(|one| range(one).ok_or_else(|| bad(one))).collect()
}

/// Parses a list of address ranges.
pub fn cidrs(texts: &[String]) -> Result<Vec<IpNet>, Status> {
    texts
        .iter()
        .map(|text| text.parse().map_err(|_| Status::invalid_argument(format!("Invalid CIDR: {text}"))))
        .collect()
}

/// Whether an address is in one of the ranges; any is when there are none.
pub fn may_enter(address: IpAddr, ranges: &[IpNet]) -> bool {
    ranges.is_empty() || ranges.iter().any(|range| range.contains(&address))
}

fn domains(texts: &[String]) -> Result<Vec<Domain>, Status> {
    let domain =
        |text: &String| Domain::parse(text).ok_or_else(|| Status::invalid_argument(format!("Invalid domain: {text}")));
    texts.iter().map(domain).collect()
}

/// A place for a container among those that it reaches, if it is to have a network device.
pub fn port(wanted: bool, switch: &Switch) -> anyhow::Result<Option<Port>> {
    let port = wanted.then(|| switch.port().context("the sandbox has no addresses left for further containers"));
    port.transpose()
}

/// Serves the network device of a container, if it has one, at the place that it has got its addresses from.
pub fn serve(
    state: &State,
    label: &str,
    device: Option<OwnedFd>,
    port: Option<Port>,
    policy: watch::Receiver<Arc<Policy>>,
) -> anyhow::Result<Option<Network>> {
    let served = device.zip(port);
    served.map(|(device, port)| Ok(Network::start(label, device, port, policy, state.names.clone())?)).transpose()
}
