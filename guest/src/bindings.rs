//! What `wit-bindgen` makes of the interface. Only the export: imports come through the `wasip2` crate, and only those in
//! use end up in the component.
#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

pub use exports::harness::sandbox::sandbox_provider::Guest;
pub use harness::sandbox::types::*;
