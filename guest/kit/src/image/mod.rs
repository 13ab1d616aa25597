//! Parts of image builds that are the same for every service: Dockerfiles, build contexts by digest, uploads in parts.

pub mod context;
pub mod parts;
pub mod spec;
