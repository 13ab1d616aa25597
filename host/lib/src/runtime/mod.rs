//! Running components: instances, their limits, which instance serves which call, and the counters.

pub(crate) mod gate;
pub(crate) mod instance;
pub(crate) mod metrics;
pub(crate) mod warm;
