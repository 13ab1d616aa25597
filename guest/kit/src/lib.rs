//! All that a sandbox provider needs and that is no service's own: a provider crate implements [`export::SandboxProvider`]
//! on top of it and becomes a component for `wasm32-wasip2` by [`export!`]. The component imports nothing but `wasi:io`,
//! `wasi:clocks`, `wasi:random`, `wasi:cli` and `wasi:http`.
//!
//! From the outside in; each imports only what stands below it:
//!
//! | module | what it is for |
//! |---|---|
//! | [`export`](mod@export) | the exports of a component, and the trait behind them |
//! | [`exec`] | bookkeeping of commands: resume at an offset, feed, collect head or tail, deadlines |
//! | [`inside`] | scripts that run in a sandbox: files, signals, user switch, long argument lists |
//! | [`image`] | Dockerfiles, build contexts by digest, uploads in parts |
//! | [`call`] | one way to reach a service: retry, tokens and their renewal, HTTP, JSON, gRPC (feature `grpc`) |
//! | [`api`] | the interface: its records, the error builder, checks of arguments |
//! | [`platform`] | what all of it runs on: HTTP, clock, random numbers; over WASI, and scripted for tests (feature `scripted`) |
//! | [`memo`] | bounded caches |
//!
//! Nothing above [`platform`] knows of WASI, so a provider is tested natively.

pub mod api;
pub mod call;
pub mod exec;
pub mod export;
pub mod image;
pub mod inside;
pub mod memo;
pub mod platform;

pub use api::error::{Error, Result};
