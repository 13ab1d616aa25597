//! Version 0.1.1, the newest, generated from `wit/` at compile time.
//!
//! The world in this file contains only the export. The imports of a component are resolved by the linker in
//! `runtime::link` and not by the bindings, so that components built with another WASI patch version can be loaded.

// Generated items have the documentation of the WIT text. Items that the macro adds have none.
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
