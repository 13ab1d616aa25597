//! Files of this machine: build contexts, ignore rules, Dockerfiles, directory trees.

pub(crate) mod context;
pub(crate) mod dockerfile;
pub(crate) mod ignore;
pub(crate) mod tree;
