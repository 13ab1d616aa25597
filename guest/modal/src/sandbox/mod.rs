//! Sandboxes: create, find and manage them; their sidecars, snapshots, logs and usage.

pub mod create;
mod entry_point;
pub mod find;
pub mod logs;
pub mod manage;
pub mod options;
pub mod sidecar;
pub mod snapshot;
mod sort;
pub mod usage;
pub mod volume;
