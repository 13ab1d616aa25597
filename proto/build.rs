//! Compiles `proto/*.proto` with protox and writes message types, clients and server traits.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut descriptors = protox::compile(["control_plane.proto", "task_command_router.proto"], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // Read back by the descriptor test and by tools that print messages.
    std::fs::write(out.join("descriptors.bin"), {
        use prost::Message as _;
        descriptors.encode_to_vec()
    })?;
    // Comments stay in the .proto text: rustdoc would take their brackets for links.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    std::fs::write(out.join("rpcs.rs"), rpcs(&descriptors))?;
    tonic_prost_build::configure()
        .build_client(std::env::var_os("CARGO_FEATURE_CLIENT").is_some())
        .build_server(std::env::var_os("CARGO_FEATURE_SERVER").is_some())
        .build_transport(false)
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}

/// One typed constant per method: its path, and the messages that go there and come back.
fn rpcs(descriptors: &prost_types::FileDescriptorSet) -> String {
    use heck::{ToShoutySnakeCase as _, ToUpperCamelCase as _};
    use std::fmt::Write as _;

    let rust_type = |name: Option<&String>| match name.map(String::as_str) {
        None | Some(".google.protobuf.Empty") => "()".to_string(),
        Some(name) => {
            let (package, message) = name.trim_start_matches('.').rsplit_once('.').unwrap_or(("", name));
            format!("crate::{}::{}", package.rsplit('.').next().unwrap_or(package), message.to_upper_camel_case())
        }
    };
    let mut text = String::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                // Both services have a SandboxWaitUntilReady; the messages of the router's say Tcr as well.
                let mut name = method.name().to_shouty_snake_case();
                if text.contains(&format!("pub const {name}:")) {
                    name += "_TCR";
                }
                let _ = writeln!(
                    text,
                    "/// `{0}` of `{1}`.\npub const {2}: Rpc<{3}, {4}> = Rpc::new(\"/{5}.{1}/{0}\");",
                    method.name(),
                    service.name(),
                    name,
                    rust_type(method.input_type.as_ref()),
                    rust_type(method.output_type.as_ref()),
                    file.package(),
                );
            }
        }
    }
    text
}
