//! Runs components: instances, their limits, the choice of an instance for each call, and the counters.

pub(crate) mod call;
pub(crate) mod gate;
pub(crate) mod instance;
pub(crate) mod limits;
pub(crate) mod link;
pub(crate) mod meter;
pub mod metrics;
pub(crate) mod printed;
mod refuse;
pub(crate) mod runner;
pub(crate) mod signals;
pub(crate) mod single;
pub(crate) mod store;
pub(crate) mod warm;
