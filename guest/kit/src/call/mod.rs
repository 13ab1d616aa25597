//! Calls to a service: retries, a short-lived token and its renewal, and the protocols HTTP, JSON and gRPC.
//!
//! The trait [`Failure`] describes a failed attempt to the retry and renewal code, which is therefore the same for gRPC
//! and for plain HTTP. [`retry::run`] repeats one call. [`endpoint::call`] also renews a token that the service
//! rejects.

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
