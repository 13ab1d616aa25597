//! The network of a container. Reads the packets that its programs send from the container's network device and, where a
//! [`Policy`] permits it, forwards their data over sockets of this process.
//!
//! The container has no access to the machine's network. Each flow (one TCP connection, or the UDP datagrams between two
//! ports) ends in this process, in its own small TCP/IP stack, and continues over an ordinary socket. This needs no
//! privileges, no firewall and no routes, and there is a single place that checks the policy. Containers can never reach
//! addresses of the machine itself ([`names`]).
//!
//! Modules import only modules further down this list:
//!
//! - `network`: [`Network`] assigns packets to flows. Each flow runs as one async task, without a thread.
//! - `tcp`, `udp`: the two kinds of flows.
//! - `gate`: the state that all flows of one container share.
//! - [`switch`]: forwards packets between the containers of one sandbox.
//! - `dns`: responses for the container's resolver. [`names`]: resolves the names in them.
//! - `device`: reads and writes packets. `packet`: parses and builds IP packets.
//! - [`policy`]: which destinations are permitted. [`addressing`]: the addresses of the containers.
//!
//! This crate does not create network devices; it receives their file descriptors.

pub mod addressing;
mod device;
mod dns;
mod gate;
pub mod names;
mod network;
mod packet;
pub mod policy;
pub mod switch;
mod sys;
mod tcp;
mod udp;

pub use addressing::Addressing;
pub use names::Names;
pub use network::Network;
pub use policy::Policy;
pub use switch::{Port, Switch};
