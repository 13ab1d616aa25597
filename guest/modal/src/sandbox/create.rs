//! Creates sandboxes: checks the specification, chooses the backend and makes the request (docs/modal-protocol.md,
//! section 5).

use modal_proto::{
    client::{
        CloudBucketMount, ObjectCreationType, PortSpec, PortSpecs, Probe, Resources, Sandbox, SandboxCreateRequest,
        SandboxCreateV2Request, SchedulerPlacement, SecretGetOrCreateRequest, SharedVolumeMount, TunnelType,
        cloud_bucket_mount::BucketType, probe, sandbox,
    },
    rpc,
};

use crate::{
    image::{build::Builds, layers::check_image},
    sandbox::{
        entry_point::{arguments, check_entry_point},
        find::{self, tunnel},
        manage::terminate,
        options::{Backend, Options},
        sidecar, volume,
        volume::is_canonical,
    },
    service::{
        Service,
        wire::{check_outbound, gpu_config, network_access, pty_info, secret_sources, tags},
    },
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::shown,
        ids,
        time::whole_seconds,
        wit::{
            BucketMount, Outbound, Port, PortKind, Readiness, Resources as Wanted, SandboxInfo, SandboxSpec,
            SandboxState,
        },
    },
};

/// Lifetime of a sandbox without a requested lifetime, in seconds: Modal's own default (docs/modal-protocol.md, section
/// 5.2).
const DEFAULT_LIFETIME_SECS: u32 = 300;

/// Implements `check-spec` of the interface. Checks a specification as far as that is possible without a request to
/// Modal.
///
/// # Errors
///
/// `invalid-argument` or `unsupported` with the field or option at fault as its subject.
pub fn check(service: &Service, spec: &SandboxSpec) -> Result<()> {
    considered(service, spec).map(drop)
}

/// Does all checks of a specification that need no request. Returns its options and its backend.
fn considered(service: &Service, spec: &SandboxSpec) -> Result<(Options, Backend)> {
    check_spec(spec)?;
    check_image(&spec.image)?;
    for sidecar in &spec.sidecars {
        check_image(&sidecar.image)?;
    }
    let options = Options::read(&spec.options)?;
    let backend = choose(spec, &options, service.config()?.v2)?;
    Ok((options, backend))
}

/// Implements `create` of the interface. Creates a sandbox and returns when the service has accepted it.
///
/// # Errors
///
/// `invalid-argument` or `unsupported` for a specification that `check` refuses, `not-found` for an unknown image,
/// secret, volume or proxy, `already-exists` if the name is taken, `resource-exhausted` if there is no capacity,
/// `build-failed` if the image cannot be built; otherwise the error of the failed request.
pub async fn create(service: &Service, builds: &Builds, spec: SandboxSpec) -> Result<SandboxInfo> {
    let (options, backend) = considered(service, &spec)?;
    let app_id = service.app.id().await?;
    let image = builds.ready_image(&spec.image).await?;
    let mut sidecar_images = Vec::with_capacity(spec.sidecars.len());
    for sidecar in &spec.sidecars {
        sidecar_images.push(builds.ready_image(&sidecar.image).await?.id);
    }
    // All requests of this call use keys derived from this one, so that a repeated call repeats none of them.
    let key = spec.key.as_ref().map_or_else(|| service.new_uuid(), |key| format!("create {key}"));
    let mut definition = definition(service, &spec, options, image.id.clone()).await?;
    let v1 = backend == Backend::V1;
    let request_key = ids::derived_uuid(&key);
    let tags = tags(&spec.tags);
    let (id, task_id, access, tunnels) = if v1 {
        if !spec.env.is_empty() {
            definition.secret_ids.push(env_secret(service, &spec.env, &format!("{key} env")).await?);
        }
        let request = SandboxCreateRequest { app_id, definition: Some(definition), tags, ..Default::default() };
        let answer = service.control.create(&request_key, rpc::SANDBOX_CREATE, &request).await?;
        (answer.sandbox_id, String::new(), None, Vec::new())
    } else {
        let secret_sources = secret_sources(&definition.secret_ids, &spec.env);
        let definition = Some(definition);
        let request = SandboxCreateV2Request { app_id, definition, tags, secret_sources, ..Default::default() };
        let answer = service.control.create(&request_key, rpc::SANDBOX_CREATE_V2, &request).await?;
        (answer.sandbox_id, answer.task_id, answer.command_router_access, answer.tunnels)
    };
    if id.is_empty() {
        return Err(Error::internal("Modal's response to a create request contains no sandbox id."));
    }
    service.router.accesses().remember(&id, &task_id, access);
    for (sidecar, image) in spec.sidecars.iter().zip(&sidecar_images) {
        let key = format!("{key} sidecar {}", sidecar.name);
        if let Err(mut error) = sidecar::make(service, &id, sidecar, image, &key).await {
            // A sandbox without its sidecars is of no use, and the caller has no id to terminate it with.
            let gone = terminate(service, &id).await.is_ok();
            error.message = format!(
                "{} (sidecar `{}`; the sandbox {id} {})",
                error.message,
                sidecar.name,
                if gone { "was terminated" } else { "still runs and must be terminated" }
            );
            return Err(error);
        }
    }
    Ok(SandboxInfo {
        extra: vec![find::backend(&id)],
        id,
        name: spec.name,
        state: if task_id.is_empty() { SandboxState::Pending } else { SandboxState::Running },
        image: Some(image.id),
        created: None,
        tags: spec.tags,
        tunnels: tunnels.iter().flat_map(tunnel).collect(),
    })
}

