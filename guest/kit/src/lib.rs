//! A library for authors of sandbox providers. It contains the parts that do not depend on a particular service. A
//! provider crate implements [`export::SandboxProvider`] and uses [`export!`] to become a component for
//! `wasm32-wasip2`. The component imports only `wasi:io`, `wasi:clocks`, `wasi:random`, `wasi:cli` and `wasi:http`.
//!
//! The modules, from the outermost to the innermost. A module imports only modules that are listed below it:
//!
//! | module | contents |
//! |---|---|
//! | [`kept`] | output, input, files and lists in the provider's own memory, for services without offsets and pages |
//! | [`export`](mod@export) | the exports of a component, and the trait behind them |
//! | [`exec`] | bookkeeping of commands: resume at an offset, feed input, keep head or tail of the output, deadlines |
//! | [`inside`] | shell scripts that run in a sandbox: files, signals, user switch, long argument lists |
//! | [`image`] | Dockerfiles, build contexts by digest, uploads in parts |
//! | [`options`] | provider options: their types, and the refusal of unknown ones |
//! | [`call`] | calls to a service: retries, tokens and their renewal, HTTP, JSON, gRPC (feature `grpc`) |
//! | [`api`] | the interface: its records, the error type, checks of arguments |
//! | [`platform`] | HTTP, clock and random numbers, over WASI or scripted for tests (feature `scripted`) |
//! | [`memo`] | bounded caches |
//!
//! Only [`platform`] depends on WASI, so a provider can be tested natively.

pub mod api;
pub mod call;
pub mod exec;
pub mod export;
pub mod image;
pub mod inside;
pub mod kept;
pub mod memo;
pub mod options;
pub mod platform;

pub use api::error::{Error, Result};
