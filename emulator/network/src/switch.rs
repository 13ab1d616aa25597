//! Between the containers of one sandbox: packets to one another's addresses go straight from device to device, whatever may
//! leave the sandbox.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{addressing::Addressing, device::Device};

/// Connects containers. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Switch {
    addressing: Arc<Addressing>,
    /// By number; without a device as long as the container is being made.
    ports: Arc<Mutex<BTreeMap<u8, Option<Arc<Device>>>>>,
}

impl Switch {
    /// Connects containers that have these addresses.
    pub fn new(addressing: Arc<Addressing>) -> Switch {
        Switch { addressing, ports: Arc::default() }
    }

    /// A place for one more container; none if there are no addresses left. It is free again when the port is dropped.
    pub fn port(&self) -> Option<Port> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let most = u8::try_from(self.addressing.containers.len()).unwrap_or(u8::MAX);
        let number = (0..most).find(|number| !ports.contains_key(number))?;
        ports.insert(number, None);
        Some(Port { switch: self.clone(), number })
    }
}

/// A container's place.
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
    /// By which the container has its addresses.
    pub fn number(&self) -> u8 {
        self.number
    }

    pub(crate) fn addressing(&self) -> &Addressing {
        &self.switch.addressing
    }

    /// From now on packets to this container can be delivered.
    pub(crate) fn connect(&self, device: Arc<Device>) {
        self.switch.ports.lock().unwrap_or_else(PoisonError::into_inner).insert(self.number, Some(device));
    }

    /// The other container that has this address; none if it is no container's.
    pub(crate) fn neighbour(&self, address: IpAddr) -> Option<Arc<Device>> {
        let ports = self.switch.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let found = ports.iter().find(|(number, _)| self.addressing().has(**number, address));
        found.and_then(|(_, device)| device.clone())
    }

    /// Whether an address is the container's own: others it must not send from.
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
