//! The table of methods in the manual, held against the services themselves.

use std::collections::BTreeMap;

use modal_proto::client as proto;
use modal_proto::prost::Message as _;
use modal_proto::prost_types::FileDescriptorSet;
use modal_proto::task_command_router as tcr;
use tonic::Code;

use crate::client::{World, code};

fn table() -> BTreeMap<String, String> {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/emulator.md")).unwrap();
    let methods = manual.split("## Methods").nth(1).expect("the manual has a section on methods");
    let mut rows = BTreeMap::new();
    for line in methods.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if ["served", "refused", "not served"].contains(&cells[2]) {
            assert!(rows.insert(cells[1].to_owned(), cells[2].to_owned()).is_none(), "{} stands there twice", cells[1]);
        }
    }
    rows
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

/// What the table does not call served is refused, with a code that a client can tell from a mistake of its own.
#[tokio::test]
async fn what_is_refused_is_refused() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    sandbox.start("x", "true").await;
    let (id, task_id) = (sandbox.id.clone(), sandbox.task_id.clone());
    let snapshot_id = String::from("sn-x");
    let path = bytes::Bytes::from_static(b"/mnt");
    let policy = proto::SandboxSetOutboundPolicyRequest { sandbox_id: id.clone(), ..Default::default() };
    let token = proto::SandboxCreateConnectTokenRequest { sandbox_id: id.clone(), ..Default::default() };
    let (c, r) = (&mut world.control, &mut sandbox.router);
    let answers = [
        ("ProxyGet", code(c.proxy_get(proto::ProxyGetRequest::default()).await)),
        ("SandboxCreateConnectToken", code(c.sandbox_create_connect_token(token.clone()).await)),
        ("SandboxCreateConnectTokenV2", code(c.sandbox_create_connect_token_v2(token).await)),
        ("SandboxSetOutboundPolicy", code(c.sandbox_set_outbound_policy(policy.clone()).await)),
        ("SandboxSetOutboundPolicyV2", code(c.sandbox_set_outbound_policy_v2(policy).await)),
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
                    task_id: task_id.clone(),
                    ..Default::default()
                })
                .await,
            ),
        ),
        (
            "TaskMountDirectory",
            code(
                r.task_mount_directory(tcr::TaskMountDirectoryRequest {
                    task_id: task_id.clone(),
                    path: path.clone(),
                    ..Default::default()
                })
                .await,
            ),
        ),
        (
            "TaskUnmountDirectory",
            code(
                r.task_unmount_directory(tcr::TaskUnmountDirectoryRequest {
                    task_id: task_id.clone(),
                    path: path.clone(),
                    ..Default::default()
                })
                .await,
            ),
        ),
        (
            "TaskSnapshotDirectory",
            code(
                r.task_snapshot_directory(tcr::TaskSnapshotDirectoryRequest { task_id, path, ..Default::default() })
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
