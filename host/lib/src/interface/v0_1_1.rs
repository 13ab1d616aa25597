//! Version 0.1.1, the newest: generated from `wit/` at compile time.
//!
//! The world here is our own and only exports the interface: what a component imports is settled by the linker in
//! `instance`, not by the bindings, so that a component built against another WASI patch version still loads.

// Generated items take their documentation from the WIT text; what the macro adds of its own has none.
#![allow(missing_docs)]

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package harness:host;
        world plugin {
            export harness:sandbox/sandbox-provider@0.1.1;
        }
    ",
    world: "harness:host/plugin",
    exports: { default: async },
    additional_derives: [PartialEq],
});
