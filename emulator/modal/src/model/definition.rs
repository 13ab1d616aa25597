//! Validates the definition of a sandbox. Every field is implemented, has no effect on an emulator, or is rejected with the
//! error of the service. The table "Create options" of the manual lists the fields, and a test compares it with the messages.

use std::collections::HashSet;

use modal_proto::client::*;

use crate::model::error::Error;
use crate::model::state::State;
use crate::model::values::check_name;
use crate::model::{outbound_policy, storage};

/// Longest lifetime of a sandbox, in seconds: one day.
const MAX_TIMEOUT: u32 = 24 * 3600;

/// Largest number of tags of one sandbox.
const MAX_TAGS: usize = 50;

/// Longest command, in bytes of all arguments; the official clients check the same limit.
const MAX_COMMAND: usize = 65_536;

/// Cloud names that the service knows.
const CLOUDS: [&str; 5] = ["aws", "gcp", "oci", "auto", "azure"];

/// Prefixes of region names that the service knows.
const REGIONS: [&str; 12] = ["us", "eu", "uk", "ap", "ca", "me", "sa", "af", "mx", "jp", "au", "il"];

/// GPU names that the service knows, without an optional `!` or `+` suffix.
const GPUS: [&str; 14] = [
    "ANY",
    "T4",
    "L4",
    "A10",
    "A10G",
    "L40S",
    "A100",
    "A100-40GB",
    "A100-80GB",
    "H100",
    "H200",
    "B200",
    "B300",
    "RTX-PRO-6000",
];

/// Experimental options that have an effect.
const EXPERIMENTAL: [&str; 3] = ["enable_docker", "enable_exit_snapshot", "vm_sidecar_memory_reserve_mib"];

fn bad<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::invalid_argument(text))
}

/// Validates a definition for the second backend (`v2`) or the first.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if a value is not valid, with `Kind::NotFound` if the definition names an object that
/// does not exist, and with `Kind::Unimplemented` for features that the emulator does not have.
pub fn check(state: &State, v2: bool, definition: &Sandbox) -> Result<(), Error> {
    check_process(definition)?;
    if definition.timeout_secs > MAX_TIMEOUT {
        return bad(format!("timeout_secs must be at most {MAX_TIMEOUT}, got {}", definition.timeout_secs));
    }
    if definition.idle_timeout_secs == Some(0) {
        return bad("idle_timeout_secs must be positive");
    }
    if let Some(name) = definition.name.as_deref().filter(|name| !name.is_empty()) {
        check_name("sandbox", name)?;
    }
    check_resources(v2, &definition.resources.clone().unwrap_or_default())?;
    check_placement(definition)?;
    check_network(v2, definition)?;
    check_probe(definition.readiness_probe.as_ref())?;
    check_experimental(definition)?;
    storage::check(state, &definition.volume_mounts, &storage::buckets(definition))?;
    for id in &definition.mount_ids {
        state.mount(id)?;
    }
    match definition.nfs_mounts.first() {
        Some(_) if v2 => bad("Network file systems are not supported on this backend"),
        // The emulator has no calls that make network file systems, so no id can be valid.
        Some(mount) => Err(Error::not_found(format!("Network file system {} not found", mount.shared_volume_id))),
        None if definition.include_x509_svid => Err(Error::unimplemented("The emulator does not issue certificates")),
        None => Ok(()),
    }
}

fn check_process(definition: &Sandbox) -> Result<(), Error> {
    if definition.image_id.is_empty() {
        return bad("image_id is required");
    }
    if definition.entrypoint_args.iter().map(String::len).sum::<usize>() > MAX_COMMAND {
        return bad(format!("The command has more than {MAX_COMMAND} bytes"));
    }
    if definition.entrypoint_args.iter().any(|arg| arg.contains('\0')) {
        return bad("The command contains a zero byte");
    }
    check_workdir(definition.workdir.as_deref())
}

/// Checks the working directory of a process.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if it is not an absolute path.
pub fn check_workdir(workdir: Option<&str>) -> Result<(), Error> {
    match workdir {
        Some(workdir) if !workdir.starts_with('/') || workdir.contains('\0') => {
            bad(format!("workdir must be an absolute path, got '{workdir}'"))
        }
        _ => Ok(()),
    }
}

