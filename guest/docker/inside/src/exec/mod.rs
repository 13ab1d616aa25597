//! Commands: starting, supervising, reading, signals, and process 1 of the container.

mod command;
mod deadline;
mod feed;
mod follow;
mod init;
mod input;
mod launch;
mod list;
mod memory;
mod note;
mod probe;
mod start;
mod state;
mod stream;
mod supervise;
mod tree;
mod verbs;

pub use deadline::extend;
pub use feed::{input, resize};
pub use init::init;
pub use launch::detach;
pub use list::execs;
pub use note::note;
pub use probe::probe;
pub use start::{run, start};
pub use state::{Exec, Verdict};
pub use verbs::{read, signal, wait};
