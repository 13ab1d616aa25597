//! The component as an artefact: what it imports, what it exports, how large it is.

use wasmparser::{Parser, Payload};

/// Names of the component's own imports and exports, not those of modules inside it.
fn surface(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.expect("a valid component") {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(section.into_iter().map(|item| item.expect("an import").name.name.to_string()));
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(section.into_iter().map(|item| item.expect("an export").name.name.to_string()));
            }
            _ => {}
        }
    }
    (imports, exports)
}

#[test]
fn it_reaches_the_outside_by_http_alone() {
    let bytes = std::fs::read(system_tests::component()).expect("the component");
    let (imports, exports) = surface(&bytes);
    let allowed = ["wasi:io/", "wasi:clocks/", "wasi:random/", "wasi:cli/", "wasi:http/", "harness:sandbox/types@"];
    let others: Vec<_> = imports.iter().filter(|name| !allowed.iter().any(|prefix| name.starts_with(prefix))).collect();
    assert!(others.is_empty(), "imports besides io, clocks, random, cli and http: {others:?}");
    assert!(imports.iter().any(|name| name.starts_with("wasi:http/outgoing-handler@")), "{imports:?}");
    assert_eq!(exports, ["harness:sandbox/sandbox-provider@0.1.1"]);
}

#[test]
fn it_carries_its_manifest() {
    let bytes = std::fs::read(system_tests::component()).expect("the component");
    let manifest = Parser::new(0).parse_all(&bytes).find_map(|payload| match payload.expect("a valid component") {
        Payload::CustomSection(section) if section.name() == "harness:manifest" => Some(section.data().to_vec()),
        _ => None,
    });
    let text = String::from_utf8(manifest.expect("a section harness:manifest")).expect("text");
    assert_eq!(text, include_str!("../../guest/modal/manifest.toml"));
}

#[test]
fn it_is_small() {
    let size = std::fs::metadata(system_tests::component()).expect("the component").len();
    assert!(size <= 1_000_000, "{size} bytes, and at most 1 MB may be shipped");
}
