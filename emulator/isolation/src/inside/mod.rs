//! The code that runs inside a container before its programs do: init, and its forks before they execute a program.
//!
//! `init` imports `build_root`, `launch`, `capabilities` and `syscall_filter`. `build_root` imports `tun`, and `launch`
//! imports `build_root`.

pub(crate) mod build_root;
mod capabilities;
pub(crate) mod init;
mod launch;
mod syscall_filter;
pub mod tun;
