//! Tests of calls to the control plane: contents of requests that the emulator does not support or show, and faults
//! between requests.

use std::{collections::BTreeMap, time::Duration};

use crate::script::{Answer, Provide as _, SANDBOX, Script, filter, modal, ok, run, text};
use modal_proto::{
    client::{
        AppFetchLogsRequest, AppFetchLogsResponse, BlobCreateRequest, BlobCreateResponse, CloudBucketMount,
        ImageFromIdResponse, ImageGetOrCreateRequest, ImageGetOrCreateResponse, MountGetOrCreateRequest,
        MountGetOrCreateResponse, MountPutFileRequest, MountPutFileResponse, MultiPartUpload, MultiPartUploadList,
        Proxy, ProxyGetResponse, RpcRetryPolicy, RpcStatus, SandboxCreateConnectTokenRequest,
        SandboxCreateConnectTokenResponse, SandboxCreateRequest, SandboxCreateResponse, SandboxCreateV2Request,
        SandboxCreateV2Response, SandboxHandleMetadata, SandboxInfo, SandboxListRequest, SandboxListResponse,
        SandboxRestoreRequest, SandboxRestoreResponse, SandboxRestoreV2Request, SandboxRestoreV2Response,
        SandboxSnapshotGetResponse, SandboxSnapshotHandleMetadata, SandboxSnapshotResponse,
        SandboxSnapshotWaitResponse, SandboxTerminateRequest, SandboxTerminateResponse, SandboxWaitResponse,
        SecretGetOrCreateRequest, SecretGetOrCreateResponse, TaskLogs, TaskLogsBatch, VolumeGetOrCreateRequest,
        VolumeGetOrCreateResponse, blob_create_response::UploadTypesOneof, cloud_bucket_mount::BucketType,
        generic_result::GenericStatus, mount_put_file_request::DataOneof, network_access::NetworkAccessType,
        sandbox::OpenPortsOneof, secret_source::Source,
    },
    prost::Message,
    prost_types::Any,
    task_command_router::{
        TaskSetNetworkAccessRequest, TaskSnapshotDirectoryRequest, TaskSnapshotDirectoryResponse,
        TaskSnapshotMemoryRequest, TaskSnapshotMemoryResponse,
    },
};
use modal_provider::Provider;
use sandbox_provider_kit::{
    api::wit::{
        BucketMount, Content, ContextFile, Dockerfile, EntryPoint, ErrorKind, Gpu, Happened, ImageSource, ImageSpec,
        Location, LogQuery, NetworkPolicy, Outbound, Port, PortKind, Probe, Pty, Readiness, Resources, RetryAdvice,
        SandboxSpec, SidecarSpec, VolumeMount,
    },
    export::SandboxProvider as _,
    platform::Transport as _,
};
use sha2::{Digest as _, Sha256};

const OLD: &str = "sb-0123456789abcdefghijAB";

pub fn image() -> ImageSpec {
    ImageSpec {
        source: ImageSource::Id("im-1".into()),
        commands: vec![],
        secrets: vec![],
        force: false,
        builder_version: Some("2025.06".into()),
        gpu: None,
        platform: None,
        extra: vec![],
    }
}

pub fn spec() -> SandboxSpec {
    SandboxSpec {
        image: image(),
        entry_point: EntryPoint::Image,
        user: None,
        env: vec![],
        secrets: vec![],
        workdir: None,
        resources: Resources {
            cpu_request_millicores: None,
            cpu_limit_millicores: None,
            memory_request_mib: None,
            memory_limit_mib: None,
            disk_mib: None,
            gpu: None,
        },
        lifetime: None,
        idle_timeout: None,
        regions: vec![],
        network: NetworkPolicy { outbound: Outbound::Open, inbound_cidrs: vec![] },
        ports: vec![],
        volumes: vec![],
        buckets: vec![],
        name: None,
        tags: vec![],
        readiness: None,
        sidecars: vec![],
        pty: None,
        proxy: None,
        key: None,
        options: vec![],
        extra: vec![],
    }
}

/// Returns the only request to a method.
fn only<M: Message + Default>(script: &Script, method: &str) -> M {
    let calls = script.calls(method);
    assert_eq!(calls.len(), 1, "{method}");
    M::decode(calls[0].body.clone()).expect("a message")
}

