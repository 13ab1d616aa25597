//! The results of commands as JSON: what `--json` prints. `docs/cli.md` lists these structs; a test makes that list of this
//! file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use sandbox_host::types::{
    self, Capability, FileInfo, FileKind, PortKind, SandboxInfo, SandboxState, SidecarInfo, Support, UsageReport,
};
use sandbox_host::{Grant, Manifest, Plugin};
use serde::Serialize;
use serde_json::Value;

use super::text::{end_text, state_text};

/// The output of a command that fails: one object on standard output
#[derive(Serialize)]
pub struct Failed<'a> {
    /// What went wrong
    pub error: Problem<'a>,
}

/// The field `error` of `Failed`
#[derive(Serialize)]
pub struct Problem<'a> {
    /// Error code for programs, such as `not-found` or `file:is-a-directory`; `usage` for an invalid command line
    pub kind: Cow<'a, str>,
    /// What failed: a phrase that continues "cannot …"
    pub what: Cow<'a, str>,
    /// Why it failed
    pub why: Cow<'a, str>,
    /// What to do about it
    pub hint: Option<Cow<'a, str>>,
    /// Whether the same command can succeed later
    pub retryable: bool,
}

/// `create`, `restore`
#[derive(Serialize)]
pub struct Created<'a> {
    /// Id of the new sandbox
    pub sandbox: &'a str,
}

/// `run`, `exec`
#[derive(Serialize)]
pub struct CommandResult<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Exec id of the command
    pub exec: &'a str,
    /// `exited`, `signaled N`, `deadline`, or `sandbox ended:` and `lost:` with the reason
    pub verdict: String,
    /// The exit code of this program
    pub exit_code: i32,
    /// How long the command ran, in milliseconds
    pub duration_ms: u64,
    /// Number of bytes that it wrote to standard output
    pub stdout_bytes: u64,
    /// Number of bytes that it wrote to standard error
    pub stderr_bytes: u64,
    /// The last 10 MiB of standard output, if they are UTF-8
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// The same bytes in base64, if they are not UTF-8
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// The last 10 MiB of standard error, if they are UTF-8
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// The same bytes in base64, if they are not UTF-8
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
}

/// `exec --detach`
#[derive(Serialize)]
pub struct Started<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Exec id of the command
    pub exec: &'a str,
}

/// `shell`, after the output of the terminal
#[derive(Serialize)]
pub struct ShellEnded {
    /// Exit code of the shell; null if it is not known
    pub exit_code: Option<i32>,
}

/// `build`
#[derive(Serialize)]
pub struct Built<'a> {
    /// Id of the image
    pub image: &'a str,
}

/// `inspect`; `list` prints an array of them
#[derive(Serialize)]
pub struct Sandbox<'a> {
    /// Id of the sandbox
    pub id: &'a str,
    /// Name
    pub name: Option<&'a str>,
    /// `pending`, `running`, `paused`, `stopped`, `ended`, `unknown`, or a state of the provider
    pub state: &'a str,
    /// How it ended; null while it runs
    pub end: Option<String>,
    /// Id of its image
    pub image: Option<&'a str>,
    /// Time of its creation, in milliseconds since the Unix epoch
    pub created_ms: Option<u64>,
    /// Tags: values by names
    pub tags: BTreeMap<&'a str, &'a str>,
    /// Public addresses of its ports
    pub tunnels: Vec<Tunnel<'a>>,
    /// Further properties that the provider reports
    pub extra: BTreeMap<&'a str, Value>,
}

/// `tunnels` prints an array of them
#[derive(Serialize)]
pub struct Tunnel<'a> {
    /// Port in the sandbox
    pub port: u16,
    /// `tls`, `h2` or `tcp`
    pub kind: &'static str,
    /// Public host
    pub host: &'a str,
    /// Public port
    pub public_port: u16,
}

/// `logs` prints one object for each piece of output
#[derive(Serialize)]
pub struct LogChunk<'a> {
    /// `stdout`, `stderr` or `system`
    pub stream: &'static str,
    /// Text
    pub text: &'a str,
    /// Time of the output, in milliseconds since the Unix epoch
    pub at_ms: Option<u64>,
}

