//! Files. Modal has no file calls: each operation is an exec of a helper that it puts into every sandbox, or of the image's own
//! programs where the helper cannot do it.

pub mod change;
pub mod directory;
pub mod transfer;
pub mod watch;