fn created(script: &Script) {
    let answer = SandboxCreateV2Response { sandbox_id: SANDBOX.into(), ..Default::default() };
    script.will("SandboxCreateV2", ok(&answer));
}

#[test]
fn the_request_says_all_that_was_asked_for() {
    let script = modal();
    script.serves("SecretGetOrCreate", |request: SecretGetOrCreateRequest| SecretGetOrCreateResponse {
        secret_id: format!("st-{}", request.deployment_name),
        metadata: None,
    });
    script.will("VolumeGetOrCreate", ok(&VolumeGetOrCreateResponse { volume_id: "vo-1".into(), ..Default::default() }));
    let proxy = Proxy { proxy_id: "pr-1".into(), ..Default::default() };
    script.will("ProxyGet", ok(&ProxyGetResponse { proxy: Some(proxy) }));
    created(&script);
    let volume = |volume: &str, path: &str, create: bool| VolumeMount {
        volume: volume.into(),
        path: path.into(),
        read_only: create,
        sub_path: create.then(|| "sub".into()),
        create,
    };
    let options = [
        ("backend", "\"v2\""),
        ("cloud", "\"aws\""),
        ("runtime", "\"vm\""),
        ("i6pn", "true"),
        ("memory_snapshots", "true"),
        ("exit_snapshot", "true"),
        ("docker", "true"),
        ("sidecar_memory_mib", "256"),
        ("verbose", "true"),
        ("custom_domain", "\"example.org\""),
        ("identity_token", "true"),
        ("experimental", r#"{"other": 3}"#),
    ];
    let wanted = SandboxSpec {
        entry_point: EntryPoint::Command(vec!["run".into()]),
        user: None,
        env: vec![("A".into(), "1".into())],
        secrets: vec!["login".into()],
        resources: Resources { cpu_request_millicores: Some(500), memory_limit_mib: Some(64), ..spec().resources },
        lifetime: Some(1500),
        idle_timeout: Some(1),
        regions: vec!["us-east".into()],
        network: NetworkPolicy {
            outbound: Outbound::Allowed(sandbox_provider_kit::api::wit::AllowList {
                cidrs: vec!["10.0.0.0/8".into()],
                domains: vec!["*.example.org".into()],
            }),
            inbound_cidrs: vec!["192.168.0.0/16".into()],
        },
        ports: [PortKind::Tls, PortKind::H2, PortKind::Tcp]
            .into_iter()
            .zip(1..)
            .map(|(kind, number)| Port { number, kind })
            .collect(),
        volumes: vec![volume("data", "/data", true), volume("vo-2", "/more", false)],
        buckets: vec![BucketMount {
            bucket: "b".into(),
            path: "/b".into(),
            endpoint: Some("https://x.r2.cloudflarestorage.com/".into()),
            prefix: Some("p/".into()),
            secret: Some("bucket".into()),
            read_only: true,
            extra: vec![("requester_pays".into(), "true".into()), ("oidc_role".into(), "\"arn:x\"".into())],
        }],
        name: Some("n".into()),
        readiness: Some(Probe { check: Readiness::Tcp(80), interval: Some(250) }),
        pty: Some(Pty { rows: 10, columns: 20, term: "vt100".into() }),
        proxy: Some("p".into()),
        options: options.map(|(name, value)| (name.to_string(), value.to_string())).into(),
        ..spec()
    };
    run(script.provider().create(wanted)).expect("it is created");

    let request: SandboxCreateV2Request = only(&script, "SandboxCreateV2");
    let sources: Vec<_> = request.secret_sources.into_iter().filter_map(|source| source.source).collect();
    assert_eq!(sources.len(), 2, "secrets first, variables last");
    assert!(matches!(&sources[0], Source::SecretId(id) if id == "st-login"));
    assert!(matches!(&sources[1], Source::Env(env) if env.contents["A"] == "1"));
    let definition = request.definition.expect("a definition");
    assert_eq!(definition.secret_ids, ["st-login"]);
    assert_eq!((definition.timeout_secs, definition.idle_timeout_secs), (2, Some(1)), "rounded up");
    let resources = definition.resources.expect("resources");
    assert_eq!((resources.milli_cpu, resources.milli_cpu_max, resources.memory_mb_max), (500, 0, 64));
    let access = definition.network_access.expect("an access");
    assert_eq!(access.network_access_type(), NetworkAccessType::Allowlist);
    assert_eq!(
        (access.allowed_cidrs, access.allowed_domains),
        (vec!["10.0.0.0/8".into()], vec!["*.example.org".into()])
    );
    assert_eq!(definition.inbound_cidr_allowlist, ["192.168.0.0/16"]);
    let Some(OpenPortsOneof::OpenPorts(ports)) = definition.open_ports_oneof else { panic!("no ports") };
    let ports: Vec<_> = ports.ports.iter().map(|port| (port.port, port.unencrypted, port.tunnel_type)).collect();
    assert_eq!(ports, [(1, false, None), (2, false, Some(1)), (3, true, None)]);
    let volumes: Vec<_> =
        definition.volume_mounts.iter().map(|mount| (mount.volume_id.as_str(), mount.read_only)).collect();
    assert_eq!(volumes, [("vo-1", true), ("vo-2", false)]);
    assert!(definition.volume_mounts.iter().all(|mount| mount.allow_background_commits));
    assert_eq!(only::<VolumeGetOrCreateRequest>(&script, "VolumeGetOrCreate").object_creation_type, 1);
    let bucket: &CloudBucketMount = &definition.cloud_bucket_mounts[0];
    assert_eq!((bucket.bucket_type(), bucket.requester_pays, bucket.read_only), (BucketType::R2, true, true));
    assert_eq!(bucket.credentials_secret_id, "st-bucket");
    assert_eq!((bucket.oidc_auth_role_arn.as_deref(), bucket.key_prefix.as_deref()), (Some("arn:x"), Some("p/")));
    assert_eq!(definition.proxy_id.as_deref(), Some("pr-1"));
    assert_eq!((definition.cloud_provider_str.as_str(), definition.runtime.as_deref()), ("aws", Some("vm")));
    assert!(definition.i6pn_enabled && definition.enable_snapshot && definition.verbose);
    assert!(definition.include_oidc_identity_token);
    assert_eq!(definition.custom_domain, "example.org");
    let experimental: BTreeMap<_, _> = definition.experimental_options_v2.into_iter().collect();
    let text: Vec<_> = experimental.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        text,
        ["enable_docker=True", "enable_exit_snapshot=True", "other=3", "vm_sidecar_memory_reserve_mib=256"]
    );
    assert_eq!(definition.readiness_probe.expect("a probe").interval_ms, Some(250));
    assert_eq!(definition.pty_info.expect("a terminal").env_term, "vt100");
    assert_eq!(definition.name.as_deref(), Some("n"));
}

