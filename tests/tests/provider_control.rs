//! The control plane of the provider for Modal, through the host library, with the emulator: what the checks of
//! `sandbox-host conformance` do not say, because it is not the same for other providers.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use sandbox_host::{
    Error, Happened, Kind, LocalDockerfile, Plugin, Provider, Result, Retry, Sandbox, SandboxWithInfo, Secret, Waiting,
    fresh_id,
    types::{
        BucketMount, Content, ContextFile, EndReason, ExecSpec, ImageSource, ImageSpec, ListFilter, LogQuery,
        NetworkPolicy, OutputStream, RegistryLogin, SandboxSpec, SidecarSpec, Support, Verdict, VolumeMount,
    },
};
use system_tests::{
    Emulator, component,
    http_client::{self, text},
};

/// An emulator and a provider that uses it.
struct World {
    emulator: Emulator,
    provider: Provider,
    waits: Arc<Mutex<Vec<Waiting>>>,
}

impl World {
    async fn new() -> Result<World> {
        World::with(&[]).await
    }

    async fn with(env: &[(&str, &str)]) -> Result<World> {
        let emulator = Emulator::start();
        let waits = Arc::<Mutex<Vec<Waiting>>>::default();
        let provider = provider(&emulator, env, &waits).await?;
        Ok(World { emulator, provider, waits })
    }

    async fn sandbox(&self) -> Result<Sandbox> {
        self.provider.create(SandboxSpec::default()).await
    }

    /// Adds a fault rule to the emulator.
    fn fault(&self, rule: &str) {
        let answer = self.emulator.request("POST", "/emulator/faults", rule);
        assert_eq!(answer.status(), 200, "{}", text(&answer));
    }
}

async fn provider(emulator: &Emulator, env: &[(&str, &str)], waits: &Arc<Mutex<Vec<Waiting>>>) -> Result<Provider> {
    let plugin = Plugin::load(component()).await?;
    let waits = waits.clone();
    let mut builder = Provider::builder(&plugin)
        .inherit_env(false)
        .env("MODAL_SERVER_URL", emulator.url())
        .credential("token-id", Secret::new("ak-test"))
        .credential("token-secret", Secret::new("as-test"))
        .on_wait(move |waiting| waits.lock().expect("the lock is poisoned").push(waiting.clone()));
    for (name, value) in env {
        builder = builder.env(*name, *value);
    }
    builder.build().await
}

/// Runs a shell command line, which must succeed, and returns its standard output without surrounding white space.
async fn sh(sandbox: &Sandbox, line: &str) -> Result<String> {
    let result = sandbox.run(ExecSpec::shell(line)).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    assert!(matches!(result.verdict, Verdict::Exited(0)), "{line}: {:?} {}", result.verdict, text(&result.stderr.data));
    Ok(text(&result.stdout.data))
}

/// Returns the error of a call that must fail with this kind and a message that contains `text`.
#[track_caller]
fn refused<T>(result: Result<T>, kind: Kind, text: &str) -> Error {
    let Err(error) = result else { panic!("the call should have failed: {kind:?} {text}") };
    assert_eq!(*error.kind(), kind, "{error}");
    assert!(error.to_string().contains(text), "{text:?} is missing in: {error}");
    error
}

fn write(directory: &Path, files: &[(&str, &[u8])]) {
    for (path, bytes) in files {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().expect("no parent directory")).expect("cannot create the directory");
        std::fs::write(path, bytes).expect("cannot write the file");
    }
}

async fn built(provider: &Provider, spec: ImageSpec) -> Result<(String, String)> {
    let mut log = String::new();
    let image = provider.build(spec).await?.finish(|chunk| log.push_str(&chunk.text)).await?;
    Ok((image.id, log))
}

