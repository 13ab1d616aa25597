//! Files. Modal has no calls for files. Each operation is an exec of the helper that Modal puts into every sandbox, or
//! of the image's own programs if the helper does not support it.

pub mod change;
pub mod directory;
pub mod transfer;
pub mod watch;
