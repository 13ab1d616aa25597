//! Making sandboxes: what a request may ask for, and what it gets.
//!
//! Both backends share everything; only the shapes of ids and the answer differ (fact sheet, section 5).

use std::collections::HashSet;
use std::sync::Arc;

use modal_proto::client::network_access::NetworkAccessType;
use modal_proto::client::*;
use tonic::Status;

use super::Caller;
use super::sandbox::{DEFAULT_PATH, Plan, Sandbox, supervise};
use crate::state::{State, check_name, overlay};

/// Longest life of a sandbox, in seconds: a day.
const MAX_TIMEOUT: u32 = 24 * 3600;

/// Most tags of one sandbox.
const MAX_TAGS: usize = 50;

/// Cloud names that the service knows.
const CLOUDS: [&str; 5] = ["aws", "gcp", "oci", "auto", "azure"];

/// Beginnings of region names that the service knows.
const REGIONS: [&str; 12] = ["us", "eu", "uk", "ap", "ca", "me", "sa", "af", "mx", "jp", "au", "il"];

/// Makes a sandbox of the first backend.
pub async fn create(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxCreateRequest,
) -> Result<SandboxCreateResponse, Status> {
    let definition = request.definition.ok_or_else(|| Status::invalid_argument("definition is required"))?;
    let mut env = Vec::new();
    for id in &definition.secret_ids {
        env.extend(state.secret_values(id)?);
    }
    let sandbox = make(state, false, request.app_id, definition, request.tags, env)?;
    Ok(SandboxCreateResponse { sandbox_id: sandbox.id.clone(), metadata: Some(metadata(&sandbox)) })
}

/// Makes a sandbox of the second backend.
pub async fn create_v2(
    state: &Arc<State>,
    caller: &Caller,
    request: SandboxCreateV2Request,
) -> Result<SandboxCreateV2Response, Status> {
    let definition = request.definition.ok_or_else(|| Status::invalid_argument("definition is required"))?;
    if !request.secret_sources.is_empty() && request.ephemeral_secrets.is_some() {
        return Err(Status::invalid_argument("secret_sources cannot be combined with ephemeral_secrets"));
    }
    let mut env = Vec::new();
    if request.secret_sources.is_empty() {
        for id in &definition.secret_ids {
            env.extend(state.secret_values(id)?);
        }
        env.extend(request.ephemeral_secrets.unwrap_or_default().contents);
    } else {
        env = state.variables(&request.secret_sources)?;
    }
    let sandbox = make(state, true, request.app_id, definition, request.tags, env)?;
    Ok(SandboxCreateV2Response {
        sandbox_id: sandbox.id.clone(),
        tunnels: super::tunnels::known_at_once(&sandbox),
        task_id: sandbox.task_id.clone(),
        metadata: Some(metadata(&sandbox)),
        command_router_access: Some(access(state, caller, &sandbox)),
        sandbox_token: state.signer.sign(&sandbox.id, state.options.auth_token_life),
    })
}

/// Makes one and sets it going. Variables of `env` come on top of the image's.
pub fn make(
    state: &Arc<State>,
    v2: bool,
    app_id: String,
    definition: modal_proto::client::Sandbox,
    tags: Vec<SandboxTag>,
    variables: Vec<(String, String)>,
) -> Result<Arc<Sandbox>, Status> {
    let app = state.app(&app_id)?;
    check(state, &definition)?;
    check_tags(&tags)?;
    let image = state.image(&definition.image_id)?.built()?;
    let mut env = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
    overlay(&mut env, image.config.env.clone());
    overlay(&mut env, definition.environment_variables.clone().unwrap_or_default().contents);
    overlay(&mut env, variables);
    if definition.include_oidc_identity_token {
        let token = state.signer.sign("identity", std::time::Duration::from_secs(3600));
        overlay(&mut env, [("MODAL_IDENTITY_TOKEN".to_owned(), token)]);
    }
    let sandbox =
        Arc::new(Sandbox::new(Plan { v2, app_id, environment: app.environment, definition, tags, image, env }));
    {
        let mut tables = state.tables.lock();
        let name = sandbox.changing.lock().name.clone();
        if let Some(name) = name {
            free_name(&tables, &sandbox.app_id, &name)?;
        }
        tables.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        tables.tasks.insert(sandbox.task_id.clone(), sandbox.id.clone());
    }
    tracing::info!(sandbox = sandbox.id, image = sandbox.definition.image_id, v2, "sandbox created");
    tokio::spawn(supervise(state.clone(), sandbox.clone()));
    Ok(sandbox)
}

