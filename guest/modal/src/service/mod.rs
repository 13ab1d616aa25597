//! The service: its two endpoints, what has a name there, and the configuration.

pub mod cache;
pub mod config;
pub mod control;
pub mod error;
pub mod id;
pub mod names;
pub mod policy;
pub mod router;
