//! The public API: providers, sandboxes, commands, files, images, the leases of a keeper, and checks for authors of plugins.

pub(crate) mod builder;
pub(crate) mod checkup;
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
