//! Images: layers, builds and build contexts.

pub mod blob;
pub mod build;
pub mod context;
pub mod layers;
