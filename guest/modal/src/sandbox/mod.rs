//! Sandboxes.

pub mod create;
pub mod logs;
pub mod manage;
pub mod options;
pub mod sidecar;
pub mod snapshot;
