//! Parts of messages that several modules use.

use modal_proto::client::{
    FileDescriptor, GpuConfig, NetworkAccess, PtyInfo, SandboxTag, SecretSource, StringMap, TaskLogs,
    network_access::NetworkAccessType, pty_info::PtyType, secret_source::Source,
};
use sandbox_provider_kit::{
    Result,
    api::{
        check,
        wit::{Gpu, Outbound, OutputStream, Pty},
    },
};

/// Returns the sources of environment variables: secrets first, then `env`, whose variables win
/// (docs/modal-protocol.md, section 4).
pub(crate) fn secret_sources(secret_ids: &[String], env: &[(String, String)]) -> Vec<SecretSource> {
    let mut sources: Vec<_> =
        secret_ids.iter().map(|id| SecretSource { source: Some(Source::SecretId(id.clone())) }).collect();
    if !env.is_empty() {
        let contents = env.iter().cloned().collect();
        sources.push(SecretSource { source: Some(Source::Env(StringMap { contents })) });
    }
    sources
}

/// Converts tags to Modal's form.
pub(crate) fn tags(pairs: &[(String, String)]) -> Vec<SandboxTag> {
    // If a name occurs twice, the later tag is used.
    let last = |index: usize, name: &String| pairs[index + 1..].iter().all(|(later, _)| later != name);
    let kept = pairs.iter().enumerate().filter(|(index, (name, _))| last(*index, name));
    kept.map(|(_, (name, value))| SandboxTag { tag_name: name.clone(), tag_value: value.clone() }).collect()
}

/// Converts an accelerator to Modal's form.
pub(crate) fn gpu_config(gpu: &Gpu) -> GpuConfig {
    GpuConfig { count: gpu.count, gpu_type: gpu.model.to_ascii_uppercase(), ..Default::default() }
}

/// Checks that an outbound policy is one that Modal has.
///
/// # Errors
///
/// `invalid-argument` with the subject `outbound`.
pub(crate) fn check_outbound(outbound: &Outbound) -> Result<()> {
    match outbound {
        Outbound::Other((name, _)) => Err(check::unknown_case("outbound", name)),
        Outbound::Open | Outbound::Blocked | Outbound::Allowed(_) => Ok(()),
    }
}

/// Converts an outbound policy, which [`check_outbound`] has accepted, to Modal's form.
pub(crate) fn network_access(outbound: &Outbound) -> NetworkAccess {
    match outbound {
        Outbound::Open => NetworkAccess { network_access_type: NetworkAccessType::Open.into(), ..Default::default() },
        Outbound::Blocked | Outbound::Other(_) => {
            NetworkAccess { network_access_type: NetworkAccessType::Blocked.into(), ..Default::default() }
        }
        Outbound::Allowed(list) => NetworkAccess {
            network_access_type: NetworkAccessType::Allowlist.into(),
            allowed_cidrs: list.cidrs.clone(),
            allowed_domains: list.domains.clone(),
        },
    }
}

/// Converts a terminal to Modal's form.
pub(crate) fn pty_info(pty: Pty) -> PtyInfo {
    PtyInfo {
        enabled: true,
        winsz_rows: pty.rows.into(),
        winsz_cols: pty.columns.into(),
        env_term: pty.term,
        pty_type: PtyType::Shell.into(),
        no_terminate_on_idle_stdin: true,
        ..Default::default()
    }
}

/// Returns the stream of a log entry, or `None` for messages of the service itself.
pub(crate) fn output_stream(entry: &TaskLogs) -> Option<OutputStream> {
    match entry.file_descriptor() {
        FileDescriptor::Stdout => Some(OutputStream::Stdout),
        FileDescriptor::Stderr => Some(OutputStream::Stderr),
        FileDescriptor::Unspecified | FileDescriptor::Info => None,
    }
}
