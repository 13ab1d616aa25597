//! Compares the tables of the manual with the services.

use std::collections::{BTreeMap, BTreeSet};

use modal_proto::client as proto;
use modal_proto::prost::Message as _;
use modal_proto::prost_types::{FieldDescriptorProto, FileDescriptorSet};
use modal_proto::task_command_router as tcr;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status};

use super::client::{Headers, World, code, credentials};

/// Returns the rows of a section's table whose second column is one of these words.
fn rows(section: &str, words: &[&str]) -> BTreeMap<String, String> {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/emulator.md")).unwrap();
    let section = manual.split(&format!("\n## {section}\n")).nth(1).expect("the manual has this section");
    let section = section.split("\n## ").next().unwrap();
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if words.contains(&cells[2]) {
            assert!(rows.insert(cells[1].to_owned(), cells[2].to_owned()).is_none(), "{} stands there twice", cells[1]);
        }
    }
    rows
}

fn table() -> BTreeMap<String, String> {
    rows("Methods", &["served", "refused", "not served"])
}

fn options() -> BTreeMap<String, String> {
    rows("Create options", &["done", "nothing", "refused"])
}

#[test]
fn every_method_is_in_the_table_once() {
    let descriptors = FileDescriptorSet::decode(modal_proto::DESCRIPTORS).unwrap();
    let mut names: Vec<String> = Vec::new();
    for service in descriptors.file.iter().flat_map(|file| &file.service) {
        names.extend(service.method.iter().map(|method| method.name().to_owned()));
    }
    names.sort();
    // Both services have a method of this name.
    names.dedup();
    assert_eq!(table().into_keys().collect::<Vec<_>>(), names);
}

/// Calls a method that the emulator does not have, and returns the status.
async fn call(world: &World, path: &'static str, headers: Headers) -> Status {
    let mut client = tonic::client::Grpc::new(InterceptedService::new(world.channel.clone(), headers));
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client.unary(Request::new(()), path.parse().unwrap(), codec).await.unwrap_err()
}

/// Official clients print "None" if the status has no message.
#[tokio::test]
async fn methods_that_are_not_served_are_named() {
    let mut world = World::start().await;
    let sandbox = world.sandbox().await;
    let token = world.emulator.state().task_token(&sandbox.task_id, None);
    let router = Headers(vec![("authorization", format!("Bearer {token}"))]);
    let control = Headers(credentials());
    for (path, headers) in [
        ("/modal.client.ModalClient/FunctionGet", control.clone()),
        // Would need a token if it existed.
        ("/modal.client.ModalClient/SandboxFlyToTheMoonV2", control.clone()),
        ("/modal.client.ModalClient/DictGetOrCreate", Headers::default()),
        ("/modal.task_command_router.TaskCommandRouter/TaskTeleport", router),
        ("/modal.task_command_router.TaskCommandRouter/TaskTeleport", Headers::default()),
        ("/modal.unknown.Service/Method", control),
        ("/grpc.health.v1.Health/Check", Headers::default()),
    ] {
        let status = call(&world, path, headers).await;
        let method = path.rsplit('/').next().unwrap();
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status}");
        assert!(status.message().contains(method) && status.message().contains("does not serve"), "{path}: {status}");
    }
}

/// Methods that the table does not list as served fail, with a code that clients do not take for a mistake of their own.
#[tokio::test]
async fn what_is_refused_is_refused() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    sandbox.start("x", "true").await;
    let (id, task_id) = (sandbox.id.clone(), sandbox.task_id.clone());
    let snapshot_id = String::from("sn-x");
    let (c, r) = (&mut world.control, &mut sandbox.router);
    let answers = [
        ("ProxyGet", code(c.proxy_get(proto::ProxyGetRequest::default()).await)),
        ("SandboxSnapshot", code(c.sandbox_snapshot(proto::SandboxSnapshotRequest { sandbox_id: id }).await)),
        (
            "SandboxSnapshotWait",
            code(
                c.sandbox_snapshot_wait(proto::SandboxSnapshotWaitRequest {
                    snapshot_id: snapshot_id.clone(),
                    timeout: 0.0,
                })
                .await,
            ),
        ),
        (
            "SandboxSnapshotGet",
            code(c.sandbox_snapshot_get(proto::SandboxSnapshotGetRequest { snapshot_id: snapshot_id.clone() }).await),
        ),
        (
            "SandboxRestore",
            code(
                c.sandbox_restore(proto::SandboxRestoreRequest {
                    snapshot_id: snapshot_id.clone(),
                    ..Default::default()
                })
                .await,
            ),
        ),
        (
            "SandboxRestoreV2",
            code(c.sandbox_restore_v2(proto::SandboxRestoreV2Request { snapshot_id, ..Default::default() }).await),
        ),
        (
            "TaskSnapshotMemory",
            code(
                r.task_snapshot_memory(tcr::TaskSnapshotMemoryRequest {
                    task_id: task_id.clone(),
                    ..Default::default()
                })
                .await,
            ),
        ),
        (
            "TaskSetOutboundPolicy",
            code(
                r.task_set_outbound_policy(tcr::TaskSetExperimentalOutboundPolicyRequest {
                    task_id,
                    ..Default::default()
                })
                .await,
            ),
        ),
    ];
    let refused: Vec<String> = table().into_iter().filter(|(_, how)| how != "served").map(|(name, _)| name).collect();
    let mut seen: Vec<String> = answers.iter().map(|(name, _)| (*name).to_owned()).collect();
    seen.sort();
    assert_eq!(seen, refused);
    for (name, code) in answers {
        let expected = [Code::Unimplemented, Code::FailedPrecondition, Code::NotFound];
        assert!(expected.contains(&code), "{name}: {code:?}");
    }
}

