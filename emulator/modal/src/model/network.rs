//! Brings the two container crates together: the network serves containers at the addresses that the isolation gives to their
//! devices.

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

/// Connects the containers of one sandbox.
pub fn switch() -> Switch {
    Switch::new(ADDRESSING.clone())
}

/// A place for a container among those that it reaches, if it is to have a network device.
pub fn port(wanted: bool, switch: &Switch) -> anyhow::Result<Option<Port>> {
    let port = wanted.then(|| switch.port().context("the sandbox has no addresses left for further containers"));
    port.transpose()
}

/// Serves the network device of a container, if it has one, at the place that it has got its addresses from.
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
