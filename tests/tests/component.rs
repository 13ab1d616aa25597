//! Checks the component as a file: its imports, its exports and its size. Checks the size of the program too.

use wasmparser::{Parser, Payload};

/// Returns the names of the component's own imports and exports, without those of modules and components inside it.
fn surface(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.expect("the component is invalid") {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(
                    section.into_iter().map(|item| item.expect("an invalid import section").name.name.to_string()),
                );
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(
                    section.into_iter().map(|item| item.expect("an invalid export section").name.name.to_string()),
                );
            }
            _ => {}
        }
    }
    (imports, exports)
}

#[test]
fn the_component_imports_no_network_interface_but_http() {
    let bytes = std::fs::read(system_tests::component()).expect("cannot read the component");
    let (imports, exports) = surface(&bytes);
    let allowed = ["wasi:io/", "wasi:clocks/", "wasi:random/", "wasi:cli/", "wasi:http/", "harness:sandbox/types@"];
    let others: Vec<_> = imports.iter().filter(|name| !allowed.iter().any(|prefix| name.starts_with(prefix))).collect();
    assert!(others.is_empty(), "unexpected imports: {others:?}");
    assert!(imports.iter().any(|name| name.starts_with("wasi:http/outgoing-handler@")), "{imports:?}");
    assert!(exports.contains(&"harness:sandbox/sandbox-provider@0.2.0".to_string()), "{exports:?}");
    assert!(exports.iter().all(|name| name.starts_with("harness:sandbox/") && name.ends_with("@0.2.0")), "{exports:?}");
}

#[test]
fn the_component_contains_its_manifest() {
    let bytes = std::fs::read(system_tests::component()).expect("cannot read the component");
    let manifest =
        Parser::new(0).parse_all(&bytes).find_map(|payload| match payload.expect("the component is invalid") {
            Payload::CustomSection(section) if section.name() == "harness:manifest" => Some(section.data().to_vec()),
            _ => None,
        });
    let text = String::from_utf8(manifest.expect("no custom section harness:manifest")).expect("not UTF-8");
    assert_eq!(text, include_str!("../../guest/modal/manifest.toml"));
}

#[test]
fn each_component_has_at_most_1_mb() {
    for provider in ["modal", "docker", "memory"] {
        let path = system_tests::component().with_file_name(format!("{provider}-provider.wasm"));
        let size = std::fs::metadata(path).expect("cannot read the component").len();
        assert!(size <= 1_000_000, "the component for {provider} has {size} bytes; the limit is 1 MB");
    }
}

// On other targets the linker does not merge functions with the same code.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_program_has_at_most_40_mb() {
    let size = std::fs::metadata(system_tests::program()).expect("cannot read the program").len();
    assert!(
        size <= 40_000_000,
        "the program `sandbox` has {size} bytes; the limit is 40 MB. Settings of `opt-level` in the workspace's Cargo.toml \
         make crates smaller."
    );
}

#[test]
fn the_memory_provider_is_one_file_of_at_most_200_lines() {
    let lines = include_str!("../../guest/memory/src/lib.rs").lines().count();
    assert!(lines <= 200, "it has {lines} lines; a newcomer has to be able to read it as a whole");
}
