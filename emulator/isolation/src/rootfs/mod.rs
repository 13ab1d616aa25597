//! Access to a container's files from outside the container. No other module of the emulator accesses them.
//!
//! The files in a container are untrusted and may change at any time: between two system calls, a directory can be
//! replaced by a link to a directory of the machine, and a file by a pipe. So no path is resolved twice, and none is
//! resolved relative to the machine's root:
//!
//! - A path is resolved once, with `openat2` and the container's root as `/` (`RESOLVE_IN_ROOT`), and never through the links
//!   to descriptors in `/proc`. Operations then use the descriptor, or a single name in it.
//! - Links in the last component of a path are not followed, unless the function documents that it follows them. Then they are
//!   resolved within the root.
//! - Only regular files are opened for reading, without blocking (`O_NONBLOCK`). At most as many bytes are read as the file
//!   had when it was opened.
//! - None of this runs on a thread of the async runtime.
//!
//! [`Root`] copies and writes files (for builds), [`Replica`] maintains a container's copy of a volume, `layer` copies
//! trees (for snapshots), and `remove_tree` removes trees and helps to measure their size. These rules do not apply to
//! code that runs inside a container (its init, the file tools), because paths there are the container's own.

mod chmod;
mod disk_usage;
pub(crate) mod layer;
mod open;
pub(crate) mod remove_tree;
mod replica;
mod root;

pub use chmod::Chmod;
pub(crate) use disk_usage::used;
pub(crate) use open::{open_inside, resolve};
pub use remove_tree::remove_tree;
pub use replica::{Entry, EntryKind, Replica};
pub use root::{Attributes, Listed, Root, Wanted};
