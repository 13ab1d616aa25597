//! One way to reach a service: retry, a short-lived token and its renewal, and what is spoken on top.
//!
//! [`Failure`] says what retry and renewal need to know of a failed attempt, so that both are the same for gRPC and for
//! plain HTTP. [`retry::run`] repeats one call; [`endpoint::call`] does so with a token that it renews when it is refused.

pub mod endpoint;
pub mod failure;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod http;
pub mod json;
pub mod retry;
pub mod token;

pub use endpoint::Endpoint;
pub use failure::Failure;