fn check_resources(v2: bool, resources: &Resources) -> Result<(), Error> {
    let (memory, most_memory) = (resources.memory_mb, resources.memory_mb_max);
    if most_memory != 0 && most_memory < memory {
        return bad(format!("The memory limit {most_memory} is below the request {memory}"));
    }
    let (cpu, most_cpu) = (resources.milli_cpu, resources.milli_cpu_max);
    if most_cpu != 0 && most_cpu < cpu {
        return bad(format!("The CPU limit {most_cpu} is below the request {cpu}"));
    }
    if resources.ephemeral_disk_mb != 0 {
        return bad("Ephemeral disk requests are not supported for sandboxes");
    }
    if resources.rdma {
        return bad("RDMA is not supported for sandboxes");
    }
    let gpu = resources.gpu_config.clone().unwrap_or_default();
    if gpu.count == 0 && gpu.gpu_type.is_empty() {
        return Ok(());
    }
    if v2 {
        return bad("GPUs are not supported on this backend");
    }
    if gpu.count > 8 {
        return bad(format!("At most 8 GPUs can be requested, got {}", gpu.count));
    }
    let name = gpu.gpu_type.trim_end_matches(['!', '+']);
    if !name.is_empty() && !GPUS.contains(&name.to_ascii_uppercase().as_str()) {
        return bad(format!("Unknown GPU type: '{}'", gpu.gpu_type));
    }
    Ok(())
}

fn check_placement(definition: &Sandbox) -> Result<(), Error> {
    let cloud = &definition.cloud_provider_str;
    if !cloud.is_empty() && !CLOUDS.contains(&cloud.to_ascii_lowercase().as_str()) {
        return bad(format!("Unknown cloud provider: '{cloud}'"));
    }
    let placement = definition.scheduler_placement.clone().unwrap_or_default();
    for region in &placement.regions {
        let start = region.split('-').next().unwrap_or_default();
        if !REGIONS.contains(&start) {
            return bad(format!("Unknown region: '{region}'"));
        }
    }
    if placement.nonpreemptible {
        return bad("Sandboxes cannot be made non-preemptible");
    }
    if let Some(runtime) = definition.runtime.as_deref().filter(|r| !["", "gvisor", "vm"].contains(r)) {
        return bad(format!("Unknown runtime: '{runtime}'"));
    }
    if !definition.worker_id.is_empty() {
        return Err(Error::not_found(format!("Worker {} not found", definition.worker_id)));
    }
    Ok(())
}

fn check_network(v2: bool, definition: &Sandbox) -> Result<(), Error> {
    let ports = ports(definition);
    let mut seen = HashSet::new();
    for port in ports {
        if port.port == 0 || port.port > 65_535 || !seen.insert(port.port) {
            return bad(format!("Invalid port, or a port given twice: {}", port.port));
        }
    }
    outbound_policy::cidrs(&definition.inbound_cidr_allowlist)?;
    if outbound_policy::is_blocked(definition) && !ports.is_empty() {
        return bad("Ports cannot be opened when the network is blocked");
    }
    check_proxy(definition.proxy_id.as_deref())?;
    if !definition.custom_domain.is_empty() {
        return Err(Error::not_found(format!("Custom domain '{}' not found", definition.custom_domain)));
    }
    match definition.i6pn_enabled {
        true if v2 => Err(Error::unimplemented("The emulator has no private network between sandboxes")),
        true => bad("i6pn is not supported on this backend"),
        false => Ok(()),
    }
}

/// Checks that no proxy is requested, because the emulator has none.
///
/// # Errors
///
/// Fails with `Kind::NotFound` if a proxy is named.
pub fn check_proxy(proxy_id: Option<&str>) -> Result<(), Error> {
    match proxy_id {
        Some(id) if !id.is_empty() => Err(Error::not_found(format!("Proxy {id} not found"))),
        _ => Ok(()),
    }
}

fn check_probe(probe: Option<&Probe>) -> Result<(), Error> {
    use probe::ProbeOneof;
    match probe.map(|probe| &probe.probe_oneof) {
        Some(Some(ProbeOneof::TcpPort(port))) if *port == 0 || *port > 65_535 => {
            bad(format!("Invalid readiness probe port: {port}"))
        }
        Some(Some(ProbeOneof::ExecCommand(command))) if command.argv.is_empty() => {
            bad("The readiness probe's command is empty")
        }
        Some(None) => bad("The readiness probe is empty"),
        _ => Ok(()),
    }
}

