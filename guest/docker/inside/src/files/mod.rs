//! Files of the sandbox: entries, contents, trees and watches.
//!
//! Paths are used with the rights of the user that the arguments name, never with those of the helper. A user of the
//! sandbox controls what lies at a path, so that nothing here depends on what was there a moment ago.

mod access;
mod change;
mod copy;
mod entry;
mod pack;
mod read;
mod tar;
mod transfer;
mod unpack;
mod watch;
mod watcher;
mod write;

pub use change::{chmod, mkdir, remove, rename, symlink};
pub use entry::{list, stat};
pub use pack::read_tree;
pub use read::read_file;
pub use unpack::write_tree;
pub use watch::watch;
pub use write::write_file;