/// `wait`
#[derive(Serialize)]
pub struct SandboxEnded<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// How it ended
    pub end: &'a str,
}

/// `terminate` prints one object for each sandbox
#[derive(Serialize)]
pub struct Terminated<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Always true; a sandbox that could not be terminated is reported as a failure
    pub terminated: bool,
}

/// `pause`, `stop` and `resume` print one object for each sandbox
#[derive(Serialize)]
pub struct StateChanged<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Its new state: `paused`, `stopped` or `running`
    pub state: &'static str,
}

/// `extend` prints one object for each sandbox
#[derive(Serialize)]
pub struct Extended<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// When it will be ended, in milliseconds since the Unix epoch
    pub ends_ms: u64,
}

/// `execs` prints an array of them
#[derive(Serialize)]
pub struct Exec<'a> {
    /// Exec id
    pub exec: &'a str,
    /// Program and its arguments; empty if the provider does not report them
    pub argv: &'a [String],
    /// Time of the start, in milliseconds since the Unix epoch
    pub started_ms: Option<u64>,
    /// How it ended, in the words of `verdict` of `CommandResult`; null while it runs
    pub verdict: Option<String>,
    /// Its exit code, if it exited
    pub exit_code: Option<i32>,
    /// Name of the sidecar in which it runs; null for the main container
    pub container: Option<&'a str>,
}

/// `sweep`
#[derive(Serialize)]
pub struct Sweep<'a> {
    /// Owner whose sandboxes were searched
    pub owner: &'a str,
    /// Whether the sandboxes were only listed and not terminated
    pub dry_run: bool,
    /// The abandoned sandboxes
    pub found: Vec<LeftBehind<'a>>,
}

/// An abandoned sandbox in the result of `sweep`
#[derive(Serialize)]
pub struct LeftBehind<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Id of the run that created it
    pub run: &'a str,
    /// Time since its lease expired, in milliseconds
    pub overdue_ms: u64,
    /// Whether it was terminated
    pub terminated: bool,
}

/// `snapshot`
#[derive(Serialize)]
pub struct Snapshot {
    /// Id of the image of the file system or directory
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Id of the memory snapshot, for `restore`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// `mount`
#[derive(Serialize)]
pub struct Mounted<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Path of the mount
    pub path: &'a str,
    /// Id of the image; null for an empty directory
    pub image: Option<&'a str>,
    /// Always true
    pub mounted: bool,
}

/// `unmount`
#[derive(Serialize)]
pub struct Unmounted<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Path of the former mount
    pub path: &'a str,
    /// Always false
    pub mounted: bool,
}

/// `network`
#[derive(Serialize)]
pub struct NetworkChanged<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// The new policy: `open`, `blocked`, or the permitted destinations
    pub network: Network,
}

/// Where a sandbox may connect to.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Network {
    /// `open` or `blocked`.
    All(&'static str),
    /// To these places only.
    Allowed(AllowedPlaces),
}

/// The field `network` with `--allow`
#[derive(Serialize)]
pub struct AllowedPlaces {
    /// Permitted address ranges
    pub cidrs: Vec<String>,
    /// Permitted domains
    pub domains: Vec<String>,
}

/// `token`
#[derive(Serialize)]
pub struct ConnectToken<'a> {
    /// URL of the port
    pub url: &'a str,
    /// Headers that every request must have
    pub headers: BTreeMap<&'a str, &'a str>,
    /// When it expires, in milliseconds since the Unix epoch
    pub expires: Option<u64>,
}

/// `stats`. Values that the provider does not report are null.
#[derive(Serialize)]
pub struct Usage<'a> {
    /// CPU use, in core milliseconds
    pub cpu_core_ms: u64,
    /// Memory use, in MiB milliseconds
    pub memory_mib_ms: u64,
    /// Accelerator use, in accelerator milliseconds
    pub gpu_ms: u64,
    /// Time that the sandbox has run, in milliseconds
    pub running_ms: Option<u64>,
    /// Billed CPU use, in core milliseconds
    pub billed_cpu_core_ms: Option<u64>,
    /// Billed memory use, in MiB milliseconds
    pub billed_memory_mib_ms: Option<u64>,
    /// Cost in US dollars
    pub cost_usd: Option<f64>,
    /// Cost of each resource, in US dollars
    pub cost_by_resource_usd: BTreeMap<&'a str, f64>,
    /// Distribution of the use of each resource over time
    pub distributions: Vec<Distribution<'a>>,
}