// ---- images ----------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stages_have_numbers_and_dockerfiles_their_own_ignore_rules() -> Result<()> {
    let world = World::new().await?;
    let directory = tempfile::tempdir().expect("cannot create a directory");
    let root = directory.path();
    let text = b"FROM debian AS build\nCOPY data/ /data/\nFROM debian AS tested\nRUN echo tested >/stage\n";
    write(
        root,
        &[
            ("docker/App.Dockerfile", text),
            ("docker/App.Dockerfile.dockerignore", b"*\n!data/keep\n"),
            ("data/keep", b"k"),
            ("data/drop", b"d"),
        ],
    );
    let image = async |target: &str| {
        let dockerfile = LocalDockerfile::read(root.join("docker/App.Dockerfile")).await?.context(root).target(target);
        let (spec, _) = world.provider.dockerfile(dockerfile, |_, _| {}).await?;
        built(&world.provider, spec).await
    };
    let sandbox = world.provider.create(SandboxSpec::new(ImageSpec::id(image("0").await?.0))).await?;
    assert_eq!(sh(&sandbox, "ls /data; test ! -e /stage").await?, "keep");
    let error = refused(image("absent").await, Kind::InvalidArgument, "build, tested");
    assert_eq!(error.happened(), Happened::No);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_build_names_the_instruction_and_its_output() -> Result<()> {
    let world = World::new().await?;
    let spec = ImageSpec::dockerfile(
        "FROM debian\nRUN echo one\nRUN echo about to fail; echo the reason >&2; exit 3\nRUN echo never\n",
    );
    let mut build = world.provider.build(spec.clone()).await?;
    let (mut log, mut streams) = (String::new(), HashSet::new());
    let error = loop {
        match build.next().await {
            Ok(Some(chunk)) => {
                log.push_str(&chunk.text);
                streams.insert(chunk.stream.map(|stream| stream == OutputStream::Stderr));
            }
            Ok(None) => panic!("the build should have failed"),
            Err(error) => break error,
        }
    };
    assert!(log.contains("one\n") && log.contains("the reason\n") && !log.contains("never"), "{log}");
    assert!(
        streams.contains(&Some(true)) && streams.contains(&Some(false)),
        "one of the streams is missing: {streams:?}"
    );
    let error = refused(Err::<(), _>(error), Kind::BuildFailed, "RUN echo about to fail");
    assert!(error.to_string().contains("the reason") && !error.to_string().contains("one"), "{error}");
    assert!(error.to_string().len() < 4096);
    assert_eq!(error.retry(), Retry::Never);
    // The create of a sandbox from this image fails with the same reason, but has no log.
    refused(world.provider.create(SandboxSpec::new(spec)).await, Kind::BuildFailed, "the reason");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_invalid_part_of_an_image() -> Result<()> {
    let world = World::new().await?;
    let provider = &world.provider;
    let refuse = |spec: ImageSpec, kind: Kind, text: &'static str| async move {
        refused(provider.build(spec).await.map(drop), kind, text)
    };
    refused(provider.image("im-absent").await, Kind::NotFound, "im-absent");
    refused(provider.image("debian").await, Kind::InvalidArgument, "im-");
    refuse(ImageSpec::registry(""), Kind::InvalidArgument, "image name").await;
    refuse(ImageSpec::registry("de bian"), Kind::InvalidArgument, "image name").await;
    refuse(ImageSpec::named("absent"), Kind::NotFound, "absent").await;
    refuse(ImageSpec::dockerfile("RUN x"), Kind::InvalidArgument, "FROM").await;
    refuse(ImageSpec::dockerfile("FROM a\0"), Kind::InvalidArgument, "NUL").await;
    refuse(ImageSpec::dockerfile("FROM a\nCOPY x /x"), Kind::InvalidArgument, "COPY x /x").await;
    refuse(ImageSpec::registry("debian").command("COPY x /x"), Kind::InvalidArgument, "no build context").await;
    let two = ImageSpec::registry("debian").command("RUN a\nRUN b");
    refuse(two, Kind::InvalidArgument, "one Dockerfile line each").await;
    let unknown = ImageSpec { extra: vec![("x".into(), "1".into())], ..ImageSpec::default() };
    refuse(unknown, Kind::InvalidArgument, "`x`").await;
    refused(built(provider, ImageSpec::registry("does-not-exist")).await, Kind::BuildFailed, "does-not-exist");
    let mut spec = ImageSpec::dockerfile("FROM debian\nCOPY . /x\n");
    let ImageSource::Dockerfile(dockerfile) = &mut spec.source else { panic!("expected a Dockerfile image") };
    let content = Content { sha256: "0".repeat(64), size: 1, digests: vec![] };
    dockerfile.context = vec![ContextFile { path: "a".into(), mode: 0o644, content }];
    assert_eq!(refuse(spec, Kind::Conflict, "uploaded").await.happened(), Happened::No);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_reach_registries_builds_and_commands() -> Result<()> {
    let world = World::new().await?;
    let provider = &world.provider;
    python(&world, "modal.Secret.objects.create('login', {'REGISTRY_USERNAME': 'u', 'REGISTRY_PASSWORD': 'p'})");
    python(&world, "modal.Secret.objects.create('words', {'WORD': 'of the secret'})");
    // The emulator's registry does not check logins, so the test only sees whether the secret exists and has the right
    // keys.
    built(provider, ImageSpec::registry("ghcr.io/org/image").registry_secret("login")).await?;
    refused(
        provider.build(ImageSpec::registry("ghcr.io/org/image").registry_secret("words")).await.map(drop),
        Kind::InvalidArgument,
        "REGISTRY_USERNAME",
    );
    refused(
        provider.build(ImageSpec::registry("ghcr.io/org/image").registry_secret("absent")).await.map(drop),
        Kind::NotFound,
        "`absent`",
    );
    let login = |login| {
        let mut spec = ImageSpec::registry("ghcr.io/org/image");
        let ImageSource::Registry(image) = &mut spec.source else { panic!("expected a registry image") };
        image.login = Some(login);
        spec
    };
    for kind in [RegistryLogin::StaticSecret, RegistryLogin::AwsSecret, RegistryLogin::GcpSecret] {
        built(provider, login(kind("login".into()))).await?;
    }
    let other = login(RegistryLogin::Other(("kerberos".into(), "login".into())));
    refused(provider.build(other).await.map(drop), Kind::Unsupported, "kerberos");

    let spec = ImageSpec::dockerfile("FROM debian\nRUN echo $WORD >/word\n").secret("words");
    let (image, _) = built(provider, spec).await?;
    let sandbox = provider.create(SandboxSpec::new(ImageSpec::id(image)).secret("words")).await?;
    assert_eq!(sh(&sandbox, "cat /word; echo $WORD").await?, "of the secret\nof the secret");
    // A secret of a single command.
    let other = provider.create(SandboxSpec::default()).await?;
    let mut command = ExecSpec::shell("echo $WORD");
    assert_eq!(other.run(command.clone()).await?.stdout.data, b"\n");
    (command.id, command.secrets) = (fresh_id(), vec!["words".into()]);
    assert_eq!(other.run(command).await?.stdout.data, b"of the secret\n");
    let error = provider.create(SandboxSpec::default().secret("absent")).await.map(drop);
    assert_eq!(refused(error, Kind::NotFound, "`absent`").subject(), Some("absent"));
    Ok(())
}

/// Runs a line of Python with the official SDK, to create objects that the provider cannot create.
fn python(world: &World, line: &str) {
    let status = std::process::Command::new(system_tests::python())
        .args(["-c", &format!("import modal; {line}")])
        .env("MODAL_SERVER_URL", world.emulator.url())
        .env("MODAL_TOKEN_ID", "ak-test")
        .env("MODAL_TOKEN_SECRET", "as-test")
        .env("MODAL_CONFIG_PATH", "/nonexistent/modal.toml")
        .status()
        .expect("cannot start Python");
    assert!(status.success(), "{line}");
}

// ---- creating --------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_created_sandbox_has_the_requested_settings() -> Result<()> {
    let world = World::new().await?;
    let spec = SandboxSpec::new(ImageSpec::registry("debian").command("WORKDIR /srv"))
        .cpu(0.5)
        .cpu_limit(1.0)
        .memory_mib(256)
        .memory_limit_mib(512)
        .lifetime(Duration::from_secs(600))
        .idle_timeout(Duration::from_secs(300))
        .region("us-east")
        .option("identity_token", "true")
        .option("cloud", "\"aws\"")
        .command(["sh", "-c", "echo entry; sleep 1000"]);
    let SandboxWithInfo { sandbox, info } = world.provider.create_with_info(spec).await?;
    assert!(info.image.as_deref().is_some_and(|image| image.starts_with("im-")));
    assert!(info.extra.contains(&("backend".into(), "\"v2\"".into())), "{:?}", info.extra);
    assert_eq!(sh(&sandbox, "pwd; test -n \"$MODAL_IDENTITY_TOKEN\" && echo token").await?, "/srv\ntoken");
    let listed = world.provider.list(&ListFilter::default(), 10).await?;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].image, info.image);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backend_is_chosen_by_the_requested_features() -> Result<()> {
    let world = World::new().await?;
    let backend = |spec: SandboxSpec| async {
        let info = world.provider.create_with_info(spec).await?.info;
        Ok::<_, Error>(info.extra.into_iter().find(|(name, _)| name == "backend").expect("the backend is missing").1)
    };
    assert_eq!(backend(SandboxSpec::default()).await?, "\"v2\"");
    assert_eq!(backend(SandboxSpec::default().gpu("h100", 2)).await?, "\"v1\"");
    assert_eq!(backend(SandboxSpec::default().option("backend", "\"v1\"")).await?, "\"v1\"");
    let gpu = SandboxSpec::default().gpu("H100", 1);
    refused(backend(gpu.clone().option("backend", "\"v2\"")).await, Kind::InvalidArgument, "`gpu`");
    refused(backend(gpu.clone().option("i6pn", "true")).await, Kind::InvalidArgument, "`i6pn`");
    let older = SandboxSpec::default().option("backend", "\"v1\"");
    refused(backend(older.option("i6pn", "true")).await, Kind::InvalidArgument, "backend");

    // On the V1 backend, variables are sent as a secret and tags in the request. Commands run as on V2.
    let spec = gpu.env("A", "1").tag("k", "v").name("old").command(["sleep", "1000"]);
    let sandbox = world.provider.create(spec).await?;
    assert_eq!(sandbox.id().len(), "sb-".len() + 22);
    assert_eq!(sh(&sandbox, "echo $A").await?, "1");
    assert_eq!(sandbox.tags().await?, [("k".to_string(), "v".to_string())]);
    assert_eq!(world.provider.find("old").await?.sandbox.id(), sandbox.id());
    let used = sandbox.usage_report().await?.totals;
    assert!(used.extra.contains(&("gpu".into(), "\"H100\"".into())), "{used:?}");
    refused(sandbox.set_name("other").await, Kind::Unsupported, "creation");
    sandbox.terminate().await?;
    assert!(matches!(sandbox.wait().await?, EndReason::Terminated));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_are_told_during_the_life_and_after_the_end() -> Result<()> {
    let world = World::new().await?;
    for (backend, gpu) in [("v2", None), ("v1", Some("H100"))] {
        let spec = SandboxSpec::default().option("backend", format!("\"{backend}\""));
        let spec = if let Some(model) = gpu { spec.gpu(model, 1) } else { spec };
        let sandbox = world.provider.create(spec).await?;
        sh(&sandbox, "sleep 0.2").await?;
        let during = sandbox.usage_report().await?;
        sandbox.terminate().await?;
        sandbox.wait().await?;
        let after = sandbox.usage_report().await?;
        assert!(during.cost > Some(0.0) && after.cost >= during.cost, "{during:?} {after:?}");
        let parts: Vec<_> = after.cost_by_resource.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(parts, [Some("CPU"), gpu, Some("Memory")].into_iter().flatten().collect::<Vec<_>>());
        let sum: f64 = after.cost_by_resource.iter().map(|(_, cost)| cost).sum();
        assert!((sum - after.cost.expect("a cost")).abs() < 1e-11, "{after:?}");
        // The least that is billed is an eighth of a core, and 128 MiB.
        assert!(after.billed_cpu_core_millis >= Some(200 / 8) && after.billed_memory_mib_millis >= Some(128 * 200));
        assert!(after.running >= Some(200) && after.totals.cpu_core_millis >= 200 / 8, "{after:?}");
        for (one, name, unit) in [(0, "cpu", "cores"), (1, "memory", "GiB")] {
            let one = &after.distributions[one];
            assert_eq!((one.name.as_str(), one.unit.as_str()), (name, unit));
            let percents: Vec<_> = one.percentiles.iter().map(|(percent, _)| *percent).collect();
            assert_eq!(percents, [50.0, 90.0, 99.0]);
            assert!(one.mean <= one.max && one.mean.is_some(), "{one:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_v1_backend_can_be_configured() -> Result<()> {
    let world = World::with(&[("MODAL_SANDBOX_V2", "0")]).await?;
    let info = world.provider.create_with_info(SandboxSpec::default()).await?.info;
    assert!(info.extra.contains(&("backend".into(), "\"v1\"".into())));
    let spec = SandboxSpec::default().option("i6pn", "true");
    refused(world.provider.create(spec).await, Kind::InvalidArgument, "MODAL_SANDBOX_V2");
    let info = world.provider.create_with_info(SandboxSpec::default().option("backend", "\"v2\"")).await?.info;
    assert!(info.extra.contains(&("backend".into(), "\"v2\"".into())), "the option of a sandbox takes precedence");
    assert_eq!(
        world.provider.list(&ListFilter::default(), 10).await?.len(),
        2,
        "sandboxes of both backends should be listed"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_settings_are_refused_without_a_request() -> Result<()> {
    // The emulator is gone, so a call that sends a request fails as unavailable instead.
    let mut world = World::new().await?;
    world.emulator.kill();
    let provider = &world.provider;
    let base = SandboxSpec::default;
    let volume = |path: &str| {
        let mut spec = base();
        spec.volumes.push(VolumeMount {
            volume: "v".into(),
            path: path.into(),
            read_only: false,
            sub_path: None,
            create: false,
        });
        spec
    };
    let bucket = |change: fn(&mut BucketMount)| {
        let mut bucket = BucketMount::new("b", "/b");
        change(&mut bucket);
        base().bucket(bucket)
    };
    let mut disk = base();
    disk.resources.disk_mib = Some(1);
    let mut zero = base();
    zero.lifetime = Some(0);
    let mut extra = base();
    extra.extra.push(("color".into(), "1".into()));
    let sidecar = |name: &str| base().sidecar(SidecarSpec::new(name, ImageSpec::default()));
    let blocked =
        SidecarSpec { outbound: NetworkPolicy::blocked().outbound, ..SidecarSpec::new("s", ImageSpec::default()) };
    let invalid: Vec<(SandboxSpec, &str)> = vec![
        (base().option("gpus", "1"), "the options are: backend, cloud, runtime"),
        (base().option("runtime", "\"docker\""), "\"gvisor\", \"vm\""),
        (base().option("i6pn", "1"), "true or false"),
        (base().option("verbose", "true").option("verbose", "true"), "twice"),
        (base().option("docker", "true").option("experimental", r#"{"enable_docker": false}"#), "enable_docker"),
        (base().name("a b"), "`a b`"),
        (base().key("a/b"), "`a/b`"),
        (base().workdir("tmp"), "absolute"),
        (base().env("1=A", "x"), "1=A"),
        (base().env("A", "x\0"), "NUL"),
        (base().command(["a\0"]), "NUL"),
        (base().command(["x".repeat(70_000)]), "70000 bytes"),
        (base().cpu(2.0).cpu_limit(1.0), "below the request"),
        (base().memory_mib(2).memory_limit_mib(1), "below the request"),
        (base().gpu("", 1), "not a valid accelerator"),
        (base().gpu("H100", 0), "not a valid accelerator"),
        (base().port(80).block_network(), "without network"),
        (base().port(0), "not a port"),
        (base().ready_when_listening(0), "at least 1"),
        (base().ready_when([""; 0]), "empty"),
        (volume("data"), "`data`"),
        (volume("/root"), "`/root`"),
        (volume("/a/../b"), "`/a/../b`"),
        (base().volume("v", "/a").volume("v", "/b"), "twice"),
        (base().volume("v", "/a").volume("w", "/a"), "/a"),
        (bucket(|b| b.prefix = Some("p".into())), "must end in `/`"),
        (bucket(|b| b.extra.push(("requester_pays".into(), "true".into()))), "secret"),
        (bucket(|b| b.extra.push(("speed".into(), "1".into()))), "speed"),
        (bucket(|b| b.path = "b".into()), "absolute"),
        (sidecar("main"), "main"),
        (sidecar("s").sidecar(SidecarSpec::new("s", ImageSpec::default())), "Two sidecars"),
        (zero, "lifetime is 0"),
        (extra, "`color`"),
    ];
    for (spec, text) in invalid {
        refused(provider.check_spec(&spec).await, Kind::InvalidArgument, text);
        let error = refused(provider.create(spec).await, Kind::InvalidArgument, text);
        assert_eq!((error.happened(), error.retry()), (Happened::No, Retry::Never), "{error}");
    }
    refused(provider.check_spec(&disk).await, Kind::Unsupported, "disk");
    refused(provider.create(disk).await, Kind::Unsupported, "disk");
    refused(provider.create(base().sidecar(blocked)).await, Kind::Unsupported, "cannot block the network");
    let arm = SandboxSpec::new(ImageSpec::default().platform("linux/arm64"));
    let error = refused(provider.create(arm).await, Kind::Unsupported, "linux/arm64");
    assert_eq!(error.subject(), Some("create.platform"));
    let amd = SandboxSpec::new(ImageSpec::default().platform("linux/amd64"));
    refused(provider.create(amd).await, Kind::Unavailable, "Could not reach");
    refused(provider.create(base()).await, Kind::Unavailable, "Could not reach");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_the_service_name_the_object() -> Result<()> {
    let world = World::new().await?;
    let create = |spec: SandboxSpec| async { world.provider.create(spec).await };
    refused(create(SandboxSpec::default().region("atlantis")).await, Kind::InvalidArgument, "atlantis");
    refused(create(SandboxSpec::default().option("cloud", "\"nimbus\"")).await, Kind::InvalidArgument, "nimbus");
    let cidrs = SandboxSpec::default().allow_only(["10.0.0.0/99"], [""; 0]);
    refused(create(cidrs).await, Kind::InvalidArgument, "10.0.0.0/99");
    let error = refused(create(SandboxSpec::default().proxy("absent")).await, Kind::NotFound, "proxy `absent`");
    assert_eq!(error.subject(), Some("absent"));
    refused(create(SandboxSpec::default().volume("absent", "/data")).await, Kind::NotFound, "volume `absent`");
    let files = SandboxSpec::default().option("network_file_systems", r#"{"/nfs": "sv-1"}"#);
    refused(create(files).await, Kind::NotFound, "Network file system sv-1");
    create(SandboxSpec::default().name("taken")).await?;
    let error = refused(create(SandboxSpec::default().name("taken")).await, Kind::AlreadyExists, "taken");
    assert_eq!(error.happened(), Happened::No);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_a_volume_can_be_mounted() -> Result<()> {
    let world = World::new().await?;
    let mount = |sub_path: Option<&str>| {
        let mut spec = SandboxSpec::default();
        spec.volumes.push(VolumeMount {
            volume: "shared".into(),
            path: "/data".into(),
            read_only: false,
            sub_path: sub_path.map(str::to_owned),
            create: true,
        });
        spec
    };
    let writer = world.provider.create(mount(None)).await?;
    sh(&writer, "mkdir /data/sub && echo hello >/data/sub/file").await?;
    let part = world.provider.create(mount(Some("sub"))).await?;
    assert_eq!(sh(&part, "ls /data; cat /data/file").await?, "file\nhello");
    world.provider.delete_volume("shared").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloud_buckets_are_mounted() -> Result<()> {
    let world = World::new().await?;
    let writer = world.provider.create(SandboxSpec::default().bucket(BucketMount::new("things", "/bucket"))).await?;
    sh(&writer, "mkdir -p /bucket/part && echo object >/bucket/part/key").await?;
    let part = BucketMount { prefix: Some("part/".into()), read_only: true, ..BucketMount::new("things", "/only") };
    let reader = world.provider.create(SandboxSpec::default().bucket(part)).await?;
    assert_eq!(sh(&reader, "cat /only/key; touch /only/x 2>/dev/null || echo read-only").await?, "object\nread-only");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_creates_with_one_key_make_one_sandbox() -> Result<()> {
    let world = World::new().await?;
    let key = fresh_id();
    let spec =
        || SandboxSpec::default().key(&key).env("A", "1").sidecar(SidecarSpec::new("side", ImageSpec::default()));
    // The answers to all attempts of the provider are lost, and then one more.
    world.fault(r#"{"method": "SandboxCreateV2", "times": 4, "fault": {"lose_answer": {"code": 14}}}"#);
    let error = refused(world.provider.create(spec()).await, Kind::Unavailable, "create the sandbox");
    assert_eq!(error.happened(), Happened::Unknown);
    let first = world.provider.create(spec()).await?;
    assert_eq!(world.provider.list(&ListFilter::default(), 10).await?.len(), 1, "exactly one sandbox should exist");
    // A new provider, like one of another process at a later time.
    let other = provider(&world.emulator, &[], &world.waits).await?;
    assert_eq!(other.create(spec()).await?.id(), first.id());
    assert_eq!(first.sidecars().await?.len(), 1);
    assert_ne!(other.create(SandboxSpec::default().key(fresh_id())).await?.id(), first.id());
    // The same on the V1 backend.
    let spec = || SandboxSpec::default().key(&key).env("A", "1").gpu("T4", 1);
    world.fault(r#"{"method": "SandboxCreate", "times": 1, "fault": {"lose_answer": {"code": 14}}}"#);
    let first = world.provider.create(spec()).await?;
    assert_eq!(other.create(spec()).await?.id(), first.id());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_waits_for_capacity_and_reports_it() -> Result<()> {
    let world = World::new().await?;
    let full = |seconds: f32| {
        let status = format!(r#"{{"status": {{"code": 8, "message": "no capacity", "retry_after_secs": {seconds}}}}}"#);
        world.fault(&format!(r#"{{"method": "SandboxCreateV2", "times": 1, "fault": {status}}}"#));
    };
    // The component itself makes short pauses.
    full(0.2);
    world.sandbox().await?;
    assert_eq!(world.waits.lock().expect("the lock is poisoned").len(), 0);
    // The host makes longer pauses and reports them.
    full(2.1);
    world.sandbox().await?;
    {
        let waits = world.waits.lock().expect("the lock is poisoned");
        assert_eq!(waits.len(), 1);
        assert!(waits[0].pause > Duration::from_secs(2) && waits[0].reason.contains("no capacity"), "{waits:?}");
    }
    // With a small limit for waits the call fails with an error that says when to retry.
    let plugin = Plugin::load(component()).await?;
    let hasty = Provider::builder(&plugin)
        .inherit_env(false)
        .env("MODAL_SERVER_URL", world.emulator.url())
        .credential("token-id", Secret::new("ak-test"))
        .credential("token-secret", Secret::new("as-test"))
        .create_patience(Duration::ZERO)
        .build()
        .await?;
    full(7.0);
    let error = refused(hasty.create(SandboxSpec::default()).await, Kind::ResourceExhausted, "no capacity");
    assert_eq!((error.happened(), error.retry()), (Happened::No, Retry::After(Duration::from_secs(7))));
    Ok(())
}

// ---- looking up ------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_merge_the_sandboxes_of_both_backends() -> Result<()> {
    let world = World::new().await?;
    let mut made = Vec::new();
    for index in 0..12 {
        // Every third sandbox uses the V1 backend.
        let spec = SandboxSpec::default();
        let spec = if index % 3 == 0 { spec.option("backend", "\"v1\"") } else { spec };
        made.push(world.provider.create(spec).await?.id().to_owned());
    }
    made.reverse();
    for size in [1, 5, 200] {
        let (mut walked, mut cursor) = (Vec::new(), None);
        loop {
            let part = world.provider.list_page(&ListFilter::default(), cursor, size).await?;
            assert!(part.items.len() <= size as usize);
            walked.extend(part.items.into_iter().map(|info| info.id));
            match part.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(walked, made, "wrong order with pages of {size}");
    }
    // The host collects pages up to the number that was asked for.
    assert_eq!(world.provider.list(&ListFilter::default(), 5).await?.len(), 5);
    for cursor in ["", "x", "0.sb", "7ff0000000000000.sb"] {
        let page = world.provider.list_page(&ListFilter::default(), Some(cursor.into()), 1).await;
        refused(page, Kind::InvalidArgument, "cursor");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sandboxes_of_both_backends_can_be_unknown() -> Result<()> {
    let world = World::new().await?;
    for absent in ["sb-absent00000000000000000000", "sb-0123456789abcdefghijAB"] {
        let absent = world.provider.sandbox(absent);
        refused(absent.info().await, Kind::NotFound, absent.id());
        refused(absent.terminate().await, Kind::NotFound, absent.id());
        refused(absent.tags().await, Kind::NotFound, absent.id());
        refused(absent.set_tags(vec![]).await, Kind::NotFound, absent.id());
        refused(absent.tunnels(Duration::ZERO).await, Kind::NotFound, absent.id());
        refused(absent.usage_report().await, Kind::NotFound, absent.id());
    }
    let strange = world.provider.sandbox("../x");
    refused(strange.info().await, Kind::InvalidArgument, "sb-");
    refused(strange.set_network(NetworkPolicy::open()).await, Kind::InvalidArgument, "sb-");
    // Errors name the reason of an end.
    let spec = SandboxSpec::default().command(["sh", "-c", "exit 7"]);
    let ended = world.provider.create(spec).await?;
    ended.wait().await?;
    refused(ended.snapshot_filesystem(None).await, Kind::SandboxEnded, "exited with code 7");
    Ok(())
}

// ---- network ---------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_tokens_admit_http_clients() -> Result<()> {
    let world = World::new().await?;
    for backend in ["\"v2\"", "\"v1\""] {
        let spec = SandboxSpec::default()
            .option("backend", backend)
            .command(["python3", "-m", "http.server", "8080"])
            .ready_when_listening(8080);
        let sandbox = world.provider.create(spec).await?;
        assert!(sandbox.wait_ready(Duration::from_secs(30)).await?);
        let made = sandbox.connect_token(8080, "somebody").await?;
        let (name, value) = &made.headers[0];
        assert_eq!(name, "authorization");
        for (value, status) in [(value.as_str(), 200), ("Bearer another", 401)] {
            let answer =
                http_client::send("GET", &made.url, &[("authorization", value)], "").await.expect("no response");
            assert_eq!(answer.status(), status, "{backend}: {}", text(&answer));
        }
        refused(sandbox.connect_token(0, "").await, Kind::InvalidArgument, "not a port");
    }
    let absent = world.provider.sandbox("sb-absent00000000000000000000");
    refused(absent.connect_token(80, "").await, Kind::NotFound, "sb-absent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inbound_rules_of_a_running_sandbox_cannot_be_changed() -> Result<()> {
    let world = World::new().await?;
    let sandbox = world.sandbox().await?;
    sandbox.set_network(NetworkPolicy::allowing(["10.0.0.0/8"], ["*.example.org"])).await?;
    let inbound = NetworkPolicy { inbound_cidrs: vec!["10.0.0.0/8".into()], ..NetworkPolicy::open() };
    refused(sandbox.set_network(inbound).await, Kind::Unsupported, "of a running sandbox");
    Ok(())
}

// ---- snapshots -------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_taken_once_if_its_answer_is_lost() -> Result<()> {
    let world = World::new().await?;
    let sandbox = world.sandbox().await?;
    sh(&sandbox, "echo kept >/file").await?;
    world.fault(r#"{"method": "TaskSnapshotFilesystem", "times": 1, "fault": {"lose_answer": {"code": 14}}}"#);
    let image = sandbox.snapshot_filesystem_as("step-1", Some(Duration::from_secs(3600))).await?;
    sh(&sandbox, "echo later >/file").await?;
    assert_eq!(sandbox.snapshot_filesystem_as("step-1", None).await?, image);
    let copy = world.provider.create(SandboxSpec::new(ImageSpec::id(&image))).await?;
    assert_eq!(sh(&copy, "cat /file").await?, "kept");
    refused(sandbox.snapshot_filesystem(Some(Duration::ZERO)).await, Kind::InvalidArgument, "time to live is 0");
    refused(sandbox.snapshot_filesystem_as("a/b", None).await, Kind::InvalidArgument, "`a/b`");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_invalid_part_of_a_mount() -> Result<()> {
    let world = World::new().await?;
    let sandbox = world.sandbox().await?;
    refused(sandbox.unmount("/mnt/nothing").await, Kind::NotFound, "/mnt/nothing");
    refused(sandbox.mount("/", None).await, Kind::InvalidArgument, "below `/`");
    refused(sandbox.mount("mnt", None).await, Kind::InvalidArgument, "absolute");
    refused(sandbox.mount("/mnt/x", Some("debian")).await, Kind::InvalidArgument, "im-");
    refused(sandbox.snapshot_directory("/", None).await, Kind::InvalidArgument, "below `/`");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_snapshot_is_taken_at_the_end() -> Result<()> {
    let world = World::new().await?;
    let sandbox = world.provider.create(SandboxSpec::default().option("exit_snapshot", "true")).await?;
    sh(&sandbox, "echo last >/last").await?;
    assert_eq!(sandbox.exit_snapshot(Duration::ZERO).await?, None, "a running sandbox has no exit snapshot");
    sandbox.terminate().await?;
    let image = sandbox.exit_snapshot(Duration::from_secs(60)).await?.expect("no exit snapshot was taken");
    let copy = world.provider.create(SandboxSpec::new(ImageSpec::id(image))).await?;
    assert_eq!(sh(&copy, "cat /last").await?, "last");
    refused(world.sandbox().await?.exit_snapshot(Duration::ZERO).await, Kind::Conflict, "enable_exit_snapshot");
    Ok(())
}

/// The emulator has no memory snapshots, and refuses them like the service where they are not available.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_snapshots_are_refused_by_the_emulator() -> Result<()> {
    let world = World::new().await?;
    let sandbox = world.sandbox().await?;
    refused(sandbox.snapshot_memory().await, Kind::Conflict, "without memory snapshots");
    let sandbox = world.provider.create(SandboxSpec::default().option("memory_snapshots", "true")).await?;
    refused(sandbox.snapshot_memory().await, Kind::Conflict, "not available");
    refused(world.provider.restore("sn-absent", None).await, Kind::NotFound, "sn-absent");
    refused(world.provider.restore("im-x", None).await, Kind::InvalidArgument, "sn-");
    refused(world.provider.restore("sn-x", Some("a b")).await, Kind::InvalidArgument, "`a b`");
    Ok(())
}

// ---- sidecars and logs -----------------------------------------------------------------------------------------------

/// The checks of `sandbox-host conformance` use the V2 backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecars_exist_on_the_v1_backend() -> Result<()> {
    let world = World::new().await?;
    let spec = SandboxSpec::default()
        .option("backend", "\"v1\"")
        .sidecar(SidecarSpec::new("first", ImageSpec::default()).command(["sleep", "1000"]));
    let sandbox = world.provider.create(spec).await?;
    let mut second = SidecarSpec::new("second", ImageSpec::default()).command(["sh", "-c", "exit $CODE"]);
    second.env.push(("CODE".into(), "5".into()));
    assert_eq!(sandbox.create_sidecar(second).await?.name, "second");
    assert_eq!(sandbox.wait_sidecar("second", Duration::from_secs(30)).await?, Some(EndReason::Finished(5)));
    let mut names: Vec<_> = sandbox.sidecars().await?.into_iter().map(|sidecar| sidecar.name).collect();
    names.sort();
    assert_eq!(names, ["first", "second"]);
    let taken = SidecarSpec::new("first", ImageSpec::default());
    refused(sandbox.create_sidecar(taken).await, Kind::AlreadyExists, "first");
    sandbox.terminate_sidecar("first").await?;
    assert_eq!(sandbox.wait_sidecar("first", Duration::from_secs(30)).await?, Some(EndReason::Terminated));
    refused(sandbox.terminate_sidecar("absent").await, Kind::NotFound, "`absent`");
    refused(sandbox.wait_sidecar("main", Duration::ZERO).await, Kind::InvalidArgument, "main");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_invalid_part_of_a_log_query() -> Result<()> {
    let world = World::new().await?;
    let sandbox = world.sandbox().await?;
    let late = LogQuery { since: Some(2_000), until: Some(1_000), ..LogQuery::default() };
    refused(sandbox.logs(late, None, 1000).await, Kind::InvalidArgument, "after its end");
    refused(sandbox.logs(LogQuery::default(), Some("x".into()), 1000).await, Kind::InvalidArgument, "cursor");
    refused(sandbox.logs(LogQuery::default(), None, 0).await, Kind::InvalidArgument, "max-bytes");
    let absent = world.provider.sandbox("sb-absent00000000000000000000");
    refused(absent.logs(LogQuery::default(), None, 1000).await, Kind::NotFound, "sb-absent");
    Ok(())
}

/// Returns whether the provider passes a check of the conformance kit. A step of the test run compares the page with the
/// results of the kit.
fn conforms(check: &str) -> bool {
    let mut column = None;
    for line in include_str!("../../docs/conformance.md").lines() {
        // Counted from the right, because a clause may contain the separator.
        let mut cells = line.rsplit('|').map(str::trim);
        if line.starts_with("| check |") {
            column = cells.position(|cell| cell == "modal");
        } else if line.starts_with(&format!("| `{check}` |")) {
            return column.and_then(|column| cells.nth(column)) == Some("yes");
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_claim_of_the_description_has_a_test() -> Result<()> {
    let mut world = World::new().await?;
    world.provider.check().await?;
    let description = world.provider.describe().await?;
    assert_eq!((description.name.as_str(), &description.digests[..]), ("modal", &["md5".to_string()][..]));
    // The claims of the description with the tests that verify them. Some are in the component's own tests, because
    // only the request shows the effect. Those with `kit:` are checks of the conformance kit.
    let held = [
        ("image.registry", Support::Native, "kit: images.registry"),
        ("image.registry-credentials", Support::Native, "secrets_reach_registries_builds_and_commands"),
        ("image.dockerfile", Support::Native, "kit: images.dockerfile"),
        ("image.context", Support::Native, "kit: images.context"),
        ("image.commands", Support::Native, "kit: images.commands"),
        ("image.secrets", Support::Native, "secrets_reach_registries_builds_and_commands"),
        ("image.gpu", Support::Native, "a_build_names_its_context_accelerator_and_stage"),
        ("image.delete", Support::Native, "kit: images.delete"),
        ("create.idempotent", Support::Native, "repeated_creates_with_one_key_make_one_sandbox"),
        ("create.names", Support::Native, "kit: core.find"),
        ("create.tags", Support::Native, "kit: core.tags"),
        ("create.env", Support::Native, "kit: core.env"),
        ("create.workdir", Support::Native, "kit: core.workdir"),
        ("create.command", Support::Native, "kit: core.entry-point"),
        ("create.secrets", Support::Native, "secrets_reach_registries_builds_and_commands"),
        ("create.platform", Support::Native, "invalid_settings_are_refused_without_a_request"),
        ("create.cpu", Support::Native, "the_request_says_all_that_was_asked_for"),
        ("create.memory", Support::Native, "the_request_says_all_that_was_asked_for"),
        ("create.gpu", Support::Native, "the_backend_is_chosen_by_the_requested_features"),
        ("create.lifetime", Support::Native, "kit: core.lifetime"),
        ("create.idle-timeout", Support::Native, "kit: core.idle-timeout"),
        ("create.regions", Support::Native, "a_created_sandbox_has_the_requested_settings"),
        ("create.volumes", Support::Native, "kit: volumes.outlives-a-sandbox"),
        ("create.buckets", Support::Native, "cloud_buckets_are_mounted"),
        ("create.proxy", Support::Native, "the_request_says_all_that_was_asked_for"),
        ("create.pty", Support::Native, "the_request_says_all_that_was_asked_for"),
        ("create.readiness", Support::Native, "kit: core.readiness"),
        ("network.blocked", Support::Native, "a_sandbox_is_open_or_cut_off_from_its_beginning"),
        ("network.cidrs", Support::Native, "the_request_says_all_that_was_asked_for"),
        ("network.domains", Support::Native, "the_request_says_all_that_was_asked_for"),
        ("network.inbound", Support::Native, "the_request_says_all_that_was_asked_for"),
        ("network.update", Support::Native, "kit: network.update"),
        ("ports.tls", Support::Native, "kit: tunnels.tls"),
        ("ports.h2", Support::Native, "kit: tunnels.h2"),
        ("ports.tcp", Support::Native, "kit: tunnels.tcp-carries-data"),
        ("connect-token", Support::Native, "connect_tokens_admit_http_clients"),
        ("sidecars", Support::Native, "kit: sidecars.add"),
        ("tags.update", Support::Native, "kit: core.set-tags"),
        ("find", Support::Native, "kit: core.find"),
        ("logs", Support::Native, "kit: logs.pages"),
        ("stats", Support::Native, "kit: usage.grows"),
        ("stats.cost", Support::Native, "costs_are_told_during_the_life_and_after_the_end"),
        ("snapshot.filesystem", Support::Native, "kit: snapshots.one-key"),
        ("snapshot.directory", Support::Native, "kit: snapshots.directory"),
        ("snapshot.memory", Support::Native, "memory_snapshots_of_both_backends"),
        ("snapshot.exit", Support::Native, "an_exit_snapshot_is_taken_at_the_end"),
        ("mount", Support::Native, "kit: snapshots.mount-empty"),
        ("volumes.reload", Support::Native, "kit: volumes.shared"),
        ("volumes.delete", Support::Native, "kit: volumes.delete"),
        ("exec.user", Support::Emulated, "commands_run_as_another_user"),
        ("exec.idempotent", Support::Native, "kit: exec.repeated-run-runs-once"),
        ("exec.signal", Support::Emulated, "kit: processes.signal-reaches-children"),
        ("exec.deadline", Support::Emulated, "kit: exec.time-limit-kills-children"),
        ("exec.pty", Support::Native, "kit: processes.terminal"),
        ("exec.resize", Support::Emulated, "kit: processes.resize"),
        ("exec.long-argv", Support::Emulated, "command_lines_longer_than_64_kib_run_unchanged"),
        ("exec.merge-stderr", Support::Native, "kit: exec.merge-stderr"),
        ("exec.secrets", Support::Native, "secrets_reach_registries_builds_and_commands"),
        ("main.output", Support::Native, "kit: processes.main-output"),
        ("main.input", Support::Native, "kit: processes.main-input"),
        ("files.mode", Support::Emulated, "kit: files.mode-of-write"),
        ("files.create-new", Support::Emulated, "kit: files.create-new"),
        ("files.append", Support::Emulated, "kit: files.append"),
        ("files.atomic", Support::Native, "kit: files.atomic"),
        ("files.rename", Support::Emulated, "kit: files.rename-directories"),
        ("files.symlinks", Support::Emulated, "kit: files.symlinks"),
        ("files.trees", Support::Emulated, "kit: trees.there-and-back"),
        ("files.watch", Support::Native, "kit: files.watch-kinds"),
        ("cache", Support::Native, "a_cache_saves_the_requests"),
    ];
    let claimed: Vec<_> = description.capabilities.iter().map(|one| (one.name.as_str(), one.support)).collect();
    assert_eq!(claimed, held.map(|(name, support, _)| (name, support)));
    let sources = [
        include_str!("provider_control.rs"),
        include_str!("provider_exec.rs"),
        include_str!("provider_files.rs"),
        include_str!("../../guest/modal/tests/native/control.rs"),
        include_str!("../../guest/modal/tests/native/calls.rs"),
    ];
    for (name, _, test) in held {
        let there = match test.strip_prefix("kit: ") {
            Some(check) => conforms(check),
            None => sources.iter().any(|source| source.contains(&format!("fn {test}()"))),
        };
        assert!(there, "the test {test} of {name} does not exist, or the provider does not pass it");
    }
    let support = |name: &str| claimed.iter().find(|(claim, _)| *claim == name);
    assert_eq!(support("create.disk"), None, "an unsupported feature should not be listed");
    // The description needs no connection to the service.
    world.emulator.kill();
    world.provider.describe().await?;
    refused(world.provider.check().await, Kind::Unavailable, "Could not reach");
    Ok(())
}
