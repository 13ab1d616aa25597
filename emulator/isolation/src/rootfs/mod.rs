//! All that is done to a container's files from outside of it. No other module of the emulator touches them.
//!
//! What lies in a container is hostile and changes at every moment: between two looks at a path, a directory can have become
//! a link to a place of the machine, and a file a pipe. So no path is ever used twice, and none is resolved as the machine's:
//!
//! - A path is resolved once, by `openat2`, as if the container's root were `/` (`RESOLVE_IN_ROOT`), and never through the
//!   links that `/proc` makes of descriptors. What is done then is done to the descriptor, or to one name in it.
//! - Links in the last part of a path are not followed.
//! - Only regular files are opened for reading, without waiting (`O_NONBLOCK`), and only as many bytes are read as the file
//!   had when it was opened.
//! - Nothing of it runs on a thread of the runtime.
//!
//! [`Root`] copies and writes files (builds); [`Replica`] keeps what a container sees of a volume; `layer` copies trees
//! (snapshots), `remove_tree` removes them and counts what they take. What runs inside a container (its init, the file tools) is not meant: paths are the container's own there.

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
