//! Checks whether a component is a correct provider of sandboxes.
//!
//! [`run`] reads the description of a provider and runs the checks of this crate on it, through the public API of
//! `sandbox-host`. A capability that the provider declares is tested. A capability that it does not declare must be
//! refused with `unsupported` before anything is sent to the service. Each [`Check`] names the part of the interface that
//! it tests. The command `sandbox-host conformance` prints the results.
//!
//! ```no_run
//! use std::sync::Arc;
//! use sandbox_conformance::{Observer, Options, State};
//! use sandbox_host::{Plugin, Provider};
//!
//! struct Printer;
//!
//! impl Observer for Printer {
//!     fn finished(&self, id: &'static str, state: State, _: std::time::Duration) {
//!         println!("{id}: {}", state.name());
//!     }
//! }
//!
//! # async fn example() -> sandbox_host::Result<()> {
//! let plugin = Plugin::load("provider.wasm").await?;
//! let provider = Provider::builder(&plugin).build().await?;
//! let another = move || Provider::builder(&plugin);
//! let report = sandbox_conformance::run(provider, another, &Options::default(), Arc::new(Printer)).await?;
//! assert!(report.holds());
//! # Ok(())
//! # }
//! ```
//!
//! The checks assume neither a shell nor any program: the first sandbox shows which programs there are, and checks that
//! need others are skipped.

// Layers, from top to bottom:
//
//   run      runs the checks and collects the results
//   groups   the checks, one file per group
//   table    what a check is
//   world    the provider, its sandboxes, and what a check has made
//   check    how a check ends, and helpers for assertions
//   gate     the proxy that damages connections       options   what a run consists of
mod check;
mod gate;
mod groups;
mod options;
mod run;
mod table;
mod world;

pub use check::State;
pub use options::Options;
pub use run::{CheckResult, Report, checks, groups, run};
pub use table::Check;
pub use world::{Observer, PARTS};
