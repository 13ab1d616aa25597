//! The lives of sandboxes: how their containers, commands, sidecars and tunnels begin and end.
//!
//! [`create`] makes a sandbox and gives it to [`supervise`], which uses the others.

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
