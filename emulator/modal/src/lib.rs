//! An offline Modal: serves the sandbox part of Modal's API on a loopback port and runs real processes in isolated containers.
//!
//! The crate `container-isolation` makes containers, and the crate `container-network` serves their network. Neither imports
//! the other; `model::network` in this crate connects them.
//!
//! A module imports only modules below it in this list:
//!
//! - [`cli`]: the command line.
//! - `emulator`: starts and ends an emulator.
//! - [`http`]: the listeners. Checks credentials, applies ordered faults, and serves the requests that are not gRPC.
//! - [`service`]: the two gRPC services. Each call is a function that reads a request, calls the modules below, and writes a
//!   response. Only this module turns errors into gRPC statuses.
//! - [`runtime`]: runs sandboxes: containers, commands, sidecars, tunnels, snapshots.
//! - [`build`]: image builds; executes the lines of Dockerfiles.
//! - [`model`]: the domain: tables, sandboxes, images, volumes, and the validation of requests. Depends on neither tonic nor
//!   HTTP.
//!
//! Tests start an emulator with [`Emulator::start`]; programs run one with [`cli::run`].

pub mod build;
pub mod cli;
mod emulator;
pub mod http;
pub mod model;
pub mod runtime;
pub mod service;

pub use container_isolation::child_entry;
pub use emulator::Emulator;
pub use model::options::Options;
