//! Runs sandbox-provider components under wasmtime.
//!
//! A *plugin* is a WebAssembly component that exports `harness:sandbox/sandbox-provider`. It contains the code for the
//! service of one cloud that runs sandboxes (isolated, temporary machines). This crate loads the plugin, limits the
//! resources and the hosts that it can use, keeps the long-lived credentials out of the plugin, sends its HTTP
//! requests, and offers its functions as an async Rust API:
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
//! Handles are `Send + Sync` and cheap to clone. Dropping a future cancels its call. Dropping a [`Process`] kills its
//! command, unless the process was detached. Calls do not need a thread each.

// Layers, from top to bottom. A module imports only from its own layer and from the layers below it.
//
// |  api        the public API: providers, sandboxes, commands, files, images, leases
// |  runtime    instances of a plugin and the calls into them
// |  net        HTTP requests of plugins: policy checks, connections, proxies; and the gateway
// |  access     policy, credentials, profiles, secrets
// |  plugin     loading and compiling components       local   files of this machine
// |  blocking   threads for blocking work              digest  SHA-256
// |  error      the error type
// |  interface  the records and functions of `harness:sandbox`, by version
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
pub use api::checkup::{Finding, Problem, check_component};
pub use api::files::DirectoryPages;
pub use api::image::{Build, BuildLog};
pub use api::keeper::{GRACE, Keeper, LEASE_TAG, OWNER_TAG, RUN_TAG, Swept};
pub use api::plugin::Plugin;
pub use api::process::{InputStream, OutputStream, Process, ProcessOutput};
pub use api::provider::{Provider, SandboxWithInfo, Waiting};
pub use api::sandbox::Sandbox;
pub use api::signal::Signal;
pub use api::spec::fresh_id;
pub use digest::digest;
pub use error::{Error, FileFault, Happened, Kind, PluginFault, Result, Retry, TrapCause, local_reason};
pub use interface::{INTERFACE_VERSION, INTERFACE_VERSIONS, types};
pub use local::context::{BuildContext, ContextFilter};
pub use local::dockerfile::{LocalDockerfile, Sent};
pub use local::tree::{Packed, Unpacked};
#[doc(hidden)]
pub use net::dial::Dialer;
pub use net::gateway::Gateway;
pub use net::hook::Silence;
pub use net::proxy::Proxy;
pub use plugin::compile::{compile_apart, compile_child};
pub use plugin::engine::{DEFAULT_MAX_INSTANCES, set_max_instances};
pub use plugin::manifest::{
    CredentialWish, EnvWish, GatewayWish, InstancesWish, Manifest, PathWish, Profiles, ProxyWish, SECTION,
};
pub use plugin::origin::{
    AssertionWish, BasicWish, FileWish, HeaderWish, JsonWish, LearnWish, OriginWish, QueryWish, SwitchWish, TcpWish,
    TlsWish, UrlWish,
};
pub use plugin::pack::pack;
pub use plugin::template::Template;
pub use runtime::limits::Limits;
pub use runtime::metrics;

/// Compiles the code examples of the embedding guide as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/embedding/rust.md")]
struct EmbeddingGuide;
