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
    tonic_prost_build::configure()
        .build_client(std::env::var_os("CARGO_FEATURE_CLIENT").is_some())
        .build_server(std::env::var_os("CARGO_FEATURE_SERVER").is_some())
        .build_transport(false)
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
