//! Runs sandboxes: starts and ends their containers, commands, sidecars and tunnels.
//!
//! [`create`] makes a sandbox and starts [`supervise`] for it, which uses the other modules.

pub mod app_lives;
pub mod commands;
pub mod create;
pub mod disk_guard;
pub mod readiness;
pub mod removal;
pub mod sidecars;
pub mod snapshots;
pub mod supervise;
pub mod tunnels;
pub mod usage;
