//! The public API: providers, sandboxes, commands, files, images, and the leases of a keeper.

pub(crate) mod builder;
pub(crate) mod files;
pub(crate) mod gateway;
pub(crate) mod image;
pub(crate) mod keeper;
pub(crate) mod plugin;
pub(crate) mod process;
pub(crate) mod provider;
pub(crate) mod sandbox;
pub(crate) mod signal;
pub(crate) mod spec;
pub(crate) mod upload;
