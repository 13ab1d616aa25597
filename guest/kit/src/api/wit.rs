//! What `wit-bindgen` makes of the interface. Only the export: imports come through the `wasip2` crate, and only those in
//! use end up in the component.
#![allow(missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package local:provider;
        world provider {
            export harness:sandbox/sandbox-provider@0.1.1;
        }
    ",
    world: "local:provider/provider",
    generate_all,
    pub_export_macro: true,
});

pub use exports::harness::sandbox::sandbox_provider::Guest;
pub use harness::sandbox::types::*;