/// An element of `distributions` of `stats`
#[derive(Serialize)]
pub struct Distribution<'a> {
    /// The measured resource, such as `cpu`
    pub name: &'a str,
    /// Unit of the values, such as `cores`
    pub unit: &'a str,
    /// Mean value
    pub mean: Option<f64>,
    /// Maximum value
    pub max: Option<f64>,
    /// Values by percentile; `50` is the median
    pub percentiles: BTreeMap<String, f64>,
}

impl<'a> From<&'a UsageReport> for Usage<'a> {
    fn from(report: &'a UsageReport) -> Self {
        Usage {
            cpu_core_ms: report.totals.cpu_core_millis,
            memory_mib_ms: report.totals.memory_mib_millis,
            gpu_ms: report.totals.gpu_millis,
            running_ms: report.running,
            billed_cpu_core_ms: report.billed_cpu_core_millis,
            billed_memory_mib_ms: report.billed_memory_mib_millis,
            cost_usd: report.cost,
            cost_by_resource_usd: report.cost_by_resource.iter().map(|(name, cost)| (name.as_str(), *cost)).collect(),
            distributions: report.distributions.iter().map(Distribution::from).collect(),
        }
    }
}

impl<'a> From<&'a types::Distribution> for Distribution<'a> {
    fn from(one: &'a types::Distribution) -> Self {
        Distribution {
            name: &one.name,
            unit: &one.unit,
            mean: one.mean,
            max: one.max,
            percentiles: one.percentiles.iter().map(|(percent, value)| (percent.to_string(), *value)).collect(),
        }
    }
}

/// `sidecar add`; `sidecar list` prints an array of them
#[derive(Serialize)]
pub struct Sidecar<'a> {
    /// Id of the sidecar
    pub id: &'a str,
    /// Name of the sidecar
    pub name: &'a str,
    /// State as text, such as `running` or `ended (finished with 0)`
    pub state: String,
}

/// `sidecar wait`
#[derive(Serialize)]
pub struct SidecarEnded<'a> {
    /// Name of the sidecar
    pub sidecar: &'a str,
    /// How it ended
    pub end: &'a str,
}

/// `sidecar terminate`
#[derive(Serialize)]
pub struct SidecarTerminated<'a> {
    /// Name of the sidecar
    pub sidecar: &'a str,
    /// Always true
    pub terminated: bool,
}

/// `image inspect`; `images` prints an array of them
#[derive(Serialize)]
pub struct Image<'a> {
    /// Id of the image
    pub image: &'a str,
    /// Working directory of commands
    pub workdir: Option<&'a str>,
}

impl<'a> From<&'a types::BuiltImage> for Image<'a> {
    fn from(image: &'a types::BuiltImage) -> Self {
        Image { image: &image.id, workdir: image.workdir.as_deref() }
    }
}

/// `image rm --memory`
#[derive(Serialize)]
pub struct SnapshotRemoved<'a> {
    /// Id of the memory snapshot
    pub snapshot: &'a str,
    /// Always true
    pub removed: bool,
}

/// `image rm`
#[derive(Serialize)]
pub struct ImageRemoved<'a> {
    /// Id of the image
    pub image: &'a str,
    /// Always true
    pub removed: bool,
}

/// `cp`
#[derive(Serialize)]
pub struct Copied {
    /// Number of copied bytes; for a directory, the size of the stream
    pub bytes: u64,
    /// Number of entries of a directory that were not copied, such as pipes and devices
    pub skipped: u64,
}

