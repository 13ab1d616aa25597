//! An offline Modal: the sandbox part of its API on a loopback port, over real processes in real isolation.
//!
//! - [`isolation`]: containers out of namespaces and overlays; knows nothing of Modal.
//! - [`network`]: what leaves a container, and where to; knows nothing of Modal.
//! - [`fstools`]: the program inside a sandbox by which clients read and write files.
//! - [`control`]: the control plane — apps, images, secrets, sandboxes and what happens to them.
//! - [`router`]: the task command router — commands in a sandbox, their input and output, snapshots.
//! - [`build`]: image builds — Dockerfile lines that really run.
//! - [`peers`]: which user of the machine a connection comes from.
//! - [`server`]: one port for all of it.
//!
//! [`Emulator`] starts one inside a test; [`cli`] is the command line.

pub mod build;
mod child;
pub mod cli;
pub mod control;
pub mod fstools;
pub mod ids;
pub mod isolation;
pub mod jwt;
pub mod network;
pub mod peers;
pub mod router;
pub mod server;
pub mod state;

pub use child::child_entry;
pub use server::{Emulator, Options};