async fn definition(service: &Service, spec: &SandboxSpec, options: Options, image_id: String) -> Result<Sandbox> {
    let mut bucket_mounts = Vec::with_capacity(spec.buckets.len());
    for bucket in &spec.buckets {
        bucket_mounts.push(bucket_mount(service, bucket).await?);
    }
    let proxy_id = match &spec.proxy {
        Some(name) => Some(service.names.proxy_id(name).await?),
        None => None,
    };
    Ok(Sandbox {
        entrypoint_args: arguments(&spec.entry_point, &spec.image),
        image_id,
        secret_ids: service.names.secret_ids(&spec.secrets).await?,
        resources: Some(resources(&spec.resources)),
        timeout_secs: spec.lifetime.map_or(DEFAULT_LIFETIME_SECS, whole_seconds),
        workdir: spec.workdir.clone(),
        volume_mounts: volume::mounts(service, &spec.volumes).await?,
        cloud_bucket_mounts: bucket_mounts,
        nfs_mounts: options
            .network_file_systems
            .into_iter()
            .map(|(mount_path, shared_volume_id)| SharedVolumeMount {
                mount_path,
                shared_volume_id,
                ..Default::default()
            })
            .collect(),
        pty_info: spec.pty.clone().map(pty_info),
        scheduler_placement: (!spec.regions.is_empty())
            .then(|| SchedulerPlacement { regions: spec.regions.clone(), ..Default::default() }),
        open_ports_oneof: Some(open_ports(&spec.ports)),
        i6pn_enabled: options.i6pn,
        network_access: Some(network_access(&spec.network.outbound)),
        proxy_id,
        enable_snapshot: options.memory_snapshots,
        cloud_provider_str: options.cloud,
        runtime: options.runtime,
        verbose: options.verbose,
        name: spec.name.clone(),
        idle_timeout_secs: spec.idle_timeout.map(whole_seconds),
        custom_domain: options.custom_domain,
        include_oidc_identity_token: options.identity_token,
        readiness_probe: spec.readiness.as_ref().map(|wanted| Probe {
            probe_oneof: match &wanted.check {
                Readiness::Tcp(port) => Some(probe::ProbeOneof::TcpPort((*port).into())),
                Readiness::Exec(argv) => {
                    Some(probe::ProbeOneof::ExecCommand(probe::ExecCommand { argv: argv.clone() }))
                }
                // `check_spec` has refused it.
                Readiness::Other(_) => None,
            },
            interval_ms: wanted.interval.map(|interval| u32::try_from(interval).unwrap_or(u32::MAX)),
        }),
        inbound_cidr_allowlist: spec.network.inbound_cidrs.clone(),
        experimental_options_v2: options.experimental.into_iter().collect(),
        ..Default::default()
    })
}

/// Makes a secret with the environment variables, which is the only form that the older backend accepts
/// (docs/modal-protocol.md, section 4).
async fn env_secret(service: &Service, env: &[(String, String)], key: &str) -> Result<String> {
    let request = SecretGetOrCreateRequest {
        environment_name: service.config()?.environment.clone(),
        object_creation_type: ObjectCreationType::AnonymousOwnedByApp.into(),
        env_dict: env.iter().cloned().collect(),
        app_id: service.app.id().await?,
        ..Default::default()
    };
    let answer = service.control.keyed(&ids::derived_uuid(key), rpc::SECRET_GET_OR_CREATE, &request).await?;
    answer
        .map(|answer| answer.secret_id)
        .map_err(|status| service.control.error(&status, "store the environment variables"))
}

