//! Builds the sandbox specification that the options describe, and creates sandboxes that live as long as this program.

use std::time::Duration;

use anyhow::Result;
use sandbox_host::types::{ImageSpec, SandboxSpec, SidecarSpec};
use sandbox_host::{Keeper, Kind, Provider, RUN_TAG, Sandbox};
use serde_json::json;

use crate::args::SandboxArgs;
use crate::output::Failure;
use crate::session::Session;
use crate::session::undo::CleanupEntry;
use crate::steps::image::named_image;

/// How long a sandbox of `run` lives on if this program is killed. Afterwards `sandbox-host sweep` terminates it.
const LEASE: Duration = Duration::from_secs(600);

/// Returns the sidecar with this name, or the sandbox itself if `name` is `None`.
pub fn container(sandbox: Sandbox, name: Option<&str>) -> Sandbox {
    match name {
        Some(name) => sandbox.sidecar(name),
        None => sandbox,
    }
}

/// Builds the specification of a sandbox from the options.
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
        spec = spec.sidecar(SidecarSpec::new(name, named_image(image)));
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
            // A value that is not JSON is used as a string.
            let json = serde_json::from_str::<serde_json::Value>(value).unwrap_or_else(|_| json!(value));
            (key.clone(), json.to_string())
        })
        .collect();
    Ok(spec)
}

/// Splits the destinations of an allow-list into address ranges and domain names.
pub fn places(all: &[String]) -> (Vec<String>, Vec<String>) {
    all.iter().map(|place| range(place)).partition(|place| place.contains('/'))
}

/// Converts a single address to a range; returns other text unchanged.
fn range(place: &str) -> String {
    match place.parse::<std::net::IpAddr>() {
        Ok(address) => format!("{place}/{}", if address.is_ipv4() { 32 } else { 128 }),
        Err(_) => place.to_owned(),
    }
}

/// Fails if the settings are certain to be refused, before an image is built for them.
pub async fn refuse_early(provider: &Provider, spec: &SandboxSpec) -> Result<()> {
    match provider.check_spec(spec).await {
        // Older plugins do not implement this function; their `create` reports invalid settings.
        Err(error) if *error.kind() == Kind::Unsupported && error.subject() == Some("check-spec") => Ok(()),
        checked => Ok(checked?),
    }
}

/// Creates a sandbox that lives as long as this program. If the program is interrupted, the sandbox is terminated; if the
/// program is killed, `sandbox-host sweep` finds the sandbox.
pub async fn create_sandbox(
    session: &Session,
    provider: &Provider,
    spec: SandboxSpec,
) -> Result<(Sandbox, CleanupEntry, Keeper)> {
    let keeper = Keeper::new(provider, default_owner(), LEASE)?;
    let _step = session.voice.step("creating the sandbox");
    let creating = session.register_creation(provider, (RUN_TAG.to_owned(), keeper.run_id().to_owned()));
    let sandbox = match keeper.create(spec).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            creating.done_if_no_effect(&error);
            return Err(error.into());
        }
    };
    let cleanup = session.register_sandbox(&sandbox);
    creating.done();
    tracing::debug!(sandbox = sandbox.id(), "created");
    Ok((sandbox, cleanup, keeper))
}

/// Returns the owner of the sandboxes that `run` creates and `sweep` terminates: this user on this machine.
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
