//! Placeholder.
#[allow(missing_docs, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package local:provider; world provider { export harness:sandbox/sandbox-provider@0.1.0; }",
        world: "local:provider/provider",
        generate_all,
    });
}
