//! Programs that a provider runs inside a sandbox: scripts for files, signals and users, and wrappers around a caller's
//! command. They need only `/bin/sh` and common programs of the image, and install nothing.

pub mod argv;
pub mod files;
pub mod script;
pub mod signal;
pub mod user;

pub use script::Script;
