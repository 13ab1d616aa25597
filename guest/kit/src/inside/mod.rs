//! What a provider runs inside a sandbox for its own operations: scripts for files, signals and users, and the wrappers around
//! a caller's command. They need `/bin/sh` and the usual programs of the image, and nothing of the provider's.

pub mod argv;
pub mod files;
pub mod script;
pub mod signal;
pub mod user;

pub use script::Script;