#[test]
fn a_sandbox_is_open_or_cut_off_from_its_beginning() {
    for (outbound, expected) in
        [(Outbound::Blocked, NetworkAccessType::Blocked), (Outbound::Open, NetworkAccessType::Open)]
    {
        let script = modal();
        created(&script);
        let network = NetworkPolicy { outbound, inbound_cidrs: vec![] };
        run(script.provider().create(SandboxSpec { network, ..spec() })).expect("it is created");
        let request: SandboxCreateV2Request = only(&script, "SandboxCreateV2");
        let access = request.definition.expect("a definition").network_access.expect("an access");
        assert_eq!(access.network_access_type(), expected);
    }
}

#[test]
fn an_accelerator_takes_the_older_backend() {
    let script = modal();
    script.will("SecretGetOrCreate", ok(&SecretGetOrCreateResponse { secret_id: "st-env".into(), metadata: None }));
    script.will("SandboxCreate", ok(&SandboxCreateResponse { sandbox_id: OLD.into(), metadata: None }));
    let wanted = SandboxSpec {
        env: vec![("A".into(), "1".into())],
        tags: vec![("k".into(), "v".into())],
        key: Some("once".into()),
        resources: Resources { gpu: Some(Gpu { model: "h100".into(), count: 2 }), ..spec().resources },
        options: vec![("network_file_systems".into(), r#"{"/nfs": "sv-1"}"#.into())],
        ..spec()
    };
    let info = run(script.provider().create(wanted.clone())).expect("it is created");
    assert_eq!(info.extra, [("backend".to_string(), "\"v1\"".to_string())]);
    let request: SandboxCreateRequest = only(&script, "SandboxCreate");
    assert_eq!(request.tags.len(), 1);
    let definition = request.definition.expect("a definition");
    let gpu = definition.resources.expect("resources").gpu_config.expect("an accelerator");
    assert_eq!((gpu.gpu_type.as_str(), gpu.count), ("H100", 2));
    assert_eq!(definition.secret_ids, ["st-env"], "variables travel as a secret");
    assert_eq!(definition.nfs_mounts[0].shared_volume_id, "sv-1");
    let secret: SecretGetOrCreateRequest = only(&script, "SecretGetOrCreate");
    assert_eq!((secret.object_creation_type, secret.app_id.as_str()), (4, "ap-1"));

    // All requests use keys that depend only on the caller's key, in any instance.
    let keys = |script: &Script| {
        ["SandboxCreate", "SecretGetOrCreate"].map(|method| text(&script.calls(method)[0], "x-idempotency-key"))
    };
    let first = keys(&script);
    let script = modal();
    script.will("SecretGetOrCreate", ok(&SecretGetOrCreateResponse { secret_id: "st-env".into(), metadata: None }));
    script.will("SandboxCreate", ok(&SandboxCreateResponse { sandbox_id: OLD.into(), metadata: None }));
    run(script.provider().create(wanted)).expect("it is created");
    assert_eq!(keys(&script), first);
    assert_ne!(first[0], first[1]);
}

fn come_back_in(seconds: f32) -> Answer {
    let value = RpcRetryPolicy { retry_after_secs: seconds }.encode_to_vec();
    let any = Any { type_url: "type.modal.com/modal.client.RPCRetryPolicy".into(), value };
    Answer::Status(8, RpcStatus { code: 8, message: String::new(), details: vec![any] }.encode_to_vec())
}

#[test]
fn a_create_leaves_long_waits_to_its_caller() {
    let script = modal();
    for seconds in [0.5, 1.0, 7.0] {
        script.will("SandboxCreateV2", come_back_in(seconds));
    }
    let error = run(script.provider().create(spec())).expect_err("there is no capacity");
    assert!(matches!(error.kind, ErrorKind::ResourceExhausted) && matches!(error.happened, Happened::No), "{error:?}");
    assert!(matches!(error.retry, RetryAdvice::After(7000)), "{:?}", error.retry);
    assert_eq!(script.calls("SandboxCreateV2").len(), 3);
    assert!(script.now() < Duration::from_secs(2));
}

#[test]
fn half_a_sandbox_is_taken_back() {
    let script = modal();
    created(&script);
    script.will("SandboxContainerCreateV2", Answer::Status(3, Vec::new()));
    script.will("SandboxTerminateV2", ok(&SandboxTerminateResponse::default()));
    let sidecar = SidecarSpec {
        name: "side".into(),
        image: image(),
        entry_point: EntryPoint::Image,
        env: vec![],
        secrets: vec![],
        workdir: None,
        volumes: vec![],
        outbound: Outbound::Open,
        extra: vec![],
    };
    let wanted = SandboxSpec { sidecars: vec![sidecar], ..spec() };
    let error = run(script.provider().create(wanted)).expect_err("the sidecar is refused");
    assert!(error.message.contains("`side`") && error.message.contains("was terminated"), "{}", error.message);
    assert_eq!(only::<SandboxTerminateRequest>(&script, "SandboxTerminateV2").sandbox_id, SANDBOX);
}

// ---- uploads ---------------------------------------------------------------------------------------------------------

fn content(bytes: &[u8]) -> Content {
    let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Content {
        sha256,
        size: bytes.len() as u64,
        digests: vec![("md5".into(), "00112233445566778899aabbccddeeff".into())],
    }
}

fn large() -> Vec<u8> {
    (0..10 << 20_u32).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// The answer to an announcement: three parts of 4 MiB, the last one shorter.
fn announced() -> Answer {
    let multipart = MultiPartUpload {
        part_length: 4 << 20,
        upload_urls: ["part1", "part2", "part3"].map(|part| format!("https://store.test/up/{part}?sig=x")).into(),
        completion_url: "https://store.test/up/done".into(),
    };
    let several = MultiPartUploadList { items: vec![multipart] };
    ok(&BlobCreateResponse {
        blob_ids: vec!["bl-1".into()],
        upload_types_oneof: Some(UploadTypesOneof::Multiparts(several)),
        ..Default::default()
    })
}

/// Uploads the bytes in pieces of this size, each at the offset that the provider returns.
fn send(provider: &Provider, bytes: &[u8], piece: usize) -> Result<u64, modal_provider::Error> {
    let content = content(bytes);
    let mut offset = 0;
    loop {
        let rest = &bytes[offset as usize..];
        offset = run(provider.upload_content(&content, offset, rest[..piece.min(rest.len())].to_vec()))?;
        if offset == content.size {
            return Ok(offset);
        }
    }
}

#[test]
fn a_large_file_goes_up_in_the_parts_that_are_asked_for() {
    let bytes = large();
    for piece in [1 << 20, 3_000_000, 10 << 20] {
        let script = modal();
        script.will("BlobCreate", announced());
        for (part, tag) in [("part1", "\"a\""), ("part2", "\"b\""), ("part3", "\"c\"")] {
            script.will(part, Answer::Http(200, tag, ""));
        }
        script.will("done", Answer::Http(200, "\"d\"", "<CompleteMultipartUploadResult/>"));
        script.will("MountPutFile", ok(&MountPutFileResponse { exists: false, checked_at: None }));
        script.will("MountPutFile", ok(&MountPutFileResponse { exists: true, checked_at: None }));
        assert_eq!(send(&script.provider(), &bytes, piece).expect("it is sent"), bytes.len() as u64);
        let parts: Vec<_> = ["part1", "part2", "part3"].map(|part| script.calls(part)[0].body.clone()).into();
        assert!(parts.concat() == bytes, "the parts are not the file");
        assert_eq!(text(&script.calls("part3")[0], "content-length"), (2 << 20).to_string());
        let done = String::from_utf8(script.calls("done")[0].body.to_vec()).expect("text");
        assert!(done.contains("<Part><PartNumber>2</PartNumber><ETag>\"b\"</ETag></Part>"), "{done}");
        let put = MountPutFileRequest::decode(script.calls("MountPutFile")[0].body.clone()).expect("a request");
        assert_eq!(put.data_oneof, Some(DataOneof::DataBlobId("bl-1".into())));
        let blob: BlobCreateRequest = only(&script, "BlobCreate");
        assert_eq!(blob.content_md5, "ABEiM0RVZneImaq7zN3u/w==");
    }
}

#[test]
fn an_upload_that_fails_begins_anew() {
    let bytes = large();
    let script = modal();
    script.will("BlobCreate", announced());
    script.will("part1", Answer::Http(200, "\"a\"", ""));
    script.will("part2", Answer::Http(503, "", "<Error>SlowDown</Error>"));
    let provider = script.provider();
    let error = send(&provider, &bytes, 1 << 20).expect_err("the store is busy");
    assert!(matches!(error.kind, ErrorKind::Unavailable) && matches!(error.retry, RetryAdvice::Maybe), "{error:?}");
    assert!(error.message.contains("SlowDown"), "{}", error.message);
    // No instance remembers the upload.
    let answer = run(provider.upload_content(&content(&bytes), 5 << 20, vec![0])).expect("no error");
    assert_eq!(answer, 0, "from the beginning");

    // A response of the store that is longer than expected is not passed on.
    script.will("BlobCreate", announced());
    script.will("part1", Answer::Http(403, "", "x".repeat(65 * 1024).leak()));
    let error = send(&provider, &bytes, 4 << 20).expect_err("refused");
    assert!(error.message.contains("status 403") && !error.message.contains("xx"), "{}", error.message);

    // The store reports the failure only at the end.
    script.will("BlobCreate", announced());
    for part in ["part1", "part2", "part3"] {
        script.will(part, Answer::Http(200, "\"a\"", ""));
    }
    script.will("done", Answer::Http(200, "", "<Error>InternalError</Error>"));
    let error = send(&provider, &bytes, 4 << 20).expect_err("it failed");
    assert!(error.message.contains("InternalError"), "{}", error.message);
    assert_eq!(script.calls("MountPutFile").len(), 0);
}

#[test]
fn small_files_are_gathered_and_checked() {
    let script = modal();
    let provider = script.provider();
    script.will("MountPutFile", ok(&MountPutFileResponse { exists: true, checked_at: None }));
    assert_eq!(send(&provider, b"hello world", 4).expect("it is sent"), 11);
    let put: MountPutFileRequest = only(&script, "MountPutFile");
    assert_eq!(put.data_oneof, Some(DataOneof::Data(b"hello world"[..].into())));
    let wrong = content(b"hello");
    let error = run(provider.upload_content(&wrong, 0, b"jello".to_vec())).expect_err("another digest");
    assert!(matches!(error.kind, ErrorKind::InvalidArgument), "{error:?}");
    for (offset, data) in [(0, &b"too long"[..]), (4, b"ab"), (0, b"")] {
        let error = run(provider.upload_content(&wrong, offset, data.to_vec())).expect_err("it does not fit");
        assert!(error.message.contains("does not fit"), "{}", error.message);
    }
    assert_eq!(script.calls("MountPutFile").len(), 1);
    let bare = Content { digests: vec![], ..content(&large()) };
    let error = run(provider.upload_content(&bare, 0, vec![0])).expect_err("no MD5");
    assert!(error.message.contains("MD5"), "{}", error.message);
}

#[test]
fn a_build_names_its_context_accelerator_and_stage() {
    let script = modal();
    let mount = MountGetOrCreateResponse { mount_id: "mo-1".into(), handle_metadata: None };
    script.will("MountGetOrCreate", ok(&mount));
    let result = modal_proto::client::GenericResult { status: GenericStatus::Success.into(), ..Default::default() };
    for id in ["im-1", "im-2"] {
        let answer = ImageGetOrCreateResponse { image_id: id.into(), result: Some(result.clone()), metadata: None };
        script.will("ImageGetOrCreate", ok(&answer));
    }
    let dockerfile = Dockerfile {
        text: "FROM a AS one\nCOPY x /x\nFROM b\nRUN y\n".into(),
        context: vec![ContextFile { path: "x".into(), mode: 0o100_755, content: content(b"x") }],
        build_args: vec![("A".into(), "1".into())],
        target: Some("ONE".into()),
        login: None,
    };
    let spec = ImageSpec {
        source: ImageSource::Dockerfile(dockerfile),
        commands: vec!["RUN z".into()],
        gpu: Some(Gpu { model: "t4".into(), count: 1 }),
        force: true,
        ..image()
    };
    let progress = run(script.provider().start_build(&spec)).expect("it is built");
    assert_eq!(progress.image.expect("both layers are there").id, "im-2");
    let mount: MountGetOrCreateRequest = only(&script, "MountGetOrCreate");
    assert_eq!((mount.object_creation_type, mount.app_id.as_str()), (4, "ap-1"));
    assert_eq!((mount.files[0].filename.as_str(), mount.files[0].mode), ("/x", Some(0o755)));
    let layers: Vec<_> = script
        .calls("ImageGetOrCreate")
        .iter()
        .map(|seen| ImageGetOrCreateRequest::decode(seen.body.clone()).expect("a request"))
        .collect();
    assert!(layers.iter().all(|layer| layer.force_build && layer.builder_version == "2025.06"));
    let [first, second] = [0, 1].map(|index| layers[index].image.clone().expect("an image"));
    assert_eq!(first.dockerfile_commands, ["FROM a AS one", "COPY x /x"]);
    assert_eq!((first.context_mount_id.as_str(), first.build_args["A"].as_str()), ("mo-1", "1"));
    assert_eq!(first.gpu_config.expect("an accelerator").gpu_type, "T4");
    assert_eq!(second.dockerfile_commands, ["FROM base", "RUN z"]);
    assert_eq!(second.base_images[0].image_id, "im-1");
}

// ---- lists and logs --------------------------------------------------------------------------------------------------

#[test]
fn sandboxes_of_one_moment_are_each_listed_once() {
    let made = [(5.0, "sb-e"), (4.0, "sb-d"), (4.0, "sb-c"), (4.0, "sb-b"), (3.0, "sb-a")];
    for max in 1..=6 {
        let script = modal();
        // The server returns pages of three, and its cursor is a time.
        script.serves("SandboxListV2", move |request: SandboxListRequest| {
            let before = if request.before_timestamp > 0.0 { request.before_timestamp } else { f64::INFINITY };
            let page = made.iter().filter(|(at, _)| *at < before).take(3);
            let info = |(created_at, id): &(f64, &str)| SandboxInfo {
                created_at: *created_at,
                id: (*id).into(),
                ..Default::default()
            };
            SandboxListResponse { sandboxes: page.map(info).collect() }
        });
        let provider = script.provider();
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let page = run(provider.list(filter(), cursor, max)).expect("a page");
            found.extend(page.items.into_iter().map(|info| info.id));
            assert!(found.len() <= 5, "{found:?}");
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(found, ["sb-e", "sb-d", "sb-c", "sb-b", "sb-a"], "{max} at a time");
    }
}

#[test]
fn a_log_that_is_too_long_for_one_answer_is_read_in_halves() {
    const SECOND: u64 = 1_000_000_000;
    let nanos = |time: Option<modal_proto::prost_types::Timestamp>| {
        let time = time.expect("a time");
        time.seconds as u64 * SECOND + time.nanos as u64
    };
    // 6000 entries: three at each moment in the last quarter of 100 s, or all at one moment.
    for at in [|number: u64| 75 * SECOND + number / 3 * (25 * SECOND / 2000), |_| 75 * SECOND] {
        let script = modal();
        let app = SandboxHandleMetadata { app_id: "ap-7".into(), result: None };
        script.will("SandboxWaitV2", ok(&SandboxWaitResponse { result: None, metadata: Some(app.clone()) }));
        script.serves("AppFetchLogs", move |request: AppFetchLogsRequest| {
            assert_eq!((request.app_id.as_str(), request.task_id.as_str()), ("ap-7", "ta-1"));
            let span = nanos(request.since)..=nanos(request.until);
            // The newest entries in an arbitrary order.
            let fitting = (0..6000).rev().filter(|number| span.contains(&at(*number))).take(request.limit as usize);
            let entry =
                |number: u64| TaskLogs { data: format!("{number}\n"), timestamp_ns: at(number), ..Default::default() };
            let mut items: Vec<_> = fitting.map(entry).collect();
            items.sort_by_key(|entry| (entry.timestamp_ns % 7, entry.data.parse::<u64>().unwrap_or(0)));
            AppFetchLogsResponse { batches: vec![TaskLogsBatch { items, ..Default::default() }] }
        });
        let provider = script.provider();
        let query = LogQuery { since: Some(0), until: Some(100_000), stream: None, search: None };
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            script.will("SandboxWaitV2", ok(&SandboxWaitResponse { result: None, metadata: Some(app.clone()) }));
            let page = run(provider.read_logs(SANDBOX, &query, cursor, 10_007)).expect("a page");
            found.extend(page.items.into_iter().map(|item| item.text));
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let text = found.concat();
        let mut numbers: Vec<u64> = text.lines().map(|line| line.parse().expect("a number")).collect();
        assert!(numbers.is_sorted_by_key(|number| at(*number)), "in order of time");
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..6000), "{} entries", numbers.len());
    }
}

// ---- calls of one backend only, and calls to the router --------------------------------------------------------------

#[test]
fn memory_snapshots_of_both_backends() {
    let script = modal();
    let provider = script.provider();
    script.will("TaskSnapshotMemory", ok(&TaskSnapshotMemoryResponse { snapshot_id: "sn-2".into() }));
    assert_eq!(run(provider.snapshot_memory(SANDBOX, "k")).expect("a snapshot"), "sn-2");
    let newer: TaskSnapshotMemoryRequest = only(&script, "TaskSnapshotMemory");

    script.will("SandboxSnapshot", ok(&SandboxSnapshotResponse { snapshot_id: "sn-1".into() }));
    script.will("SandboxSnapshotWait", ok(&SandboxSnapshotWaitResponse::default()));
    let done = modal_proto::client::GenericResult { status: GenericStatus::Success.into(), ..Default::default() };
    script.will("SandboxSnapshotWait", ok(&SandboxSnapshotWaitResponse { result: Some(done) }));
    assert_eq!(run(provider.snapshot_memory(OLD, "k")).expect("a snapshot"), "sn-1");
    assert_eq!(text(&script.calls("SandboxSnapshot")[0], "x-idempotency-key"), newer.idempotency_key);

    let known = |is_v2| SandboxSnapshotGetResponse {
        snapshot_id: String::new(),
        handle_metadata: Some(SandboxSnapshotHandleMetadata { is_v2 }),
    };
    script.will("SandboxSnapshotGet", ok(&known(true)));
    let restored = SandboxRestoreV2Response { sandbox_id: SANDBOX.into(), ..Default::default() };
    script.will("SandboxRestoreV2", ok(&restored));
    let info = run(provider.restore("sn-2", "k", Some("n".into()))).expect("it is restored");
    assert_eq!((info.id.as_str(), info.name.as_deref()), (SANDBOX, Some("n")));
    let request: SandboxRestoreV2Request = only(&script, "SandboxRestoreV2");
    assert_eq!((request.sandbox_name_override.as_str(), request.sandbox_name_override_type), ("n", 2));

    script.will("SandboxSnapshotGet", ok(&known(false)));
    script.will("SandboxRestore", ok(&SandboxRestoreResponse { sandbox_id: OLD.into() }));
    let ready = modal_proto::client::SandboxGetTaskIdResponse { task_id: Some("ta-9".into()), task_result: None };
    script.will("SandboxGetTaskId", ok(&ready));
    assert_eq!(run(provider.restore("sn-1", "k", None)).expect("it is restored").id, OLD);
    let request: SandboxRestoreRequest = only(&script, "SandboxRestore");
    assert_eq!(request.sandbox_name_override_type, 1, "no name rather than one that may be taken");
}

#[test]
fn tokens_for_connections() {
    for (sandbox, method) in [(SANDBOX, "SandboxCreateConnectTokenV2"), (OLD, "SandboxCreateConnectToken")] {
        let script = modal();
        let answer = SandboxCreateConnectTokenResponse { url: "https://x.test".into(), token: "t".into() };
        script.will(method, ok(&answer));
        let made = run(script.provider().create_connect_token(sandbox, 8080, "who".into())).expect("a token");
        assert_eq!(made.url, "https://x.test");
        assert_eq!(made.headers, [("authorization".to_string(), "Bearer t".to_string())]);
        let request: SandboxCreateConnectTokenRequest = only(&script, method);
        assert_eq!((request.port, request.user_metadata.as_str()), (Some(8080), "who"));
        let error = run(script.provider().create_connect_token(sandbox, 0, String::new())).expect_err("no port");
        assert!(matches!(error.kind, ErrorKind::InvalidArgument));
    }
}

#[test]
fn blocking_a_running_sandbox_is_an_allow_list_of_nothing() {
    let script = modal();
    script.will("TaskSetNetworkAccess", ok(&()));
    let policy = NetworkPolicy { outbound: Outbound::Blocked, inbound_cidrs: vec![] };
    run(script.provider().set_network(SANDBOX, &policy)).expect("it is set");
    let request: TaskSetNetworkAccessRequest = only(&script, "TaskSetNetworkAccess");
    let access = request.network_access.expect("an access");
    assert_eq!(access.network_access_type(), NetworkAccessType::Allowlist);
    assert!(access.allowed_cidrs.is_empty() && access.allowed_domains.is_empty());
}

#[test]
fn a_snapshot_says_how_long_it_is_kept() {
    for (ttl, seconds) in [(None, -1), (Some(1), 1), (Some(90_500), 91)] {
        let script = modal();
        script.will("TaskSnapshotDirectory", ok(&TaskSnapshotDirectoryResponse { image_id: "im-9".into() }));
        let at = Location { sandbox: SANDBOX.into(), container: None, path: "/work".into(), user: None };
        assert_eq!(run(script.provider().snapshot_directory(&at, "k", ttl)).expect("an image"), "im-9");
        let request: TaskSnapshotDirectoryRequest = only(&script, "TaskSnapshotDirectory");
        assert_eq!((request.ttl_seconds, &request.path[..]), (Some(seconds), &b"/work"[..]));
    }
}

#[test]
fn a_named_image_is_looked_up_and_not_built() {
    let script = modal();
    let named = modal_proto::client::ImageGetByTagResponse { image_id: "im-5".into() };
    script.will("ImageGetByTag", ok(&named));
    script.will("ImageFromId", ok(&ImageFromIdResponse { image_id: "im-5".into(), metadata: None }));
    let spec = ImageSpec { source: ImageSource::Named("tools".into()), ..image() };
    let progress = run(script.provider().start_build(&spec)).expect("it is there");
    assert_eq!(progress.image.expect("an image").id, "im-5");
    let request: modal_proto::client::ImageGetByTagRequest = only(&script, "ImageGetByTag");
    assert_eq!(request.tag, "tools:latest");
}
