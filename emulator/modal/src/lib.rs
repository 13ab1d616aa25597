//! An offline Modal: the sandbox part of its API on a loopback port, over real processes in real isolation.
//!
//! Containers are made by the crate `container-isolation`, and their network is served by the crate `container-network`. Neither
//! imports the other; this crate composes them.
//!
//! - [`http`]: one port for everything.
//! - [`service`]: the two gRPC services.
//! - [`runtime`]: what happens to sandboxes.
//! - [`build`]: image builds — Dockerfile lines that really run.
//! - [`model`]: the domain.
//!
//! [`Emulator`] starts one inside a test; [`cli`] is the command line.

pub mod build;
pub mod cli;
pub mod http;
pub mod model;
pub mod runtime;
pub mod service;

pub use container_isolation::child_entry;
pub use http::server::{Emulator, Options};
