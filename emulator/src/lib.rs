//! An offline Modal: the sandbox part of its API on a loopback port, over real processes in real isolation.
//!
//! - [`isolation`]: containers out of namespaces and overlays; knows nothing of Modal.

pub mod isolation;
