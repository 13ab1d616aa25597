//! The sandbox that the options describe, and one that lives as long as this program.

use std::time::Duration;

use anyhow::Result;
use sandbox_host::types::{ImageSpec, SandboxSpec, SidecarSpec};
use sandbox_host::{Keeper, Kind, Provider, RUN_TAG, Sandbox};
use serde_json::json;

use crate::args::SandboxArgs;
use crate::output::Failure;
use crate::session::Session;
use crate::session::undo::Owed;

/// How long a sandbox of `run` outlives this program if it is killed; then `sweep` removes it.
const LEASE: Duration = Duration::from_secs(600);

/// The container of a sandbox that is meant.
pub fn container(sandbox: Sandbox, name: Option<&str>) -> Sandbox {
    match name {
        Some(name) => sandbox.sidecar(name),
        None => sandbox,
    }
}

/// What the options say of a sandbox.
pub fn sandbox_spec(args: &SandboxArgs, image: ImageSpec) -> Result<SandboxSpec> {
    let mut spec = SandboxSpec::new(image);
    spec.env = args.env.clone();
    spec.secrets = args.secret.clone();
    spec.workdir = args.workdir.clone();
    for (name, cores) in [("--cpu", args.cpu), ("--cpu-limit", args.cpu_limit)] {
        if cores.is_some_and(|cores| !(cores.is_finite() && cores > 0.0)) {
            return Err(Failure::new("create the sandbox", format!("{name} must be a positive number")).into());
        }
    }
    if let Some(cores) = args.cpu {
        spec = spec.cpu(cores);
    }
    if let Some(cores) = args.cpu_limit {
        spec = spec.cpu_limit(cores);
    }
    spec.resources.memory_request_mib = args.memory;
    spec.resources.memory_limit_mib = args.memory_limit;
    if let Some((model, count)) = &args.gpu {
        spec = spec.gpu(model, *count);
    }
    spec.lifetime = args.lifetime.map(|time| time.as_millis() as u64);
    spec.idle_timeout = args.idle_timeout.map(|time| time.as_millis() as u64);
    if args.block_network {
        spec = spec.block_network();
    } else if !args.allow.is_empty() {
        let (cidrs, domains) = places(&args.allow);
        spec = spec.allow_only(cidrs, domains);
    }
    spec.network.inbound_cidrs = args.inbound.iter().map(|place| range(place)).collect();
    spec.proxy = args.proxy.clone();
    for (kind, number) in &args.port {
        spec = spec.port_of(*kind, *number);
    }
    spec.volumes = args.volume.clone();
    spec.buckets = args.bucket.clone();
    for (name, image) in &args.sidecar {
        let image = if image.starts_with("im-") { ImageSpec::id(image) } else { ImageSpec::registry(image) };
        spec = spec.sidecar(SidecarSpec::new(name, image));
    }
    if let Some(port) = args.ready_port {
        spec = spec.ready_when_listening(port);
    }
    if let Some(line) = &args.ready_command {
        spec = spec.ready_when(["/bin/sh", "-c", line]);
    }
    spec.regions = args.region.clone();
    spec.name = args.name.clone();
    spec.tags = args.tag.clone();
    spec.options = args
        .options
        .iter()
        .map(|(key, value)| {
            // What is no JSON is meant as text.
            let json = serde_json::from_str::<serde_json::Value>(value).unwrap_or_else(|_| json!(value));
            (key.clone(), json.to_string())
        })
        .collect();
    Ok(spec)
}

/// What may be connected to: address ranges, and names.
pub fn places(all: &[String]) -> (Vec<String>, Vec<String>) {
    all.iter().map(|place| range(place)).partition(|place| place.contains('/'))
}

/// An address alone is the range of that address.
fn range(place: &str) -> String {
    match place.parse::<std::net::IpAddr>() {
        Ok(address) => format!("{place}/{}", if address.is_ipv4() { 32 } else { 128 }),
        Err(_) => place.to_owned(),
    }
}

/// Settings that no create would take fail here, before an image is built for nothing.
pub async fn refuse_early(provider: &Provider, spec: &SandboxSpec) -> Result<()> {
    match provider.check_spec(spec).await {
        // A plugin of before that function; its create will tell.
        Err(error) if *error.kind() == Kind::Unsupported && error.subject() == Some("check-spec") => Ok(()),
        checked => Ok(checked?),
    }
}

/// Creates a sandbox for as long as this program runs: an interruption at any point leaves nothing, and being killed
/// leaves nothing that a sweep would not find.
pub async fn create_sandbox(
    session: &Session,
    provider: &Provider,
    spec: SandboxSpec,
) -> Result<(Sandbox, Owed, Keeper)> {
    let keeper = Keeper::new(provider, default_owner(), LEASE)?;
    let _step = session.voice.step("creating the sandbox");
    let creating = session.owe_creation(provider, (RUN_TAG.to_owned(), keeper.run().to_owned()));
    let sandbox = match keeper.create(spec).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            creating.unless_happened(&error);
            return Err(error.into());
        }
    };
    let owed = session.owe_sandbox(&sandbox);
    creating.paid();
    tracing::debug!(sandbox = sandbox.id(), "created");
    Ok((sandbox, owed, keeper))
}

/// Whose sandboxes `run` makes and `sweep` looks at: this user on this machine.
pub fn default_owner() -> String {
    let name = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let clean = |text: &str| -> String {
        text.trim()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
            .take(28)
            .collect()
    };
    format!("{}.{}", clean(&name.unwrap_or_else(|| "user".into())), clean(&host))
}
