//! Constructors for records with many fields, of which most providers use few.

use std::time::Duration;

use super::time::millis;
use super::wit::{
    Capability, Description, EndReason, EntryPoint, ExecSpec, ImageSource, ImageSpec, NetworkPolicy, Outbound,
    OutputMode, Pair, Resources, SandboxInfo, SandboxSpec, SandboxState, Support,
};

/// Makes the description of a provider without options and without environment variables. Each capability is native;
/// the second text is its note, which may be empty.
#[must_use]
pub fn description(name: &str, version: &str, capabilities: &[(&str, &str)]) -> Description {
    let capability = |(name, note): &(&str, &str)| Capability {
        name: (*name).to_string(),
        support: Support::Native,
        note: (*note).to_string(),
    };
    Description {
        name: name.to_string(),
        version: version.to_string(),
        capabilities: capabilities.iter().map(capability).collect(),
        options_schema: "{}".to_string(),
        environment: Vec::new(),
        digests: Vec::new(),
        extra: Vec::new(),
    }
}

/// Makes the information about a running sandbox of which nothing but the id is known.
#[must_use]
pub fn sandbox_info(id: &str) -> SandboxInfo {
    SandboxInfo {
        id: id.to_string(),
        name: None,
        state: SandboxState::Running,
        image: None,
        created: None,
        tags: Vec::new(),
        tunnels: Vec::new(),
        extra: Vec::new(),
    }
}

/// Makes the information about a sandbox that is created now, with the tags of its specification. If a tag has several
/// values, it gets the last one. `now` is the time since the Unix epoch.
#[must_use]
pub fn new_sandbox(id: &str, spec: &SandboxSpec, now: Duration) -> SandboxInfo {
    let mut tags: Vec<Pair> = Vec::new();
    for (name, value) in &spec.tags {
        tags.retain(|(other, _)| other != name);
        tags.push((name.clone(), value.clone()));
    }
    SandboxInfo { name: spec.name.clone(), created: Some(millis(now)), tags, ..sandbox_info(id) }
}

/// Makes the specification of a command with this id and these words, and nothing else. A host makes it; here it is for
/// tests.
#[must_use]
pub fn exec_spec(id: &str, argv: &[&str]) -> ExecSpec {
    ExecSpec {
        id: id.to_string(),
        argv: argv.iter().map(|word| (*word).to_string()).collect(),
        env: Vec::new(),
        secrets: Vec::new(),
        cwd: None,
        user: None,
        timeout: None,
        pty: None,
        stdout: OutputMode::Keep,
        stderr: OutputMode::Keep,
        merge_stderr: false,
        container: None,
        extra: Vec::new(),
    }
}

/// Makes the specification of a sandbox of the provider's default image, and nothing else. A host makes it; here it is
/// for tests.
#[must_use]
pub fn sandbox_spec() -> SandboxSpec {
    SandboxSpec {
        image: ImageSpec {
            source: ImageSource::ProviderDefault,
            commands: Vec::new(),
            secrets: Vec::new(),
            force: false,
            builder_version: None,
            gpu: None,
            platform: None,
            extra: Vec::new(),
        },
        entry_point: EntryPoint::KeepAlive,
        user: None,
        env: Vec::new(),
        secrets: Vec::new(),
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
        regions: Vec::new(),
        network: NetworkPolicy { outbound: Outbound::Open, inbound_cidrs: Vec::new() },
        ports: Vec::new(),
        volumes: Vec::new(),
        buckets: Vec::new(),
        name: None,
        tags: Vec::new(),
        readiness: None,
        sidecars: Vec::new(),
        pty: None,
        proxy: None,
        key: None,
        options: Vec::new(),
        extra: Vec::new(),
    }
}

/// Returns why a sandbox has ended, or `None` if it has not ended.
#[must_use]
pub fn end_of(info: &SandboxInfo) -> Option<EndReason> {
    match &info.state {
        SandboxState::Ended(reason) => Some(reason.clone()),
        _ => None,
    }
}