/// `ls` prints an array of them
#[derive(Serialize)]
pub struct Entry<'a> {
    /// Name
    pub name: &'a str,
    /// Path
    pub path: &'a str,
    /// `file`, `directory`, `symlink`, or another kind by its name
    pub kind: &'a str,
    /// Size in bytes
    pub size: u64,
    /// Permission bits, as four octal digits
    pub mode: String,
    /// Name or id of the owner
    pub owner: &'a str,
    /// Name or id of the group
    pub group: &'a str,
    /// Time of the last modification, in milliseconds since the Unix epoch
    pub modified_ms: u64,
    /// Target of a symbolic link
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<&'a str>,
}

/// `rm` prints one object for each path
#[derive(Serialize)]
pub struct Removed<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Path
    pub path: &'a str,
    /// Whether it was removed; false if it did not exist, with `--force`
    pub removed: bool,
}

/// `forward` prints one object for each port
#[derive(Serialize)]
pub struct Forwarded {
    /// Local address and port
    pub listen: String,
    /// Port in the sandbox
    pub port: u16,
}

/// `plugin inspect`
#[derive(Serialize)]
pub struct PluginInfo<'a> {
    /// Path of the component
    pub file: &'a str,
    /// SHA-256 of the component
    pub sha256: &'a str,
    /// Size in bytes
    pub size: u64,
    /// Whether the compiled code came from the cache
    pub from_cache: bool,
    /// Interface version of the component
    pub interface: &'a str,
    /// Interface versions that this program supports
    pub host_interfaces: &'a [&'a str],
    /// Interfaces that it exports
    pub exports: &'a [String],
    /// Interfaces that it imports
    pub imports: &'a [String],
    /// Name of the provider; null if the component does not describe itself
    pub name: Option<&'a str>,
    /// Version of the provider; null if the component does not describe itself
    pub version: Option<&'a str>,
    /// Capabilities of the provider
    pub capabilities: Option<Vec<CapabilityInfo<'a>>>,
    /// The options that `--option` accepts
    pub options: Option<Vec<OptionInfo>>,
    /// Whether all calls run in one instance, one after another
    pub single_instance: bool,
    /// Access that the manifest requests
    pub wishes: Wishes<'a>,
    /// Environment variables that a host behind `gateway` must set
    pub gateway: &'a BTreeMap<String, String>,
    /// Access that the plugin gets
    pub grants: Vec<GrantInfo<'a>>,
    /// Why the plugin gets no access
    pub grants_error: Option<String>,
}

/// An element of `capabilities` of `plugin inspect`
#[derive(Serialize)]
pub struct CapabilityInfo<'a> {
    /// Name of the capability
    pub name: &'a str,
    /// `native`, `emulated` or `absent`
    pub support: &'static str,
    /// Limitations and remarks
    pub note: &'a str,
}

/// An element of `options` of `plugin inspect`
#[derive(Serialize)]
pub struct OptionInfo {
    /// Name
    pub name: String,
    /// Its JSON Schema: type, default and description
    pub schema: serde_json::Value,
}

impl OptionInfo {
    /// The options of a JSON Schema object, in the order of their names.
    pub fn all(schema: &str) -> Vec<OptionInfo> {
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap_or_default();
        let properties = schema.get("properties").and_then(serde_json::Value::as_object);
        let option =
            |(name, schema): (&String, &serde_json::Value)| OptionInfo { name: name.clone(), schema: schema.clone() };
        properties.into_iter().flatten().map(option).collect()
    }
}

impl std::fmt::Display for OptionInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |key: &str| self.schema.get(key).and_then(serde_json::Value::as_str);
        write!(f, "{} ({})", self.name, text("type").unwrap_or("any JSON"))?;
        if let Some(values) = self.schema.get("enum") {
            write!(f, " one of {values}")?;
        }
        if let Some(description) = text("description") {
            write!(f, ": {description}")?;
        }
        match self.schema.get("default") {
            Some(default) => write!(f, " [default: {default}]"),
            None => Ok(()),
        }
    }
}

