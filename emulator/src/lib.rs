//! An offline Modal: the sandbox part of its API on a loopback port, over real processes in real isolation.
//!
//! - [`isolation`]: containers out of namespaces and overlays; knows nothing of Modal.
//! - [`fstools`]: the program inside a sandbox by which clients read and write files.

mod child;
pub mod fstools;
pub mod isolation;

pub use child::child_entry;
