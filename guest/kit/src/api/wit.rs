//! The bindings that `wit-bindgen` generates for the interface. Only the export is generated here. The imports come
//! from the crate `wasip2`, so that the component contains only the imports that it uses.
#![allow(missing_docs, clippy::all, clippy::missing_errors_doc)]

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
