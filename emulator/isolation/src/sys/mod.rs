//! The unsafe code of this crate: system calls that neither nix nor rustix provides. Independent of the modules that use
//! it.

mod clone;
mod descriptors;
pub(crate) mod interfaces;
mod mount_attributes;
mod processes;
mod seccomp;

pub(crate) use clone::{CONTROL_FD, Start, start};
pub(crate) use descriptors::{leave_open, take_inherited, watch_readable, watch_socket};
pub(crate) use mount_attributes::set_read_only;
pub(crate) use processes::{
    Fork, ForkedChild, PausedChild, close_all_but_standard, default_sigpipe, fork, ignore_sigpipe, join_own_keyring,
    kill, reset_signals,
};
pub(crate) use seccomp::set_filter;
