//! Commands: starting, supervising, reading, signals, and process 1 of the container.

mod command;
mod follow;
mod init;
mod input;
mod launch;
mod memory;
mod start;
mod state;
mod stream;
mod supervise;
mod tree;
mod verbs;

pub use init::init;
pub use start::{run, start};
pub use verbs::{read, signal, wait};