/// The field `wishes` of `plugin inspect`: the access that the manifest requests
#[derive(Serialize)]
pub struct Wishes<'a> {
    /// Environment variables that the plugin requests to read
    pub env: Vec<&'a str>,
    /// Settings that are read from the profile
    pub settings: Vec<SettingWish<'a>>,
    /// The profile file
    pub profiles: Option<ProfileWish<'a>>,
    /// Environment variables of the credentials that the host adds to requests
    pub credentials: Vec<&'a str>,
    /// Origins that the plugin requests to reach
    pub origins: Vec<OriginWish<'a>>,
}

/// An element of `wishes.settings` of `plugin inspect`
#[derive(Serialize)]
pub struct SettingWish<'a> {
    /// Key in the profile
    pub setting: &'a str,
    /// Environment variable that takes precedence
    pub variable: &'a str,
    /// Whether the plugin can read the value
    pub shown: bool,
}

/// The field `wishes.profiles` of `plugin inspect`
#[derive(Serialize)]
pub struct ProfileWish<'a> {
    /// Default path of the file
    pub path: &'a str,
    /// Environment variable with another path
    pub variable: Option<&'a str>,
    /// Environment variable that selects a profile
    pub select: &'a str,
}

/// An element of `wishes.origins` of `plugin inspect`
#[derive(Serialize)]
pub struct OriginWish<'a> {
    /// Name in the manifest
    pub name: &'a str,
    /// Environment variable with its URL
    pub variable: Option<&'a str>,
    /// Key of its URL in the profile
    pub setting: Option<&'a str>,
    /// URL if neither is set
    pub default: Option<&'a str>,
    /// Headers with credentials that the host adds
    pub headers: Vec<&'a str>,
    /// Query parameters with credentials that the host adds
    pub query: Vec<&'a str>,
    /// Environment variables that name the files for TLS: certificate, key, authorities
    pub files: Vec<&'a str>,
    /// Environment variable that turns TLS on
    pub tls_variable: Option<&'a str>,
    /// Responses from which the host learns further origins
    pub learn: Vec<LearnRule<'a>>,
}

/// An element of `wishes.origins.learn` of `plugin inspect`
#[derive(Serialize)]
pub struct LearnRule<'a> {
    /// Path of the request; `*` stands for one segment
    pub path: &'a str,
    /// Protobuf field numbers that lead to the URL in a gRPC response
    pub field: &'a [u32],
    /// JSON pointer to the URL in a JSON response
    pub pointer: Option<&'a str>,
    /// Name of the learned origin
    pub name: &'a str,
}

/// An element of `grants` of `plugin inspect`
#[derive(Serialize)]
pub struct GrantInfo<'a> {
    /// URL of the origin; `*.` stands for one more label
    pub origin: String,
    /// Path of the Unix socket that the host connects to instead
    pub socket: Option<&'a Path>,
    /// Name in the manifest
    pub name: &'a str,
    /// What the host adds: headers, query parameters with `?` before them, `client certificate`
    pub credentials: &'a [String],
    /// Whether the host name may resolve to an address of this machine or of a private network
    pub private_addresses: bool,
}

/// `plugin pull`
#[derive(Serialize)]
pub struct Pulled<'a> {
    /// Name for `--plugin`
    pub name: &'a str,
    /// Path of the stored file
    pub file: &'a Path,
    /// SHA-256 of the component
    pub sha256: &'a str,
    /// Size in bytes
    pub size: usize,
    /// URL or reference that it was downloaded from
    pub source: &'a str,
    /// Digest of the registry's manifest
    pub manifest: Option<&'a str>,
}

/// `doctor`
#[derive(Serialize)]
pub struct Checks {
    /// Whether no check failed
    pub ok: bool,
    /// Results of the checks
    pub checks: Vec<Check>,
}

/// `plugin pack`
#[derive(Serialize)]
pub struct Packed<'a> {
    /// The written file
    pub file: &'a Path,
    /// Bytes
    pub size: usize,
    /// SHA-256
    pub sha256: &'a str,
}

/// `plugin check`
#[derive(Serialize)]
pub struct ComponentChecks {
    /// Whether there is no problem
    pub ok: bool,
    /// All checks
    pub checks: Vec<ComponentCheck>,
}

