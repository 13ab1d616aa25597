//! Forwards packets directly between the devices of the containers of one sandbox. The network policy does not apply to
//! them.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{addressing::Addressing, device::Device};

/// Connects the containers of one sandbox. Clones share the same switch.
#[derive(Debug, Clone)]
pub struct Switch {
    addressing: Arc<Addressing>,
    /// The device of each port, by container number; `None` until the container's device is connected.
    ports: Arc<Mutex<BTreeMap<u8, Option<Arc<Device>>>>>,
}

impl Switch {
    /// Creates a switch for containers with these addresses.
    pub fn new(addressing: Arc<Addressing>) -> Switch {
        Switch { addressing, ports: Arc::default() }
    }

    /// Reserves a port with the lowest free number. Returns `None` if all addresses are in use. Dropping the port frees
    /// its number.
    pub fn port(&self) -> Option<Port> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let most = u8::try_from(self.addressing.containers.len()).unwrap_or(u8::MAX);
        let number = (0..most).find(|number| !ports.contains_key(number))?;
        ports.insert(number, None);
        Some(Port { switch: self.clone(), number })
    }
}

/// The place of one container on a switch.
#[derive(Debug)]
pub struct Port {
    switch: Switch,
    number: u8,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.switch.ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

impl Port {
    /// Returns the number that determines the container's addresses: its index in [`Addressing::containers`].
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Returns the addresses of all containers on the switch.
    pub(crate) fn addressing(&self) -> &Addressing {
        &self.switch.addressing
    }

    /// Sets the device that receives the packets for this container.
    pub(crate) fn connect(&self, device: Arc<Device>) {
        self.switch.ports.lock().unwrap_or_else(PoisonError::into_inner).insert(self.number, Some(device));
    }

    /// Returns the device of the container with this address. Returns `None` if no container has the address or its
    /// device is not connected yet.
    pub(crate) fn neighbour(&self, address: IpAddr) -> Option<Arc<Device>> {
        let ports = self.switch.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let found = ports.iter().find(|(number, _)| self.addressing().has(**number, address));
        found.and_then(|(_, device)| device.clone())
    }

    /// Returns whether an address belongs to this container, which must not send from any other.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.addressing().has(self.number, address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const CONTAINERS: u8 = 7;

    fn addressing() -> Addressing {
        let of =
            |number: u8| (Ipv4Addr::new(192, 0, 2, number), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()));
        let gateway = Ipv4Addr::new(192, 0, 2, 254);
        Addressing { gateway, containers: (0..CONTAINERS).map(of).collect(), networks: Vec::new(), mtu: 1500 }
    }

    #[test]
    fn numbers_are_given_back_and_run_out() {
        let switch = Switch::new(Arc::new(addressing()));
        let first = switch.port().unwrap();
        let second = switch.port().unwrap();
        assert_eq!((first.number(), second.number()), (0, 1));
        drop(first);
        assert_eq!(switch.port().map(|port| port.number()), Some(0), "given back");
        let rest: Vec<Port> = std::iter::from_fn(|| switch.port()).collect();
        assert_eq!(rest.len(), usize::from(CONTAINERS) - 1);
    }
}
