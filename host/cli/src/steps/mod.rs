//! Steps that several commands share: building an image, creating a sandbox, running a command in it, lists and loops.

pub mod dockerfile;
pub mod execution;
pub mod image;
pub mod place;
pub mod sandbox;
pub mod several;
pub mod terminal;
pub mod verdict;
