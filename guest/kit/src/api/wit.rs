//! The bindings that `wit-bindgen` generates for the interfaces of `wit/`: the types, and one module for each interface with
//! its trait `Guest` and its macro `export!`. Only exports are generated here. The imports come from the crate `wasip2`, so
//! that the component contains only the imports that it uses.
//!
//! Each interface is generated from a world of its own, because the type of a component comes from the worlds whose
//! `export!` is used. A provider that exports three interfaces therefore becomes a component with these three exports.
#![allow(missing_docs, clippy::all, clippy::missing_errors_doc)]

/// The records of the interface.
pub mod types {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package local:provider; world types { import harness:sandbox/types@0.2.0; }",
        world: "local:provider/types",
        generate_all,
        generate_unused_types: true,
    });
}

pub use types::harness::sandbox::types::*;

macro_rules! interface {
    ($module:ident, $world:literal, $inline:literal) => {
        interface!($module, $world, $inline, { "harness:sandbox/types@0.2.0": crate::api::wit::types::harness::sandbox::types });
    };
    ($module:ident, $world:literal, $inline:literal, $with:tt) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                inline: $inline,
                world: $world,
                with: $with,
                pub_export_macro: true,
            });

            pub use exports::harness::sandbox::$module::Guest;
        }
    };
}

interface!(
    sandbox_provider,
    "local:provider/only-sandbox-provider",
    "package local:provider; world only-sandbox-provider { export harness:sandbox/sandbox-provider@0.2.0; }"
);
interface!(
    exec,
    "local:provider/only-exec",
    "package local:provider; world only-exec { export harness:sandbox/exec@0.2.0; }"
);
interface!(
    processes,
    "local:provider/only-processes",
    "package local:provider; world only-processes { export harness:sandbox/processes@0.2.0; }"
);
interface!(
    files,
    "local:provider/only-files",
    "package local:provider; world only-files { export harness:sandbox/files@0.2.0; }"
);
interface!(
    trees,
    "local:provider/only-trees",
    "package local:provider; world only-trees { export harness:sandbox/trees@0.2.0; }"
);
interface!(
    watches,
    "local:provider/only-watches",
    "package local:provider; world only-watches { export harness:sandbox/watches@0.2.0; }"
);
interface!(
    images,
    "local:provider/only-images",
    "package local:provider; world only-images { export harness:sandbox/images@0.2.0; }"
);
interface!(
    snapshots,
    "local:provider/only-snapshots",
    "package local:provider; world only-snapshots { export harness:sandbox/snapshots@0.2.0; }"
);
interface!(
    memory_snapshots,
    "local:provider/only-memory-snapshots",
    "package local:provider; world only-memory-snapshots { export harness:sandbox/memory-snapshots@0.2.0; }"
);
interface!(
    inventory,
    "local:provider/only-inventory",
    "package local:provider; world only-inventory { export harness:sandbox/inventory@0.2.0; }"
);
interface!(
    volumes,
    "local:provider/only-volumes",
    "package local:provider; world only-volumes { export harness:sandbox/volumes@0.2.0; }"
);
interface!(
    names,
    "local:provider/only-names",
    "package local:provider; world only-names { export harness:sandbox/names@0.2.0; }"
);
interface!(
    readiness,
    "local:provider/only-readiness",
    "package local:provider; world only-readiness { export harness:sandbox/readiness@0.2.0; }"
);
interface!(
    lifecycle,
    "local:provider/only-lifecycle",
    "package local:provider; world only-lifecycle { export harness:sandbox/lifecycle@0.2.0; }"
);
interface!(
    network,
    "local:provider/only-network",
    "package local:provider; world only-network { export harness:sandbox/network@0.2.0; }"
);
interface!(
    tunnels,
    "local:provider/only-tunnels",
    "package local:provider; world only-tunnels { export harness:sandbox/tunnels@0.2.0; }"
);
interface!(
    sidecars,
    "local:provider/only-sidecars",
    "package local:provider; world only-sidecars { export harness:sandbox/sidecars@0.2.0; }"
);
interface!(
    logs,
    "local:provider/only-logs",
    "package local:provider; world only-logs { export harness:sandbox/logs@0.2.0; }"
);
interface!(
    usage,
    "local:provider/only-usage",
    "package local:provider; world only-usage { export harness:sandbox/usage@0.2.0; }"
);
interface!(
    cache,
    "local:provider/only-cache",
    "package local:provider; world only-cache { export harness:sandbox/cache@0.2.0; }",
    {}
);