/// Fails when a live sandbox of the app has this name.
pub fn free_name(tables: &crate::state::Tables, app_id: &str, name: &str) -> Result<(), Status> {
    let mut sandboxes = tables.sandboxes.values();
    let taken = sandboxes
        .any(|other| other.app_id == app_id && other.lives() && other.changing.lock().name.as_deref() == Some(name));
    if taken {
        return Err(Status::already_exists(format!("Sandbox with name '{name}' already exists in this app")));
    }
    Ok(())
}

/// Whether the definition leaves the network open. (Allow-lists are not carried out and count as blocked.)
pub fn network_is_open(definition: &modal_proto::client::Sandbox) -> bool {
    if definition.block_network {
        return false;
    }
    match &definition.network_access {
        Some(access) => {
            matches!(access.network_access_type(), NetworkAccessType::Open | NetworkAccessType::Unspecified)
        }
        None => true,
    }
}

/// The ports a sandbox wants to be reached at.
pub fn ports(definition: &modal_proto::client::Sandbox) -> &[PortSpec] {
    match &definition.open_ports_oneof {
        Some(sandbox::OpenPortsOneof::OpenPorts(ports)) => &ports.ports,
        None => &[],
    }
}

/// How to reach a sandbox's router.
pub fn access(state: &State, caller: &Caller, sandbox: &Sandbox) -> CommandRouterAccess {
    CommandRouterAccess { jwt: state.task_token(&sandbox.task_id), url: state.router_url(caller.https_router) }
}

/// What every answer about a sandbox says besides.
pub fn metadata(sandbox: &Sandbox) -> SandboxHandleMetadata {
    SandboxHandleMetadata { result: sandbox.result(), app_id: sandbox.app_id.clone() }
}

/// Checks a set of tags.
pub fn check_tags(tags: &[SandboxTag]) -> Result<(), Status> {
    let mut names = HashSet::new();
    if tags.len() > MAX_TAGS {
        return Err(Status::invalid_argument(format!("A sandbox can have at most {MAX_TAGS} tags")));
    }
    for tag in tags {
        if tag.tag_name.is_empty() || !names.insert(&tag.tag_name) {
            return Err(Status::invalid_argument(format!("Tag '{}' is empty or given twice", tag.tag_name)));
        }
    }
    Ok(())
}

fn check(state: &State, definition: &modal_proto::client::Sandbox) -> Result<(), Status> {
    let bad = |text: String| Err(Status::invalid_argument(text));
    if definition.image_id.is_empty() {
        return bad("image_id is required".into());
    }
    if definition.timeout_secs > MAX_TIMEOUT {
        return bad(format!("timeout_secs must be at most {MAX_TIMEOUT}, got {}", definition.timeout_secs));
    }
    if definition.idle_timeout_secs == Some(0) {
        return bad("idle_timeout_secs must be positive".into());
    }
    if definition.entrypoint_args.iter().map(String::len).sum::<usize>() > 65_536 {
        return bad("The command has more than 65536 bytes".into());
    }
    if definition.entrypoint_args.iter().any(|arg| arg.contains('\0')) {
        return bad("The command contains a zero byte".into());
    }
    if let Some(workdir) = &definition.workdir
        && (!workdir.starts_with('/') || workdir.contains('\0'))
    {
        return bad(format!("workdir must be an absolute path, got '{workdir}'"));
    }
    if let Some(name) = definition.name.as_deref().filter(|name| !name.is_empty()) {
        check_name("sandbox", name)?;
    }
    let cloud = &definition.cloud_provider_str;
    if !cloud.is_empty() && !CLOUDS.contains(&cloud.to_ascii_lowercase().as_str()) {
        return bad(format!("Unknown cloud provider: '{cloud}'"));
    }
    for region in definition.scheduler_placement.iter().flat_map(|placement| &placement.regions) {
        let start = region.split('-').next().unwrap_or_default();
        if !REGIONS.contains(&start) {
            return bad(format!("Unknown region: '{region}'"));
        }
    }
    if let Some(runtime) = definition.runtime.as_deref().filter(|r| !["", "gvisor", "vm"].contains(r)) {
        return bad(format!("Unknown runtime: '{runtime}'"));
    }
    check_resources(&definition.resources.clone().unwrap_or_default())?;
    check_network(definition)?;
    check_probe(definition.readiness_probe.as_ref())?;
    check_volumes(state, &definition.volume_mounts)?;
    for id in &definition.mount_ids {
        super::mounts::get(state, id)?;
    }
    if !definition.cloud_bucket_mounts.is_empty()
        || !definition.s3_mounts.is_empty()
        || !definition.nfs_mounts.is_empty()
    {
        return Err(Status::unimplemented("The emulator has no cloud buckets and no network file systems to mount"));
    }
    Ok(())
}

