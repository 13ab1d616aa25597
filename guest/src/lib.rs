//! Modal as a sandbox provider: a component for `wasm32-wasip2` that exports `harness:sandbox/sandbox-provider` and
//! imports nothing but `wasi:io`, `wasi:clocks`, `wasi:random`, `wasi:cli` and `wasi:http`.
//!
//! From the outside in:
//!
//! | module | what it is for |
//! |---|---|
//! | `component` | the exports; only in the wasm build |
//! | [`describe`], [`images`], [`sandboxes`], [`execs`], [`files`] | the functions of the interface |
//! | [`user`] | commands as another user |
//! | [`follow`] | an output stream that is resumed at its byte offset |
//! | [`router`], [`control`] | the two endpoints: the worker's command router, the control plane |
//! | [`grpc`] | gRPC in encoded messages, one code path for all methods |
//! | [`auth`], [`retry`] | tokens before they expire; one retry policy |
//! | [`transport`] | what all of it runs on: HTTP, clock, random numbers |
//! | `wasi` | that transport over WASI, and the reactor below it; only in the wasm build |
//!
//! Nothing above [`transport`] knows of WASI, so the same code is tested natively.

// The interface's own error record is in every signature; boxing it would have to be undone at each export.
#![allow(clippy::result_large_err)]

pub mod auth;
pub mod bindings;
pub mod cache;
pub mod config;
pub mod control;
pub mod describe;
pub mod error;
pub mod execs;
pub mod files;
pub mod follow;
pub mod grpc;
pub mod ids;
pub mod images;
pub mod provider;
pub mod retry;
pub mod router;
pub mod sandboxes;
pub mod transport;
pub mod user;

#[cfg(target_family = "wasm")]
mod component;
#[cfg(target_family = "wasm")]
mod wasi;

pub use error::{Error, Result};
pub use provider::Provider;