/// Returns the fields of a message by its full name.
fn fields(message: &str) -> Vec<FieldDescriptorProto> {
    let descriptors = FileDescriptorSet::decode(modal_proto::DESCRIPTORS).unwrap();
    let mut messages = descriptors.file.into_iter().flat_map(|file| {
        let package = file.package().to_owned();
        file.message_type.into_iter().map(move |message| (format!("{package}.{}", message.name()), message))
    });
    messages.find(|(name, _)| name == message).unwrap_or_else(|| panic!("no {message}")).1.field
}

#[test]
fn every_create_option_is_in_the_table_once() {
    // Messages whose fields have rows of their own.
    let taken_apart = ["Resources", "SchedulerPlacement", "VolumeMount", "CloudBucketMount"];
    let mut names: BTreeSet<String> = BTreeSet::new();
    for request in ["SandboxCreateRequest", "SandboxCreateV2Request"] {
        names.extend(fields(&format!("modal.client.{request}")).iter().map(|field| field.name().to_owned()));
    }
    names.remove("definition");
    for field in fields("modal.client.Sandbox") {
        match field.type_name().strip_prefix(".modal.client.").filter(|kind| taken_apart.contains(kind)) {
            Some(kind) => {
                let inner = fields(&format!("modal.client.{kind}"));
                names.extend(inner.iter().map(|inner| format!("{}.{}", field.name(), inner.name())));
            }
            None => {
                names.insert(field.name().to_owned());
            }
        }
    }
    assert_eq!(options().into_keys().collect::<Vec<_>>(), names.into_iter().collect::<Vec<_>>());
}

/// Options that the table lists as refused fail on both backends, and nothing is created.
#[tokio::test]
async fn refused_create_options_are_refused() {
    let mut world = World::start().await;
    let header = proto::experimental_outbound_policy::HeaderReplacement::default();
    let headers = proto::ExperimentalOutboundPolicy { header_replacements: vec![header] };
    let resources = |change: fn(&mut proto::Resources)| {
        let mut resources = proto::Resources::default();
        change(&mut resources);
        Some(resources)
    };
    let plain = world.definition();
    let with = |change: &dyn Fn(&mut proto::Sandbox)| {
        let mut definition = plain.clone();
        change(&mut definition);
        definition
    };
    let asked = [
        ("resources.ephemeral_disk_mb", with(&|d| d.resources = resources(|r| r.ephemeral_disk_mb = 1))),
        ("resources.rdma", with(&|d| d.resources = resources(|r| r.rdma = true))),
        ("nfs_mounts", with(&|d| d.nfs_mounts = vec![proto::SharedVolumeMount::default()])),
        (
            "scheduler_placement.nonpreemptible",
            with(&|d| {
                d.scheduler_placement = Some(proto::SchedulerPlacement { nonpreemptible: true, ..Default::default() });
            }),
        ),
        ("worker_id", with(&|d| d.worker_id = "wo-1".into())),
        ("i6pn_enabled", with(&|d| d.i6pn_enabled = true)),
        ("proxy_id", with(&|d| d.proxy_id = Some("pr-1".into()))),
        ("custom_domain", with(&|d| d.custom_domain = "example.com".into())),
        ("experimental_outbound_policy", with(&|d| d.experimental_outbound_policy = Some(headers.clone()))),
        ("include_x509_svid", with(&|d| d.include_x509_svid = true)),
    ];
    let mut seen: Vec<String> = asked.iter().map(|(name, _)| (*name).to_owned()).collect();
    seen.sort();
    assert_eq!(
        seen,
        options().into_iter().filter(|(_, how)| how == "refused").map(|(name, _)| name).collect::<Vec<_>>()
    );
    let codes = [Code::InvalidArgument, Code::NotFound, Code::Unimplemented];
    for (name, definition) in asked {
        let request = world.request(definition.clone());
        let first = proto::SandboxCreateRequest {
            app_id: request.app_id.clone(),
            definition: Some(definition),
            ..Default::default()
        };
        let (second, first) =
            (world.control.sandbox_create_v2(request).await, world.control.sandbox_create(first).await);
        for code in [code(second), code(first)] {
            assert!(codes.contains(&code), "{name}: {code:?}");
        }
    }
    assert!(world.emulator.state().tables.lock().sandboxes.is_empty());
}
