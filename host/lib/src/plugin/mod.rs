//! Loads components: reading, compilation, the cache of compiled code, and manifests.

pub(crate) mod cache;
pub(crate) mod compile;
pub(crate) mod engine;
pub(crate) mod load;
pub(crate) mod manifest;
pub(crate) mod origin;
pub(crate) mod pack;
mod sys;
pub(crate) mod template;
