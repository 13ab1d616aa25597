//! Runs sandbox-provider components under wasmtime.
//!
//! A *plugin* is a WebAssembly component that exports `harness:sandbox/sandbox-provider`: it knows how to drive some
//! cloud's throw-away machines, and nothing else. This crate loads it, limits what it may reach, keeps the long-lived
//! credentials to itself, speaks HTTP/2 on its behalf, and gives its functions an idiomatic async form:
//!
//! ```text
//! Plugin ── Provider ── Sandbox ── Process
//! (code)    (settings)  (an id)    (a command with AsyncRead and AsyncWrite)
//! ```
//!
//! ```no_run
//! use sandbox_host::{Plugin, Provider, types::{ExecSpec, ImageSpec, SandboxSpec}};
//!
//! # async fn example() -> sandbox_host::Result<()> {
//! let plugin = Plugin::load("modal-provider.wasm").await?;
//! let provider = Provider::builder(&plugin).build().await?;
//! let sandbox = provider.create(SandboxSpec::new(ImageSpec::registry("debian"))).await?;
//! let result = sandbox.run(ExecSpec::shell("echo hello; exit 3")).await?;
//! println!("{:?}: {}", result.verdict, String::from_utf8_lossy(&result.stdout.data));
//! sandbox.terminate().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Handles are `Send + Sync` and cheap to clone. Dropping a future cancels the call; dropping a [`Process`] kills its
//! command unless it was detached. No thread is used per call.

mod cache;
mod compile;
mod context;
mod credentials;
mod dockerfile;
mod engine;
mod error;
mod files;
mod gate;
mod gateway;
mod http;
mod ignore;
mod image;
mod instance;
mod interface;
mod manifest;
mod metrics;
mod ownership;
mod plugin;
mod policy;
mod process;
mod profile;
mod provider;
mod sandbox;
mod secret;
mod spec;
mod tree;
mod warm;

pub use compile::{compile_apart, compile_child};
pub use context::{Context, ContextFilter};
pub use dockerfile::{LocalDockerfile, Sent};
pub use engine::{DEFAULT_MAX_INSTANCES, set_max_instances};
pub use error::{Error, FileFault, Happened, Kind, PluginFault, Result, Retry, TrapCause, local_reason};
pub use files::DirectoryPages;
pub use gateway::Gateway;
pub use http::{Proxy, Silence};
pub use image::{Build, BuildLog};
pub use instance::Limits;
pub use interface::{INTERFACE_VERSION, INTERFACE_VERSIONS, types};
pub use manifest::{
    AssertionWish, CredentialWish, EnvWish, GatewayWish, HeaderWish, LearnWish, Manifest, OriginWish, PathWish,
    Profiles, ProxyWish, SECTION, UrlWish,
};
pub use metrics::{Entry, LATENCY_BOUNDS, Snapshot, with_retries};
pub use ownership::{GRACE, Keeper, LEASE_TAG, OWNER_TAG, RUN_TAG, Swept};
pub use plugin::{Plugin, digest};
pub use policy::{AddressClass, Grant, Origin};
pub use process::{Output, Process, Stdin};
pub use provider::{Provider, ProviderBuilder, Waiting};
pub use sandbox::Sandbox;
pub use secret::Secret;
pub use spec::fresh_id;
pub use tree::Unpacked;

/// The harness of the embedding guide compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
struct EmbeddingGuide;
