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

// Modules import from those below them only:
//
//   api        what embedders use
//   runtime    instances and the calls into them
//   net        the way of requests to the wire, and the gateway
//   access     policy, credentials, profiles, secrets
//   plugin     loading and compiling components       local   files of this machine
//   blocking   threads for work that blocks           digest  SHA-256
//   error      the error type
//   interface  the records and functions of `harness:sandbox`, by version
mod access;
mod api;
mod blocking;
mod digest;
mod error;
mod interface;
mod local;
mod net;
mod plugin;
mod runtime;

pub use access::policy::{AddressClass, Grant, Origin};
pub use access::secret::Secret;
pub use api::builder::ProviderBuilder;
pub use api::files::DirectoryPages;
pub use api::image::{Build, BuildLog};
pub use api::keeper::{GRACE, Keeper, LEASE_TAG, OWNER_TAG, RUN_TAG, Swept};
pub use api::plugin::Plugin;
pub use api::process::{Output, Process, Stdin};
pub use api::provider::{Provider, Waiting};
pub use api::sandbox::Sandbox;
pub use api::spec::fresh_id;
pub use digest::digest;
pub use error::{Error, FileFault, Happened, Kind, PluginFault, Result, Retry, TrapCause, local_reason};
pub use interface::{INTERFACE_VERSION, INTERFACE_VERSIONS, types};
pub use local::context::{Context, ContextFilter};
pub use local::dockerfile::{LocalDockerfile, Sent};
pub use local::tree::Unpacked;
pub use net::gateway::Gateway;
pub use net::hook::Silence;
pub use net::proxy::Proxy;
pub use plugin::compile::{compile_apart, compile_child};
pub use plugin::engine::{DEFAULT_MAX_INSTANCES, set_max_instances};
pub use plugin::manifest::{
    AssertionWish, CredentialWish, EnvWish, GatewayWish, HeaderWish, LearnWish, Manifest, OriginWish, PathWish,
    Profiles, ProxyWish, SECTION, UrlWish,
};
pub use runtime::limits::Limits;
pub use runtime::metrics::{Entry, LATENCY_BOUNDS, Snapshot, with_retries};

/// The harness of the embedding guide compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/embedding.md")]
struct EmbeddingGuide;
