//! Between the containers of one sandbox: packets to one another's addresses go straight from device to device, whatever may
//! leave the sandbox.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::Device;
use crate::isolation::device::{MOST, addresses};

/// Connects containers. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Switch {
    /// By number; without a device as long as the container is being made.
    ports: Arc<Mutex<BTreeMap<u8, Option<Arc<Device>>>>>,
}

impl Switch {
    /// A place for one more container; none if there are no addresses left. It is free again when the port is dropped.
    pub fn port(&self) -> Option<Port> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (0..MOST).find(|number| !ports.contains_key(number))?;
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

    /// From now on packets to this container can be delivered.
    pub(super) fn connect(&self, device: Arc<Device>) {
        self.switch.ports.lock().unwrap_or_else(PoisonError::into_inner).insert(self.number, Some(device));
    }

    /// The other container that has this address; none if it is no container's.
    pub(super) fn neighbour(&self, address: IpAddr) -> Option<Arc<Device>> {
        let ports = self.switch.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let has = |number: u8| is(number, address);
        ports.iter().find(|(number, _)| has(**number)).and_then(|(_, device)| device.clone())
    }

    /// Whether an address is the container's own: others it must not send from.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        is(self.number, address)
    }
}

fn is(number: u8, address: IpAddr) -> bool {
    let (v4, v6) = addresses(number);
    address == IpAddr::V4(v4) || address == IpAddr::V6(v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_back_and_run_out() {
        let switch = Switch::default();
        let first = switch.port().unwrap();
        let second = switch.port().unwrap();
        assert_eq!((first.number(), second.number()), (0, 1));
        drop(first);
        assert_eq!(switch.port().map(|port| port.number()), Some(0), "given back");
        let rest: Vec<Port> = std::iter::from_fn(|| switch.port()).collect();
        assert_eq!(rest.len(), usize::from(MOST) - 1);
        assert!(rest.iter().all(|port| addresses(port.number()).0.octets()[3] < 255), "the last one is for all");
    }
}
