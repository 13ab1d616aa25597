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

/// Any command that fails: one object on standard output.
#[derive(Serialize)]
pub struct Failed<'a> {
    /// What went wrong
    pub error: Problem<'a>,
}

/// The part `error` of a failure.
#[derive(Serialize)]
pub struct Problem<'a> {
    /// A word for programs, such as `not-found` or `file:is-a-directory`; `usage` for what was typed
    pub kind: Cow<'a, str>,
    /// What was being done; continues "cannot …"
    pub what: Cow<'a, str>,
    /// Why it failed
    pub why: Cow<'a, str>,
    /// What to do
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
    /// Id of the command
    pub exec: &'a str,
    /// `exited`, `signaled N`, `deadline`, or `sandbox ended:` and `lost:` with the reason
    pub verdict: String,
    /// The exit code of this program
    pub exit_code: i32,
    /// How long the command ran
    pub duration_ms: u64,
    /// Length of its output, kept or not
    pub stdout_bytes: u64,
    /// Length of its error output, kept or not
    pub stderr_bytes: u64,
    /// The last 10 MiB of its output, if that is UTF-8
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// Else the same in base64
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// The last 10 MiB of its error output, if that is UTF-8
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// Else the same in base64
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
}

/// `exec --detach`
#[derive(Serialize)]
pub struct Started<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Id of the command
    pub exec: &'a str,
}

/// `shell`, after what the terminal showed
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
    /// Id
    pub id: &'a str,
    /// Name
    pub name: Option<&'a str>,
    /// `pending`, `running`, `ended`, or `unknown`
    pub state: &'static str,
    /// How it ended
    pub end: Option<String>,
    /// Id of its image
    pub image: Option<&'a str>,
    /// When it was created, since the Unix epoch
    pub created_ms: Option<u64>,
    /// Tags by their names
    pub tags: BTreeMap<&'a str, &'a str>,
    /// Where its ports are reached
    pub tunnels: Vec<Tunnel<'a>>,
    /// What else the provider tells
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

/// `logs` prints one for each piece of output
#[derive(Serialize)]
pub struct LogChunk<'a> {
    /// `stdout`, `stderr` or `system`
    pub stream: &'static str,
    /// Text
    pub text: &'a str,
    /// When it was printed, since the Unix epoch
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

/// `terminate` prints one for each sandbox
#[derive(Serialize)]
pub struct Terminated<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Always true; one that could not be terminated is reported as a failure
    pub terminated: bool,
}

/// `sweep`
#[derive(Serialize)]
pub struct Sweep<'a> {
    /// Whose sandboxes were looked at
    pub owner: &'a str,
    /// Whether nothing was to be terminated
    pub dry_run: bool,
    /// What was left behind
    pub found: Vec<LeftBehind<'a>>,
}

/// A sandbox in the result of `sweep`
#[derive(Serialize)]
pub struct LeftBehind<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Id of the run that made it
    pub run: &'a str,
    /// Since when its lease is over
    pub overdue_ms: u64,
    /// Whether it was terminated
    pub terminated: bool,
}

/// `snapshot`
#[derive(Serialize)]
pub struct Snapshot {
    /// Id of the image of a file system or directory
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Id of a memory snapshot, for `restore`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// `mount`
#[derive(Serialize)]
pub struct Mounted<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Where
    pub path: &'a str,
    /// Id of the image; null for an empty directory
    pub image: Option<&'a str>,
    /// True
    pub mounted: bool,
}

/// `unmount`
#[derive(Serialize)]
pub struct Unmounted<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Where
    pub path: &'a str,
    /// False
    pub mounted: bool,
}

/// `network`
#[derive(Serialize)]
pub struct NetworkChanged<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// `open`, `blocked`, or what it may connect to
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

/// The part `network` with `--allow`
#[derive(Serialize)]
pub struct AllowedPlaces {
    /// Address ranges
    pub cidrs: Vec<String>,
    /// Names
    pub domains: Vec<String>,
}

/// `token`
#[derive(Serialize)]
pub struct ConnectToken<'a> {
    /// Address of the port
    pub url: &'a str,
    /// Token
    pub token: &'a str,
}

