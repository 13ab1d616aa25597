//! An offline Modal: the sandbox part of its API on a loopback port, over real processes in real isolation.
//!
//! Containers are made by the crate `container-isolation`, and their network is served by the crate `container-network`. Neither
//! imports the other; this crate composes them.
//!
//! - [`control`]: the control plane — apps, images, secrets, sandboxes and what happens to them.
//! - [`router`]: the task command router — commands in a sandbox, their input and output, snapshots.
//! - [`build`]: image builds — Dockerfile lines that really run.
//! - [`peers`]: which user of the machine a connection comes from.
//! - [`server`]: one port for all of it.
//!
//! [`Emulator`] starts one inside a test; [`cli`] is the command line.

pub mod addressing;
pub mod build;
pub mod cli;
pub mod control;
pub mod ids;
pub mod jwt;
pub mod peers;
pub mod router;
pub mod server;
pub mod state;

pub use container_isolation::child_entry;
pub use server::{Emulator, Options};