/// An element of `checks` of `plugin check`
#[derive(Serialize)]
pub struct ComponentCheck {
    /// What was checked: `format`, `size`, `parts`, `imports`, `exports`, `manifest`, `code` or `description`
    pub check: &'static str,
    /// Whether there is no problem
    pub ok: bool,
    /// Result of the check
    pub text: String,
    /// What to do about a problem
    pub hint: Option<String>,
}

/// An element of `checks` of `doctor`
#[derive(Serialize)]
pub struct Check {
    /// Number in `docs/live-checks.md` with `--live`; 0 for checks that are not listed there
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// Name of the check
    pub check: String,
    /// `ok`, `failed` or `skipped`
    pub state: &'static str,
    /// Details
    pub text: String,
}

/// `conformance`
#[derive(Serialize)]
pub struct Conformance<'a> {
    /// Whether no check failed and nothing was left behind
    pub ok: bool,
    /// Name of the provider
    pub provider: &'a str,
    /// Version of the component
    pub version: &'a str,
    /// Interface version of the component
    pub interface: &'a str,
    /// Number of checks that passed
    pub passed: usize,
    /// Number of checks that failed
    pub failed: usize,
    /// Number of checks whose capability the provider does not declare
    pub not_declared: usize,
    /// Number of checks that do not apply
    pub skipped: usize,
    /// The checks
    pub checks: Vec<ConformanceResult<'a>>,
    /// What could not be removed
    pub left_behind: &'a [String],
}

/// A check in the result of `conformance`
#[derive(Serialize)]
pub struct ConformanceResult<'a> {
    /// Its stable name, which begins with the group
    pub id: &'a str,
    /// What it tests: a function or type of the interface, and what is documented there
    pub clause: &'a str,
    /// `passed`, `failed`, `not declared`, or `skipped`
    pub state: &'static str,
    /// What was seen, the missing capability, or why it was skipped; empty if it passed
    pub text: &'a str,
    /// How long it ran
    pub time_ms: u64,
}

/// `conformance --list` prints an array of them
#[derive(Serialize)]
pub struct ConformanceCheck<'a> {
    /// Its stable name, which begins with the group
    pub id: &'a str,
    /// Its group
    pub group: &'a str,
    /// Capabilities and parts of the interface that it needs; with `program:` a program of the sandbox
    pub needs: &'a [&'a str],
    /// What it tests: a function or type of the interface, and what is documented there
    pub clause: &'a str,
}

/// Tags by their names, as `tags` prints them.
pub fn tags(tags: &[(String, String)]) -> BTreeMap<&str, &str> {
    tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

impl<'a> From<&'a sandbox_host::types::Tunnel> for Tunnel<'a> {
    fn from(tunnel: &'a sandbox_host::types::Tunnel) -> Self {
        let kind = match tunnel.kind {
            PortKind::Tls => "tls",
            PortKind::H2 => "h2",
            PortKind::Tcp => "tcp",
        };
        Tunnel { port: tunnel.port, kind, host: &tunnel.public_host, public_port: tunnel.public_port }
    }
}

impl<'a> From<&'a SandboxInfo> for Sandbox<'a> {
    fn from(info: &'a SandboxInfo) -> Self {
        let (state, end) = match &info.state {
            SandboxState::Ended(reason) => ("ended", Some(end_text(reason))),
            SandboxState::Pending => ("pending", None),
            SandboxState::Running => ("running", None),
            SandboxState::Paused => ("paused", None),
            SandboxState::Stopped => ("stopped", None),
            SandboxState::Unknown => ("unknown", None),
            SandboxState::Other(name) => (name.as_str(), None),
        };
        // What is no JSON is text.
        let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
        Sandbox {
            id: &info.id,
            name: info.name.as_deref(),
            state,
            end,
            image: info.image.as_deref(),
            created_ms: info.created,
            tags: tags(&info.tags),
            tunnels: info.tunnels.iter().map(Tunnel::from).collect(),
            extra: info.extra.iter().map(|(key, text)| (key.as_str(), value(text))).collect(),
        }
    }
}

impl<'a> From<&'a SidecarInfo> for Sidecar<'a> {
    fn from(sidecar: &'a SidecarInfo) -> Self {
        Sidecar { id: &sidecar.id, name: &sidecar.name, state: state_text(&sidecar.state) }
    }
}

