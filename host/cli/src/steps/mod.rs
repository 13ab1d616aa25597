//! Steps that several commands have in common: an image, a sandbox, a command in it.

pub mod dockerfile;
pub mod execution;
pub mod image;
pub mod place;
pub mod sandbox;
pub mod terminal;
pub mod verdict;
