//! What a provider runs on, and the two implementations of it. Imports nothing of the other folders.

mod transport;
mod url;

#[cfg(any(test, feature = "scripted"))]
pub mod scripted;
#[cfg(target_family = "wasm")]
pub mod wasi02;

pub use transport::*;
pub use url::{Url, escape};
