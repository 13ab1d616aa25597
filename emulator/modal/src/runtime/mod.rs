//! What happens to sandboxes: how their containers, commands and tunnels begin and end.

pub mod commands;
pub mod disk_guard;
pub mod readiness;
pub mod sidecars;
pub mod tunnels;
