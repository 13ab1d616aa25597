//! What embedders use: providers, sandboxes, commands, files, images, and the leases of a keeper.

pub(crate) mod files;
pub(crate) mod image;
pub(crate) mod keeper;
pub(crate) mod process;
pub(crate) mod provider;
pub(crate) mod sandbox;
pub(crate) mod spec;