/// `stats`. Values that the provider does not report are null.
#[derive(Serialize)]
pub struct Usage<'a> {
    /// Milliseconds of one core
    pub cpu_core_ms: u64,
    /// Milliseconds of one MiB
    pub memory_mib_ms: u64,
    /// Milliseconds of one accelerator
    pub gpu_ms: u64,
    /// Milliseconds that the sandbox has run
    pub running_ms: Option<u64>,
    /// Milliseconds of one core that are billed
    pub billed_cpu_core_ms: Option<u64>,
    /// Milliseconds of one MiB that are billed
    pub billed_memory_mib_ms: Option<u64>,
    /// Cost in US dollars
    pub cost_usd: Option<f64>,
    /// Its parts by resource, in US dollars
    pub cost_by_resource_usd: BTreeMap<&'a str, f64>,
    /// How the use of each resource was distributed over time
    pub distributions: Vec<Distribution<'a>>,
}

/// The part `distributions` of `stats`
#[derive(Serialize)]
pub struct Distribution<'a> {
    /// What was measured, such as `cpu`
    pub name: &'a str,
    /// Unit of the values, such as `cores`
    pub unit: &'a str,
    /// Mean
    pub mean: Option<f64>,
    /// Largest value
    pub max: Option<f64>,
    /// Values by percentile: `50` is the median
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
    /// Id of the container
    pub id: &'a str,
    /// Name
    pub name: &'a str,
    /// State, in words
    pub state: String,
}

/// `sidecar wait`
#[derive(Serialize)]
pub struct SidecarEnded<'a> {
    /// Name of the container
    pub sidecar: &'a str,
    /// How it ended
    pub end: &'a str,
}

/// `sidecar terminate`
#[derive(Serialize)]
pub struct SidecarTerminated<'a> {
    /// Name of the container
    pub sidecar: &'a str,
    /// True
    pub terminated: bool,
}

/// `image inspect`
#[derive(Serialize)]
pub struct Image<'a> {
    /// Id of the image
    pub image: &'a str,
    /// Directory that commands start in
    pub workdir: Option<&'a str>,
}

/// `image rm`
#[derive(Serialize)]
pub struct ImageRemoved<'a> {
    /// Id of the image
    pub image: &'a str,
    /// True
    pub removed: bool,
}

/// `cp`
#[derive(Serialize)]
pub struct Copied {
    /// Bytes; of directories, those of the stream
    pub bytes: u64,
    /// Entries of a directory that have no place on this side
    pub skipped: u64,
}

/// `ls` prints an array of them
#[derive(Serialize)]
pub struct Entry<'a> {
    /// Name
    pub name: &'a str,
    /// Path
    pub path: &'a str,
    /// `file`, `directory`, `symlink`, or what else it is
    pub kind: &'a str,
    /// Bytes
    pub size: u64,
    /// Permissions, in octal digits
    pub mode: String,
    /// Owner
    pub owner: &'a str,
    /// Group
    pub group: &'a str,
    /// When it was changed, since the Unix epoch
    pub modified_ms: u64,
    /// Where a symbolic link leads
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<&'a str>,
}

/// `rm` prints one for each path
#[derive(Serialize)]
pub struct Removed<'a> {
    /// Id of the sandbox
    pub sandbox: &'a str,
    /// Path
    pub path: &'a str,
    /// Whether it was there
    pub removed: bool,
}

/// `forward` prints one for each port
#[derive(Serialize)]
pub struct Forwarded {
    /// Local address
    pub listen: String,
    /// Port in the sandbox
    pub port: u16,
}

/// `plugin inspect`
#[derive(Serialize)]
pub struct PluginInfo<'a> {
    /// The component
    pub file: &'a str,
    /// SHA-256
    pub sha256: &'a str,
    /// Bytes
    pub size: u64,
    /// Whether its compiled code came from the cache
    pub from_cache: bool,
    /// The version of the interface that it speaks
    pub interface: &'a str,
    /// The versions that this program speaks
    pub host_interfaces: &'a [&'a str],
    /// Interfaces that it exports
    pub exports: &'a [String],
    /// Interfaces that it imports
    pub imports: &'a [String],
    /// Name of the provider; null if it does not describe itself
    pub name: Option<&'a str>,
    /// Version of the provider
    pub version: Option<&'a str>,
    /// What it can do
    pub capabilities: Option<Vec<CapabilityInfo<'a>>>,
    /// What `--option` accepts
    pub options: Option<Vec<OptionInfo>>,
    /// Whether all calls run in one instance, one after another
    pub single_instance: bool,
    /// What its manifest wishes for
    pub wishes: Wishes<'a>,
    /// Variables that a host behind `gateway` has to set
    pub gateway: &'a BTreeMap<String, String>,
    /// What it would be granted
    pub grants: Vec<GrantInfo<'a>>,
    /// Why it would be granted nothing
    pub grants_error: Option<String>,
}

