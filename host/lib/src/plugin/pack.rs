//! Puts a manifest into a component.

use wasm_encoder::{CustomSection, RawSection, Section as _};
use wasmparser::BinaryReader;

use crate::error::{Error, Kind, PluginFault, Result};
use crate::plugin::load::check_header;
use crate::plugin::manifest::{Manifest, SECTION};

/// Section ids of the binary format: custom sections, and in a component the core modules and components inside it.
const CUSTOM: u8 = 0;
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;

/// Length of the header of a module or component: magic number, version and layer.
const HEADER: usize = 8;

/// Returns a copy of a component with this manifest, which is checked first. A manifest that the component already
/// contains is removed, also from modules inside it. Everything else stays as it is.
///
/// ```
/// let manifest = "manifest = 1\nname = 'example'\ninterface = 'harness:sandbox@0.1.1'\n";
/// let empty = b"\0asm\x0d\0\x01\0";
/// let packed = sandbox_host::pack(empty, manifest)?;
/// assert_eq!(sandbox_host::Manifest::find(&packed)?.unwrap().name, "example");
/// # Ok::<(), sandbox_host::Error>(())
/// ```
///
/// # Errors
///
/// Those of [`Manifest::parse`]; [`PluginFault::CoreModule`], [`PluginFault::NotWasm`] or [`PluginFault::Invalid`] if the
/// bytes are no component.
pub fn pack(component: &[u8], manifest: &str) -> Result<Vec<u8>> {
    Manifest::parse(manifest)?;
    check_header(component)
        .map_err(|(fault, why, hint)| Error::new(Kind::Plugin(fault), "pack the component", why).with_hint(hint))?;
    let mut packed = without_manifest(component)
        .map_err(|error| Error::new(Kind::Plugin(PluginFault::Invalid), "pack the component", error.to_string()))?;
    CustomSection { name: SECTION.into(), data: manifest.as_bytes().into() }.append_to(&mut packed);
    Ok(packed)
}

/// Copies a component or module without its manifests.
fn without_manifest(bytes: &[u8]) -> wasmparser::Result<Vec<u8>> {
    let mut reader = BinaryReader::new(bytes, 0);
    let mut copy = reader.read_bytes(HEADER)?.to_vec();
    // Byte 6 is the layer: 1 for components, 0 for modules, in which other sections have the same numbers.
    let is_component = copy[6] == 1;
    while !reader.eof() {
        let id = reader.read_u8()?;
        let size = reader.read_var_u32()?;
        let data = reader.read_bytes(size as usize)?;
        match id {
            CUSTOM if BinaryReader::new(data, 0).read_string()? == SECTION => {}
            CORE_MODULE | COMPONENT if is_component => {
                RawSection { id, data: &without_manifest(data)? }.append_to(&mut copy);
            }
            _ => RawSection { id, data }.append_to(&mut copy),
        }
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> String {
        format!("manifest = 1\nname = '{name}'\ninterface = 'harness:sandbox@0.1.1'\n")
    }

    #[test]
    fn a_manifest_is_added_and_replaced_also_inside_modules() {
        let text =
            r#"(component (core module (@custom "harness:manifest" "old") (func (export "f"))) (@custom "kept" "x"))"#;
        let component = wat::parse_str(text).unwrap();
        assert!(Manifest::find(&component).is_err(), "the old one is read first");
        let packed = pack(&component, &manifest("a")).unwrap();
        assert_eq!(Manifest::find(&packed).unwrap().unwrap().name, "a");
        let again = pack(&packed, &manifest("b")).unwrap();
        assert_eq!(Manifest::find(&again).unwrap().unwrap().name, "b");
        assert_eq!(again.len(), packed.len());
        wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all()).validate_all(&again).unwrap();
        let sections: Vec<_> = wasmparser::Parser::new(0)
            .parse_all(&again)
            .filter_map(|payload| match payload.unwrap() {
                wasmparser::Payload::CustomSection(section) => Some(section.name().to_owned()),
                _ => None,
            })
            .collect();
        assert_eq!(sections, ["kept", SECTION]);
    }

    #[test]
    fn unusable_components_and_manifests_are_refused() {
        let fault = |bytes: &[u8], text: &str| pack(bytes, text).unwrap_err().kind().clone();
        let component = wat::parse_str("(component)").unwrap();
        assert_eq!(fault(&component, "name = 3"), Kind::Plugin(PluginFault::Invalid));
        assert_eq!(fault(b"text", &manifest("a")), Kind::Plugin(PluginFault::NotWasm));
        assert_eq!(fault(&wat::parse_str("(module)").unwrap(), &manifest("a")), Kind::Plugin(PluginFault::CoreModule));
        let cut = [&component[..], &[0, 9, 1]].concat();
        assert_eq!(fault(&cut, &manifest("a")), Kind::Plugin(PluginFault::Invalid));
    }
}
