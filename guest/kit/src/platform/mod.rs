//! The platform of a provider: the trait `Transport`, and its two implementations in `wasi02` and `scripted`. This
//! folder imports nothing from the other folders.

mod transport;
mod url;

#[cfg(any(test, feature = "scripted"))]
pub mod scripted;
#[cfg(target_family = "wasm")]
pub mod wasi02;

pub use transport::*;
pub use url::{Url, escape};
