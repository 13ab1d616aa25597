//! Generates messages, clients, server traits and RPC constants from `proto/proto/*.proto`.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use heck::{ToShoutySnakeCase as _, ToUpperCamelCase as _};
use prost::Message as _;
use prost_types::FileDescriptorSet;

use super::Generated;

/// The folder of the generated sources.
const FOLDER: &str = "proto/src/generated";

/// Generates all files. Fails if a `.proto` file is invalid.
pub fn generate(root: &Path) -> Result<Vec<Generated>> {
    let mut descriptors =
        protox::compile(["control_plane.proto", "task_command_router.proto"], [root.join("proto/proto")])?;
    let generated = |name: &str, content: Vec<u8>| Generated { path: Path::new(FOLDER).join(name), content };
    // For the test that compares them with those of the official client, and for tools that print messages.
    let mut files = vec![generated("descriptors.bin", descriptors.encode_to_vec())];
    // Comments are not copied, because rustdoc would read their brackets as links.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    files.push(generated("rpcs.rs", rpcs(&descriptors).into_bytes()));
    let folder = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .build_transport(false)
        .bytes(".")
        .out_dir(folder.path())
        .compile_fds(descriptors)?;
    for name in ["modal.client.rs", "modal.task_command_router.rs"] {
        let content = fs::read(folder.path().join(name)).with_context(|| format!("{name} was not generated"))?;
        files.push(generated(name, content));
    }
    Ok(files)
}

/// Returns one typed constant per method: its path and the types of its request and response.
fn rpcs(descriptors: &FileDescriptorSet) -> String {
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
                // Both services have a method SandboxWaitUntilReady. The messages of the router have the prefix Tcr,
                // which tells the constants apart.
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
