//! Containers made of Linux namespaces, and overlays over the machine's programs. Apart from [`fstools`], nothing here is
//! specific to Modal.
//!
//! A container's init is this program, executed again in an inner role. It has built its own root, is PID 1 there, and
//! starts processes on requests over a socket. Files written in a container land in its `upper` directory. An image is an
//! ordered list of such directories ("layers") over the machine's programs.
//!
//! - Public: [`Engine`] and [`Container`] (`handles`), their parameters (`spec`), [`rootfs`] (access to a container's files
//!   from outside), [`disk_space`].
//! - Implementation of the handles: `engine`, with `state_dir` (the state directory), `rootfs_base` (the lower directories of
//!   all containers), `cgroups` (limits), `sealed_program` and `spawner` (start the inner process), `live_mounts` (mounts
//!   images in running containers).
//! - Inside a container: `inside::init` (process 1), `inside::build_root` (builds the root from `overlays`), [`tun`] (the
//!   network devices), `inside::launch` (turns a fork into a process), `inside::capabilities`, `inside::syscall_filter`, and
//!   `users`; [`fstools`] is the program inside a container that clients use to read and write files.
//! - Between engine and init: `protocol`. Below all others: `mount_calls`, and `sys` with all unsafe code.
//!
//! A program that uses this crate must call [`child_entry`] first in `main`, because it is executed again for the inner
//! roles.
//!
//! Requires Linux 5.12. If the emulator runs as root, a container's root is still confined to a user namespace, in which
//! all ids are the same as outside, so that layers can hold files of any owner. Without root, the container's root is the
//! emulator's own user.

mod cgroups;
pub mod disk_space;
mod engine;
pub mod fstools;
mod handles;
mod inside;
mod live_mounts;
mod mount_calls;
mod overlays;
mod protocol;
mod roles;
pub mod rootfs;
mod rootfs_base;
mod sealed_program;
mod spawner;
mod spec;
mod state_dir;
mod steps;
mod sys;
mod users;

pub use disk_space::Space;
pub use handles::{Container, Engine};
pub use inside::tun;
pub use roles::child_entry;
pub use rootfs::remove_tree;
pub use spec::{Bind, ContainerSpec, DirectoryError, End, Exit, MountSpec, Process, ProcessSpec};