impl<'a> From<&'a FileInfo> for Entry<'a> {
    fn from(entry: &'a FileInfo) -> Self {
        let (kind, target) = match &entry.kind {
            FileKind::File => ("file", None),
            FileKind::Directory => ("directory", None),
            FileKind::Symlink(target) => ("symlink", Some(target.as_str())),
            FileKind::Other(name) => (name.as_str(), None),
        };
        Entry {
            name: &entry.name,
            path: &entry.path,
            kind,
            size: entry.size,
            mode: format!("{:04o}", entry.mode),
            owner: &entry.owner,
            group: &entry.group,
            modified_ms: entry.modified,
            target,
        }
    }
}

/// A word for how well something is supported.
pub fn support_name(support: Support) -> &'static str {
    match support {
        Support::Native => "native",
        Support::Emulated => "emulated",
        Support::Absent => "absent",
    }
}

impl<'a> From<&'a Capability> for CapabilityInfo<'a> {
    fn from(capability: &'a Capability) -> Self {
        CapabilityInfo { name: &capability.name, support: support_name(capability.support), note: &capability.note }
    }
}

impl<'a> From<&'a Grant> for GrantInfo<'a> {
    fn from(grant: &'a Grant) -> Self {
        GrantInfo {
            origin: grant.origin.to_string(),
            socket: grant.socket.as_deref(),
            name: &grant.name,
            credentials: &grant.credentials,
            private_addresses: grant.private_addresses,
        }
    }
}

impl<'a> From<&'a Manifest> for Wishes<'a> {
    fn from(manifest: &'a Manifest) -> Self {
        let shown = manifest.env.iter().map(|wish| (&wish.name, &wish.setting, true));
        let kept = manifest.credential.iter().map(|wish| (&wish.env, &wish.setting, false));
        let settings = shown.chain(kept).filter_map(|(variable, setting, shown)| {
            Some(SettingWish { setting: setting.as_deref()?, variable, shown })
        });
        let origins = manifest.origin.iter().map(|wish| OriginWish {
            name: &wish.name,
            variable: wish.url.env.as_deref(),
            setting: wish.url.setting.as_deref(),
            default: wish.url.default.as_deref(),
            headers: wish.headers.iter().map(|header| header.name.as_str()).collect(),
            query: wish.query.iter().map(|parameter| parameter.name.as_str()).collect(),
            files: wish.files().map(|file| file.env.as_str()).collect(),
            tls_variable: wish.switch(),
            learn: wish
                .learn
                .iter()
                .map(|rule| LearnRule {
                    path: &rule.path,
                    field: &rule.field,
                    pointer: rule.pointer.as_deref(),
                    name: &rule.name,
                })
                .collect(),
        });
        Wishes {
            env: manifest.env.iter().map(|wish| wish.name.as_str()).collect(),
            settings: settings.collect(),
            profiles: manifest.profiles.as_ref().map(|profiles| ProfileWish {
                path: &profiles.path.default,
                variable: profiles.path.env.as_deref(),
                select: &profiles.select,
            }),
            credentials: manifest.credential.iter().map(|wish| wish.env.as_str()).collect(),
            origins: origins.collect(),
        }
    }
}

impl<'a> PluginInfo<'a> {
    /// What is known of a plugin without running it; nothing is granted to it.
    pub fn new(plugin: &'a Plugin) -> Self {
        PluginInfo {
            file: plugin.label(),
            sha256: plugin.digest(),
            size: plugin.size(),
            from_cache: plugin.from_cache(),
            interface: plugin.interface_version(),
            host_interfaces: &sandbox_host::INTERFACE_VERSIONS,
            exports: plugin.exports(),
            imports: plugin.imports(),
            name: None,
            version: None,
            capabilities: None,
            options: None,
            single_instance: plugin.manifest().instances == sandbox_host::InstancesWish::One,
            wishes: Wishes::from(plugin.manifest()),
            gateway: &plugin.manifest().gateway.env,
            grants: Vec::new(),
            grants_error: None,
        }
    }
}
