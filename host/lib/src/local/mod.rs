//! Files of this machine: build contexts, ignore rules, Dockerfiles, and directory trees as tar streams.

pub(crate) mod context;
pub(crate) mod dockerfile;
pub(crate) mod ignore;
pub(crate) mod tree;
