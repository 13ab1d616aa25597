//! The network of a container: what its programs send is taken from its device and, where a [`Policy`] permits it, sent on
//! from this machine.
//!
//! Nothing of the machine's network is inside the container: each flow (one TCP connection, or datagrams between two ports)
//! ends here, in a small TCP/IP stack of its own, and goes on over an ordinary socket of this process. So it needs no
//! privileges, no firewall and no route, and the policy is asked in one place. Addresses of the machine itself can never be
//! reached this way ([`names`]).
//!
//! Imports point down this list:
//!
//! - `network`: [`Network`] sorts packets by flow; each flow is one task, and no thread.
//! - `tcp`, `udp`: the two kinds of flows.
//! - `gate`: what a flow has of its container's network.
//! - [`switch`]: between the containers of one sandbox.
//! - `dns`: answers for the container's resolver. [`names`]: where the answers come from.
//! - `device`: the descriptor that packets come from. `packet`: IP packets, taken apart and made.
//! - [`policy`]: what may go where. [`addressing`]: which addresses containers have, as the maker of the devices says.
//!
//! It does not know how the device came to be.

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