fn check_experimental(definition: &Sandbox) -> Result<(), Error> {
    for name in definition.experimental_options.keys().chain(definition.experimental_options_v2.keys()) {
        if !EXPERIMENTAL.contains(&name.as_str()) {
            tracing::warn!(option = name, "an experimental option is unknown to the emulator and has no effect");
        }
    }
    if is_on(definition, "enable_docker") {
        return Err(Error::unimplemented("The emulator does not support Docker inside sandboxes"));
    }
    match definition.experimental_options_v2.get("vm_sidecar_memory_reserve_mib") {
        Some(text) if sidecar_memory(definition).is_none() => {
            bad(format!("vm_sidecar_memory_reserve_mib must be a positive number, got '{text}'"))
        }
        _ => Ok(()),
    }
}

/// Returns whether an experimental option is on, in either of the two fields for such options.
pub fn is_on(definition: &Sandbox, option: &str) -> bool {
    let text = definition.experimental_options_v2.get(option);
    text.is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || definition.experimental_options.get(option).copied().unwrap_or(false)
}

/// Returns the mebibytes of memory that are reserved for sidecars; `None` if the option is missing or not a positive number.
pub fn sidecar_memory(definition: &Sandbox) -> Option<u32> {
    let text = definition.experimental_options_v2.get("vm_sidecar_memory_reserve_mib")?;
    text.parse().ok().filter(|mib| *mib > 0)
}

/// Returns the name of the first field that is set but not permitted for sidecars.
pub fn refused_for_sidecars(definition: &Sandbox) -> Option<&'static str> {
    let resources = definition.resources.clone().unwrap_or_default();
    // A sidecar requests its part of the reserved memory with `memory_mb`.
    let only_memory = Resources { memory_mb: resources.memory_mb, ..Default::default() };
    [
        (resources != only_memory, "resources"),
        (!definition.mount_ids.is_empty(), "mount_ids"),
        (definition.timeout_secs != 0, "timeout_secs"),
        (!definition.nfs_mounts.is_empty(), "nfs_mounts"),
        (!definition.s3_mounts.is_empty(), "s3_mounts"),
        (definition.scheduler_placement.is_some(), "scheduler_placement"),
        (!ports(definition).is_empty(), "open_ports"),
        (definition.i6pn_enabled, "i6pn_enabled"),
        (definition.enable_snapshot, "enable_snapshot"),
        (definition.name.is_some(), "name"),
        (definition.idle_timeout_secs.is_some(), "idle_timeout_secs"),
        (!definition.custom_domain.is_empty(), "custom_domain"),
        (definition.readiness_probe.is_some(), "readiness_probe"),
        (!definition.inbound_cidr_allowlist.is_empty(), "inbound_cidr_allowlist"),
        (!definition.experimental_options.is_empty(), "experimental_options"),
        (!definition.experimental_options_v2.is_empty(), "experimental_options_v2"),
        (definition.experimental_outbound_policy.is_some(), "experimental_outbound_policy"),
        (definition.include_x509_svid, "include_x509_svid"),
        (definition.outbound_policy.is_some(), "outbound_policy"),
    ]
    .into_iter()
    .find_map(|(used, name)| used.then_some(name))
}

/// Returns the ports at which a sandbox wants to be reached from outside.
pub fn ports(definition: &Sandbox) -> &[PortSpec] {
    match &definition.open_ports_oneof {
        Some(sandbox::OpenPortsOneof::OpenPorts(ports)) => &ports.ports,
        None => &[],
    }
}

/// Checks a set of tags.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if there are more than 50 tags, or if a name is empty or repeated.
pub fn check_tags(tags: &[SandboxTag]) -> Result<(), Error> {
    let mut names = HashSet::new();
    if tags.len() > MAX_TAGS {
        return Err(Error::invalid_argument(format!("A sandbox can have at most {MAX_TAGS} tags")));
    }
    for tag in tags {
        if tag.tag_name.is_empty() || !names.insert(&tag.tag_name) {
            return Err(Error::invalid_argument(format!("Tag '{}' is empty or given twice", tag.tag_name)));
        }
    }
    Ok(())
}

/// Returns whether a snapshot is taken when the sandbox ends.
pub fn wants_exit_snapshot(definition: &Sandbox) -> bool {
    is_on(definition, "enable_exit_snapshot")
}
