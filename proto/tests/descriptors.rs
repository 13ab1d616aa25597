//! Compares our `.proto` files with the descriptors in the official Python package. Each of our messages, field names,
//! numbers, types, labels, oneofs and enum values must exist there, and each method must have the same types.
//!
//! `cargo xtask test` installs the package into `target/venv`. `SANDBOX_PYTHON` names another interpreter that has it.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use modal_proto::prost::Message as _;
use modal_proto::prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorSet, field_descriptor_proto::Label,
};

/// Prints the descriptors of the package as a `FileDescriptorSet`.
const DUMP: &str = r"
import sys
from google.protobuf import descriptor_pb2
from modal_proto import api_pb2, task_command_router_pb2
files = descriptor_pb2.FileDescriptorSet()
for module in (api_pb2, task_command_router_pb2):
    module.DESCRIPTOR.CopyToProto(files.file.add())
sys.stdout.buffer.write(files.SerializeToString())
";

/// The compared facts: the full name of an item, and its description for failure messages.
type Facts = BTreeMap<String, String>;

fn facts(files: &FileDescriptorSet) -> Facts {
    let mut facts = Facts::new();
    for file in files.file.iter().filter(|file| file.package().starts_with("modal.")) {
        for message in &file.message_type {
            message_facts(&mut facts, file.package(), message);
        }
        for item in &file.enum_type {
            enum_facts(&mut facts, file.package(), item);
        }
        for service in &file.service {
            for method in &service.method {
                facts.insert(
                    format!("rpc {}.{}/{}", file.package(), service.name(), method.name()),
                    format!(
                        "({}{}) returns ({}{})",
                        if method.client_streaming() { "stream " } else { "" },
                        method.input_type(),
                        if method.server_streaming() { "stream " } else { "" },
                        method.output_type()
                    ),
                );
            }
        }
    }
    facts
}

fn message_facts(facts: &mut Facts, parent: &str, message: &DescriptorProto) {
    let name = format!("{parent}.{}", message.name());
    facts.insert(format!("message {name}"), String::new());
    for field in &message.field {
        let label = match field.label() {
            Label::Repeated => "repeated ",
            Label::Optional | Label::Required if field.proto3_optional() => "optional ",
            Label::Optional | Label::Required => "",
        };
        let oneof = match field.oneof_index {
            Some(index) if !field.proto3_optional() => {
                let oneof = usize::try_from(index).ok().and_then(|index| message.oneof_decl.get(index));
                format!("oneof {} ", oneof.map_or("?", |oneof| oneof.name()))
            }
            _ => String::new(),
        };
        facts.insert(
            format!("field {name}.{}", field.name()),
            format!("{oneof}{label}{:?} {} = {}", field.r#type(), field.type_name(), field.number()),
        );
    }
    for nested in &message.nested_type {
        message_facts(facts, &name, nested);
    }
    for item in &message.enum_type {
        enum_facts(facts, &name, item);
    }
}

fn enum_facts(facts: &mut Facts, parent: &str, item: &EnumDescriptorProto) {
    let name = format!("{parent}.{}", item.name());
    facts.insert(format!("enum {name}"), String::new());
    for value in &item.value {
        facts.insert(format!("value {name}.{}", value.name()), value.number().to_string());
    }
}

fn official() -> FileDescriptorSet {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = std::env::var_os("SANDBOX_PYTHON").map_or_else(|| root.join("target/venv/bin/python"), PathBuf::from);
    let output = Command::new(&python)
        .args(["-c", DUMP])
        .output()
        .unwrap_or_else(|error| panic!("{} cannot be run ({error}): `cargo xtask test` installs it", python.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    FileDescriptorSet::decode(output.stdout.as_slice()).expect("the output is not a FileDescriptorSet")
}

#[test]
fn our_proto_text_agrees_with_the_official_client() {
    let ours = facts(&FileDescriptorSet::decode(modal_proto::DESCRIPTORS).expect("our descriptors are invalid"));
    let theirs = facts(&official());
    assert!(ours.len() > 1000, "only {} facts: the .proto files seem to be incomplete", ours.len());
    let differences: Vec<String> = ours
        .iter()
        .filter_map(|(name, ours)| match theirs.get(name) {
            Some(theirs) if theirs == ours => None,
            Some(theirs) => Some(format!("{name}: ours is `{ours}`, theirs is `{theirs}`")),
            None => Some(format!("{name}: it does not exist in the official client")),
        })
        .collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn a_wrong_field_number_is_found() {
    let mut wrong = FileDescriptorSet::decode(modal_proto::DESCRIPTORS).expect("our descriptors are invalid");
    let right = facts(&wrong);
    let files = wrong.file.iter_mut().filter(|file| file.package().starts_with("modal."));
    let field = files.flat_map(|file| &mut file.message_type).flat_map(|m| &mut m.field).next().expect("no field");
    field.number = Some(field.number() + 1);
    let changed = facts(&wrong);
    assert_eq!(right.iter().filter(|(name, fact)| changed.get(*name) != Some(fact)).count(), 1);
}
