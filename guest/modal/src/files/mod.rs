//! Files.

pub mod script;
pub mod transfer;
pub mod watch;
