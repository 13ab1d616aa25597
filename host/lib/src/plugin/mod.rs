//! Components: loading them, keeping their compiled code, and what their manifests wish for.

pub(crate) mod cache;
pub(crate) mod compile;
pub(crate) mod engine;
pub(crate) mod load;
pub(crate) mod manifest;
mod sys;
