//! Modal as a sandbox provider: a component for `wasm32-wasip2` that exports `harness:sandbox/sandbox-provider` and
//! imports nothing but `wasi:io`, `wasi:clocks`, `wasi:random`, `wasi:cli` and `wasi:http`.
//!
//! From the outside in:
//!
//! | module | what it is for |
//! |---|---|
//! | `component` | the exports; only in the wasm build |
//! | [`describe`] | what this provider is |
//! | [`images`], [`builds`], [`context`] | images, their builds, the files that go in; [`blobs`] below |
//! | [`create`], [`options`], [`sandboxes`], [`snapshots`], [`sidecars`], [`logs`] | sandboxes |
//! | [`execs`], [`run`], [`signal`] | commands: step by step, in one call, their process tree |
//! | [`argv`], [`user`] | what is started for a command: long arguments, another user |
//! | [`inside`] | the scripts and programs that our own operations run in a sandbox |
//! | [`files`], [`filecmd`], [`watch`] | files: through Modal's helper, through the image's own programs, changes |
//! | [`names`] | secrets, volumes and proxies by name |
//! | [`json`] | what little JSON is spoken |
//! | [`follow`] | an output stream that is resumed at its byte offset |
//! | [`router`], [`control`] | the two endpoints: the worker's command router, the control plane |
//! | [`grpc`] | gRPC and gRPC-Web in encoded messages, one code path for all methods |
//! | [`auth`], [`retry`] | tokens before they expire; one retry policy |
//! | [`transport`] | what all of it runs on: HTTP, clock, random numbers |
//! | `wasi` | that transport over WASI, and the reactor below it; only in the wasm build |
//!
//! Nothing above [`transport`] knows of WASI, so the same code is tested natively.

pub mod argv;
pub mod auth;
pub mod bindings;
pub mod blobs;
pub mod builds;
pub mod cache;
pub mod config;
pub mod context;
pub mod control;
pub mod create;
pub mod describe;
pub mod error;
pub mod execs;
pub mod filecmd;
pub mod files;
pub mod follow;
pub mod grpc;
pub mod ids;
pub mod images;
pub mod inside;
pub mod json;
pub mod logs;
pub mod names;
pub mod options;
pub mod provider;
pub mod retry;
pub mod router;
pub mod run;
pub mod sandboxes;
pub mod sidecars;
pub mod signal;
pub mod snapshots;
pub mod transport;
pub mod user;
pub mod watch;

#[cfg(target_family = "wasm")]
mod component;
#[cfg(target_family = "wasm")]
mod wasi;

pub use error::{Error, Result};
pub use provider::Provider;
