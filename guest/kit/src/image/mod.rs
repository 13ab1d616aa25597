//! Images as far as they are no service's own: Dockerfiles, build contexts by digest, uploads in parts.

pub mod context;
pub mod parts;
pub mod spec;
