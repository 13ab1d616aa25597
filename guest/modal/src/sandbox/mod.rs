//! Sandboxes: making them, finding them, what can be done with one, their sidecars, snapshots and logs.

pub mod create;
pub mod find;
pub mod logs;
pub mod manage;
pub mod options;
pub mod sidecar;
pub mod snapshot;
mod sort;
pub mod usage;
pub mod volume;
