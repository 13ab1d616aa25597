//! Connects the two container crates: `container-network` serves each container at the addresses that `container-isolation`
//! gives to its network device.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use container_isolation::tun;
use container_network::Names;
use container_network::Network;
use container_network::Policy;
use container_network::Port;
use container_network::{Addressing, Switch};
use ipnet::IpNet;
use tokio::sync::watch;

static ADDRESSING: LazyLock<Arc<Addressing>> = LazyLock::new(|| {
    let (first, first6) = tun::addresses(0);
    let networks = [(IpAddr::V4(first), tun::PREFIX), (IpAddr::V6(first6), tun::PREFIX6)];
    Arc::new(Addressing {
        gateway: tun::GATEWAY,
        containers: (0..tun::MOST).map(tun::addresses).collect(),
        networks: networks.into_iter().filter_map(|(address, prefix)| IpNet::new(address, prefix).ok()).collect(),
        mtu: tun::MTU,
    })
});

/// Returns a new switch, which connects the containers of one sandbox.
pub fn switch() -> Switch {
    Switch::new(ADDRESSING.clone())
}

/// Returns a port of the switch, which has the addresses of one container. Returns `None` if no network device is wanted.
///
/// # Errors
///
/// Fails if the sandbox has no free addresses.
pub fn port(wanted: bool, switch: &Switch) -> anyhow::Result<Option<Port>> {
    let port = wanted.then(|| switch.port().context("the sandbox has no addresses left for further containers"));
    port.transpose()
}

/// Starts to serve a container's network device at the port whose addresses it has. Returns `None` if there is no device or
/// port.
///
/// # Errors
///
/// Fails if the network cannot be started.
pub fn serve(
    names: &Arc<Names>,
    label: &str,
    device: Option<OwnedFd>,
    port: Option<Port>,
    policy: watch::Receiver<Arc<Policy>>,
) -> anyhow::Result<Option<Network>> {
    let served = device.zip(port);
    served.map(|(device, port)| Ok(Network::start(label, device, port, policy, names.clone())?)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_of_a_sandbox_has_an_address_in_its_networks() {
        assert_eq!(ADDRESSING.networks.len(), 2);
        for (v4, v6) in &ADDRESSING.containers {
            let inside = |address: IpAddr| ADDRESSING.networks.iter().any(|network| network.contains(&address));
            assert!(inside((*v4).into()) && inside((*v6).into()), "{v4} {v6}");
        }
        let ports: Vec<_> = std::iter::from_fn({
            let switch = switch();
            move || switch.port()
        })
        .collect();
        assert_eq!(ports.len(), usize::from(tun::MOST));
    }
}
