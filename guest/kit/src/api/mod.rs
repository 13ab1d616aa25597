//! The interface in Rust: its records, its error type, and checks of arguments that are the same for every provider.
//! This folder imports nothing from the other folders.

pub mod check;
pub mod error;
pub mod ids;
pub mod needs;
pub mod records;
pub mod time;
pub mod wit;

pub use error::{Error, Result};