/// The part `capabilities` of `plugin inspect`
#[derive(Serialize)]
pub struct CapabilityInfo<'a> {
    /// Name
    pub name: &'a str,
    /// `native`, `emulated` or `absent`
    pub support: &'static str,
    /// What to know about it
    pub note: &'a str,
}

/// The part `options` of `plugin inspect`
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

/// The part `wishes` of `plugin inspect`
#[derive(Serialize)]
pub struct Wishes<'a> {
    /// Environment variables that it wishes to read
    pub env: Vec<&'a str>,
    /// Settings of the profile that are read
    pub settings: Vec<SettingWish<'a>>,
    /// The profile file
    pub profiles: Option<ProfileWish<'a>>,
    /// Variables of the credentials that it wishes to send
    pub credentials: Vec<&'a str>,
    /// Services that it wishes to reach
    pub origins: Vec<OriginWish<'a>>,
}

/// The part `wishes.settings` of `plugin inspect`
#[derive(Serialize)]
pub struct SettingWish<'a> {
    /// Key in the profile
    pub setting: &'a str,
    /// The variable that goes before it
    pub variable: &'a str,
    /// Whether the plugin is shown the value
    pub shown: bool,
}

/// The part `wishes.profiles` of `plugin inspect`
#[derive(Serialize)]
pub struct ProfileWish<'a> {
    /// Where the file is
    pub path: &'a str,
    /// The variable that says where else it is
    pub variable: Option<&'a str>,
    /// The variable that selects a profile
    pub select: &'a str,
}

/// The part `wishes.origins` of `plugin inspect`
#[derive(Serialize)]
pub struct OriginWish<'a> {
    /// Name in the manifest
    pub name: &'a str,
    /// The variable with its address
    pub variable: Option<&'a str>,
    /// Key of its address in the profile
    pub setting: Option<&'a str>,
    /// Address without either
    pub default: Option<&'a str>,
    /// Headers with credentials that the host adds
    pub headers: Vec<&'a str>,
    /// Where its answers hand out further places
    pub learn: Vec<LearnRule<'a>>,
}

/// The part `wishes.origins.learn` of `plugin inspect`
#[derive(Serialize)]
pub struct LearnRule<'a> {
    /// Path of the requests
    pub path: &'a str,
    /// Field of the answers
    pub field: &'a [u32],
    /// What it is
    pub name: &'a str,
}

/// The part `grants` of `plugin inspect`
#[derive(Serialize)]
pub struct GrantInfo<'a> {
    /// Address
    pub origin: String,
    /// Name in the manifest
    pub name: &'a str,
    /// Headers with credentials that the host adds
    pub credentials: &'a [String],
    /// Whether the name may lead to this machine or a private network
    pub private_addresses: bool,
}

/// `plugin pull`
#[derive(Serialize)]
pub struct Pulled<'a> {
    /// Name for `--plugin`
    pub name: &'a str,
    /// Where it is kept
    pub file: &'a Path,
    /// SHA-256 of the component
    pub sha256: &'a str,
    /// Bytes
    pub size: usize,
    /// Where it came from
    pub source: &'a str,
    /// Digest of the registry's manifest
    pub manifest: Option<&'a str>,
}

/// `doctor`
#[derive(Serialize)]
pub struct Checks {
    /// Whether no check failed
    pub ok: bool,
    /// The checks
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

/// A check in the result of `plugin check`
#[derive(Serialize)]
pub struct ComponentCheck {
    /// What was checked: `format`, `size`, `parts`, `imports`, `exports`, `manifest`, `code` or `description`
    pub check: &'static str,
    /// Whether it is as it should be
    pub ok: bool,
    /// What was found
    pub text: String,
    /// What to do about a problem
    pub hint: Option<String>,
}

/// A check in the result of `doctor`
#[derive(Serialize)]
pub struct Check {
    /// With `--live`: its number in `docs/live-checks.md`, or 0
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// What was checked
    pub check: String,
    /// `ok`, `failed` or `skipped`
    pub state: &'static str,
    /// What was found
    pub text: String,
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
            SandboxState::Unknown => ("unknown", None),
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
            learn: wish
                .learn
                .iter()
                .map(|rule| LearnRule { path: &rule.path, field: &rule.field, name: &rule.name })
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
