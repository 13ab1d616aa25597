//! Containers out of the kernel's own parts: namespaces and overlays over the machine's programs. Knows nothing of Modal.
//!
//! A container is an inner process (this program, executed again in an inner role) that has built a root of its own and is
//! PID 1 there; it is asked over a socket to start processes. What a container writes lands in its `upper` directory; an
//! image is an ordered list of such directories ("layers") over the machine's programs.
//!
//! - What users hold: [`Engine`] and [`Container`] (`handles`), what they ask for (`spec`), [`rootfs`] (all that is done to a
//!   container's files from outside), [`disk_space`].
//! - Behind the handles: `engine`, with `state_dir` (the state directory),
//!   `rootfs_base` (what lies below every container), `cgroups` (limits), `sealed_program` and `spawner` (start the inner
//!   process), `live_mounts` (mounts images in running containers).
//! - Inside: `inside::init` (process 1), `inside::build_root` (its root, of `overlays`), [`tun`] (its network),
//!   `inside::launch` (turns a fork into a process), `inside::capabilities`, `inside::syscall_filter`, and `users`; [`fstools`]
//!   is the program inside a container by which clients read and write files.
//! - Between them: `protocol`. Below all: `mount_calls`, and `sys` with all unsafe code.
//!
//! A program that uses this crate calls [`child_entry`] first thing in `main`: it is executed again for the inner roles.
//!
//! Needs Linux 5.12. As root of the machine a container's root is still shut in by a user namespace in which all ids mean the
//! same as outside, so that layers can hold files of any owner; without root, it is our own user.

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
