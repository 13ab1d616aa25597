//! HTTP requests of components: policy, credentials, connections, responses. Also the gateway for hosts without HTTP/2.

pub(crate) mod body;
pub(crate) mod clock;
pub(crate) mod connect;
pub(crate) mod counters;
pub(crate) mod dial;
pub(crate) mod failure;
pub(crate) mod gateway;
pub(crate) mod hook;
pub(crate) mod learn;
pub(crate) mod link;
pub(crate) mod pointer;
mod pool;
pub(crate) mod proxy;
pub(crate) mod scrub;