fn check_resources(resources: &Resources) -> Result<(), Status> {
    let bad = |text: String| Err(Status::invalid_argument(text));
    if resources.memory_mb_max != 0 && resources.memory_mb_max < resources.memory_mb {
        return bad(format!(
            "The memory limit {} is below the request {}",
            resources.memory_mb_max, resources.memory_mb
        ));
    }
    if resources.milli_cpu_max != 0 && resources.milli_cpu_max < resources.milli_cpu {
        return bad(format!("The CPU limit {} is below the request {}", resources.milli_cpu_max, resources.milli_cpu));
    }
    if let Some(gpu) = &resources.gpu_config
        && gpu.count > 8
    {
        return bad(format!("At most 8 GPUs can be asked for, got {}", gpu.count));
    }
    Ok(())
}

fn check_network(definition: &modal_proto::client::Sandbox) -> Result<(), Status> {
    let bad = |text: String| Err(Status::invalid_argument(text));
    let ports = ports(definition);
    let mut seen = HashSet::new();
    for port in ports {
        if port.port == 0 || port.port > 65_535 || !seen.insert(port.port) {
            return bad(format!("Invalid port, or a port given twice: {}", port.port));
        }
    }
    check_cidrs(&definition.inbound_cidr_allowlist)?;
    if let Some(access) = &definition.network_access {
        check_access(access)?;
        let blocked = access.network_access_type() == NetworkAccessType::Blocked;
        if blocked && !ports.is_empty() {
            return bad("Ports cannot be opened when the network is blocked".into());
        }
    }
    Ok(())
}

/// Checks an outbound policy.
pub fn check_access(access: &NetworkAccess) -> Result<(), Status> {
    if NetworkAccessType::try_from(access.network_access_type).is_err() {
        return Err(Status::invalid_argument("Unknown network access type"));
    }
    check_cidrs(&access.allowed_cidrs)?;
    for domain in &access.allowed_domains {
        let name = domain.strip_prefix("*.").unwrap_or(domain);
        let fits = |part: &str| {
            !part.is_empty()
                && part.len() <= 63
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if domain != "*" && !(name.len() <= 253 && name.split('.').all(fits)) {
            return Err(Status::invalid_argument(format!("Invalid domain: {domain}")));
        }
    }
    Ok(())
}

fn check_cidrs(cidrs: &[String]) -> Result<(), Status> {
    for cidr in cidrs {
        let parsed = cidr.split_once('/').and_then(|(address, bits)| {
            let address: std::net::IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            bits.parse::<u8>().ok().filter(|bits| *bits <= most)
        });
        if parsed.is_none() {
            return Err(Status::invalid_argument(format!("Invalid CIDR: {cidr}")));
        }
    }
    Ok(())
}

fn check_probe(probe: Option<&Probe>) -> Result<(), Status> {
    use probe::ProbeOneof;
    match probe.map(|probe| &probe.probe_oneof) {
        Some(Some(ProbeOneof::TcpPort(port))) if *port == 0 || *port > 65_535 => {
            Err(Status::invalid_argument(format!("Invalid readiness probe port: {port}")))
        }
        Some(Some(ProbeOneof::ExecCommand(command))) if command.argv.is_empty() => {
            Err(Status::invalid_argument("The readiness probe's command is empty"))
        }
        Some(None) => Err(Status::invalid_argument("The readiness probe is empty")),
        _ => Ok(()),
    }
}

/// Checks where volumes are to be mounted.
pub fn check_volumes(state: &State, volumes: &[VolumeMount]) -> Result<(), Status> {
    let mut seen = HashSet::new();
    for volume in volumes {
        super::volumes::get(state, &volume.volume_id)?;
        let path = &volume.mount_path;
        let canonical = path.starts_with('/')
            && path.len() > 1
            && path[1..].trim_end_matches('/').split('/').all(|part| !part.is_empty() && part != "." && part != "..")
            && !path.contains('\0');
        if !canonical || ["/root", "/tmp"].contains(&path.trim_end_matches('/')) {
            return Err(Status::invalid_argument(format!("A volume cannot be mounted at '{path}'")));
        }
        if !seen.insert(&volume.volume_id) {
            return Err(Status::invalid_argument(format!("Volume {} is mounted twice", volume.volume_id)));
        }
        if volume.sub_path.as_deref().is_some_and(|sub| sub.split('/').any(|part| part == "..") || sub.contains('\0')) {
            return Err(Status::invalid_argument("A volume's sub_path must stay inside it"));
        }
    }
    Ok(())
}
