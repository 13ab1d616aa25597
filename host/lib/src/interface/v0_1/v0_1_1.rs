//! Version 0.1.1, generated from `wit/old/0.1.1` at compile time.
//!
//! The world in this file contains only the export. The imports of a component are resolved by the linker in
//! `runtime::link` and not by the bindings, so that components built with another WASI patch version can be loaded.

// Generated items have the documentation of the WIT text. Items that the macro adds have none.
#![allow(missing_docs)]

wasmtime::component::bindgen!({
    path: "../../wit/old/0.1.1",
    inline: "
        package harness:host;
        world plugin {
            export harness:sandbox/sandbox-provider@0.1.1;
        }
    ",
    world: "harness:host/plugin",
    exports: { default: async },
});
