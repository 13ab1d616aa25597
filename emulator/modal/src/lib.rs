//! An offline Modal: the sandbox part of its API on a loopback port, over real processes in real isolation.
//!
//! The crate `container-isolation` makes containers, and the crate `container-network` serves their network. Neither imports the
//! other; this crate brings them together (`model::network`).
//!
//! Imports point down this list only:
//!
//! - [`cli`]: the command line.
//! - `emulator`: starts and ends an emulator.
//! - [`http`]: the listeners. Checks credentials, applies ordered faults, and serves what is not gRPC.
//! - [`service`]: the two gRPC services. Each call is a function that reads a request, asks the layers below, and writes an
//!   answer. Here alone errors become gRPC statuses.
//! - [`runtime`]: the lives of sandboxes: containers, commands, sidecars, tunnels, snapshots.
//! - [`build`]: image builds: Dockerfile lines that really run.
//! - [`model`]: the domain: tables, sandboxes, images, volumes, and checks of what may be asked. Knows neither tonic nor HTTP.
//!
//! [`Emulator`] starts one inside a test; [`cli`] is the command line.

pub mod build;
pub mod cli;
mod emulator;
pub mod http;
pub mod model;
pub mod runtime;
pub mod service;
mod sys;

pub use container_isolation::child_entry;
pub use emulator::Emulator;
pub use model::options::Options;
