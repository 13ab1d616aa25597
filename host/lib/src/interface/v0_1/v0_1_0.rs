//! Version 0.1.0, which is 0.1.1 without `check-spec`, `delete-volume` and `report-usage`. Its records are the same.

#![allow(missing_docs)]

wasmtime::component::bindgen!({
    path: "../../wit/old/0.1.0",
    inline: "
        package harness:host;
        world plugin {
            export harness:sandbox/sandbox-provider@0.1.0;
        }
    ",
    world: "harness:host/plugin",
    exports: { default: async },
    with: { "harness:sandbox/types@0.1.0": crate::interface::v0_1::v0_1_1::harness::sandbox::types },
});
