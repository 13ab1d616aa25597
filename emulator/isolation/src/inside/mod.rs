//! What runs inside a container before its programs do: process 1, and the forks that become processes.
//!
//! `init` imports `build_root` and `launch`; those import the rest.

pub(crate) mod build_root;
mod capabilities;
pub(crate) mod init;
mod launch;
mod syscall_filter;
pub mod tun;