async fn bucket_mount(service: &Service, bucket: &BucketMount) -> Result<CloudBucketMount> {
    let extra = BucketExtra::read(bucket)?;
    let host = bucket.endpoint.as_deref().unwrap_or_default();
    let host = host.split_once("://").map_or(host, |(_, rest)| rest).split(['/', ':']).next().unwrap_or_default();
    let kind = if host.ends_with("r2.cloudflarestorage.com") {
        BucketType::R2
    } else if host.ends_with("storage.googleapis.com") {
        BucketType::Gcp
    } else {
        BucketType::S3
    };
    let credentials_secret_id = match &bucket.secret {
        Some(name) => service.names.secret(name).await?.id,
        None => String::new(),
    };
    Ok(CloudBucketMount {
        bucket_name: bucket.bucket.clone(),
        mount_path: bucket.path.clone(),
        credentials_secret_id,
        read_only: bucket.read_only,
        bucket_type: kind.into(),
        requester_pays: extra.requester_pays,
        bucket_endpoint_url: bucket.endpoint.clone(),
        key_prefix: bucket.prefix.clone(),
        oidc_auth_role_arn: extra.oidc_role,
        force_path_style: extra.force_path_style,
        ..Default::default()
    })
}

/// Returns the backend for a specification: the newer one, unless the specification has a feature that only the older
/// one supports (docs/modal-protocol.md, section 5.1). `v2` is `false` if the configuration excludes the newer one.
fn choose(spec: &SandboxSpec, options: &Options, v2: bool) -> Result<Backend> {
    let older =
        [("gpu", spec.resources.gpu.is_some()), ("network_file_systems", !options.network_file_systems.is_empty())];
    let newer = [("i6pn", options.i6pn)];
    let first = |all: &[(&'static str, bool)]| all.iter().find(|(_, asked)| *asked).map(|(name, _)| *name);
    let contradiction = |name: &str, only: &str, other: &str| {
        Err(Error::invalid(format!("`{name}` needs Modal's {only} backend, which {other} excludes: omit one of them."))
            .about(name))
    };
    match (first(&older), first(&newer), options.backend) {
        (Some(old), Some(new), _) => contradiction(old, "v1", &format!("`{new}`")),
        (Some(old), None, Some(Backend::V2)) => contradiction(old, "v1", "the option `backend`"),
        (None, Some(new), Some(Backend::V1)) => contradiction(new, "v2", "the option `backend`"),
        (None, Some(new), None) if !v2 => contradiction(new, "v2", "MODAL_SANDBOX_V2"),
        (Some(_), None, _) | (None, None, Some(Backend::V1)) => Ok(Backend::V1),
        (None, None, None) if !v2 => Ok(Backend::V1),
        (None, ..) => Ok(Backend::V2),
    }
}

fn resources(wanted: &Wanted) -> Resources {
    Resources {
        memory_mb: wanted.memory_request_mib.unwrap_or_default(),
        milli_cpu: wanted.cpu_request_millicores.unwrap_or_default(),
        gpu_config: Some(wanted.gpu.as_ref().map(gpu_config).unwrap_or_default()),
        memory_mb_max: wanted.memory_limit_mib.unwrap_or_default(),
        milli_cpu_max: wanted.cpu_limit_millicores.unwrap_or_default(),
        ..Default::default()
    }
}

fn open_ports(ports: &[Port]) -> sandbox::OpenPortsOneof {
    let ports = ports
        .iter()
        .map(|port| PortSpec {
            port: port.number.into(),
            unencrypted: port.kind == PortKind::Tcp,
            tunnel_type: (port.kind == PortKind::H2).then_some(TunnelType::H2.into()),
        })
        .collect();
    sandbox::OpenPortsOneof::OpenPorts(PortSpecs { ports })
}

/// Checks the fields of a specification. Sends nothing.
fn check_spec(spec: &SandboxSpec) -> Result<()> {
    check_entry_point(&spec.entry_point)?;
    check_outbound(&spec.network.outbound)?;
    check::absent(spec.user.is_some(), "create.user")?;
    check::env(&spec.env)?;
    if let Some(workdir) = spec.workdir.as_deref().filter(|path| !path.starts_with('/')) {
        return Err(Error::invalid(format!("The working directory `{}` is not an absolute path.", shown(workdir)))
            .about("workdir"));
    }
    if let Some(name) = &spec.name {
        check::name(name)?;
    }
    if let Some(key) = &spec.key {
        ids::check_chosen("a key", key)?;
    }
    for (what, span) in [("lifetime", spec.lifetime), ("idle-timeout", spec.idle_timeout)] {
        if span == Some(0) {
            return Err(Error::invalid(format!("The {what} is 0: give a positive value, or omit it for the default."))
                .about(what));
        }
    }
    let wanted = &spec.resources;
    for (what, request, limit) in [
        ("cpu", wanted.cpu_request_millicores, wanted.cpu_limit_millicores),
        ("memory", wanted.memory_request_mib, wanted.memory_limit_mib),
    ] {
        if let (Some(request), Some(limit)) = (request, limit)
            && limit < request
        {
            return Err(Error::invalid(format!("The {what} limit {limit} is below the request {request}.")).about(what));
        }
    }
    if !spec.ports.is_empty() && matches!(spec.network.outbound, Outbound::Blocked) {
        return Err(Error::invalid("A sandbox without network cannot have ports: open the network or omit the ports.")
            .about("ports"));
    }
    if let Some(port) = spec.ports.iter().find(|port| port.number == 0) {
        return Err(Error::invalid(format!("{} is not a port: ports are 1 to 65535.", port.number)).about("ports"));
    }
    if wanted.disk_mib.is_some() {
        return Err(Error::unsupported("create.disk", "Modal does not support a disk size for sandboxes."));
    }
    if let Some(gpu) = &wanted.gpu {
        check::gpu(gpu)?;
    }
    match &spec.readiness {
        Some(probe) if matches!(&probe.check, Readiness::Exec(argv) if argv.is_empty()) => {
            return Err(Error::invalid("The readiness probe's command is empty.").about("readiness"));
        }
        Some(probe) if let Readiness::Other((name, _)) = &probe.check => {
            return Err(check::unknown_case("readiness", name));
        }
        Some(probe) if matches!(probe.check, Readiness::Tcp(0)) || probe.interval == Some(0) => {
            return Err(Error::invalid("The port and the interval of the readiness probe must be at least 1.")
                .about("readiness"));
        }
        _ => {}
    }
    volume::check(&spec.volumes)?;
    for bucket in &spec.buckets {
        check_bucket(bucket)?;
    }
    let paths: Vec<_> = spec.volumes.iter().map(|v| &v.path).chain(spec.buckets.iter().map(|b| &b.path)).collect();
    if let Some((_, path)) = paths.iter().enumerate().find(|(index, path)| paths[..*index].contains(path)) {
        return Err(Error::invalid(format!("`{path}` is the path of two mounts.")).about(path));
    }
    for (index, sidecar) in spec.sidecars.iter().enumerate() {
        sidecar::check_spec(sidecar)?;
        if spec.sidecars[..index].iter().any(|earlier| earlier.name == sidecar.name) {
            return Err(Error::invalid(format!("Two sidecars are named `{}`.", sidecar.name)).about(&sidecar.name));
        }
    }
    check::extra(&spec.extra)
}

fn check_bucket(bucket: &BucketMount) -> Result<()> {
    let bad = |text: String| Err(Error::invalid(text).about(&bucket.bucket));
    if bucket.bucket.is_empty() {
        return bad("The name of a bucket is empty.".to_string());
    }
    if !is_canonical(&bucket.path) {
        return bad(format!("A bucket cannot be mounted at `{}`: give an absolute path.", shown(&bucket.path)));
    }
    if bucket.prefix.as_deref().is_some_and(|prefix| !prefix.ends_with('/')) {
        return bad("The prefix of a bucket must end in `/`.".to_string());
    }
    if BucketExtra::read(bucket)?.requester_pays && bucket.secret.is_none() {
        return bad("A bucket with requester_pays needs a secret with credentials.".to_string());
    }
    Ok(())
}

/// The extra fields of a bucket.
#[derive(Default)]
struct BucketExtra {
    requester_pays: bool,
    force_path_style: bool,
    oidc_role: Option<String>,
}

impl BucketExtra {
    fn read(bucket: &BucketMount) -> Result<BucketExtra> {
        let mut extra = BucketExtra::default();
        for (name, value) in &bucket.extra {
            match (name.as_str(), value.as_str()) {
                ("requester_pays", "true" | "false") => extra.requester_pays = value == "true",
                ("force_path_style", "true" | "false") => extra.force_path_style = value == "true",
                ("oidc_role", role) if role.len() > 2 && role.starts_with('"') && role.ends_with('"') => {
                    extra.oidc_role = Some(role.trim_matches('"').to_string());
                }
                _ => {
                    return Err(Error::invalid(format!(
                        "A bucket cannot have `{}` = `{}`; there are requester_pays and force_path_style (true or \
                         false) and oidc_role (a string).",
                        shown(name),
                        shown(value)
                    ))
                    .about(name));
                }
            }
        }
        Ok(extra)
    }
}
