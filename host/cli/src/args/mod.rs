//! What can be typed. Meaning is given to it in the other modules; `docs/cli.md` is made from these definitions.

use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueHint};
use sandbox_host::types::{BucketMount, PortKind, VolumeMount};

/// Exit codes, for `--help` and the manual.
const AFTER: &str = "\
Exit codes:
  0-255  of the remote command, passed through (128+N when signal N killed it)
  124    the command's time limit ran out; from `wait`: the sandbox's
  125    our own failure: usage, plugin, credentials, network, provider
  126    the remote command is not executable
  127    the remote command was not found
  130    interrupted
  137    from `wait`: terminated, or out of memory
  141    the remote command was killed, since its output was not read any more

Environment:
  SANDBOX_LOG                  what -v shows, more finely: sandbox_host=trace
  OTEL_EXPORTER_OTLP_ENDPOINT  a collector that spans and counters go to (OTLP over gRPC); none without it";

/// Runs commands in throw-away cloud machines, through a provider plugin.
#[derive(Debug, Parser)]
#[command(name = "sandbox", version, after_help = AFTER, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of all commands.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Start a private emulator for this command: no account, no network
    #[arg(long, global = true, conflicts_with = "emulator_url")]
    pub emulator: bool,
    /// Use the emulator that listens at URL
    #[arg(long, global = true, value_name = "URL")]
    pub emulator_url: Option<String>,
    /// Provider component, or name of a pulled one [default: modal-provider.wasm beside this program]
    #[arg(long, global = true, value_name = "FILE|NAME", env = "SANDBOX_PLUGIN", value_parser = path_or_nothing(), value_hint = ValueHint::FilePath)]
    pub plugin: Option<PathBuf>,
    /// Profile of the provider's profile file
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["emulator", "emulator_url"])]
    pub profile: Option<String>,
    /// Limits and grants for the plugin (TOML; see docs/security.md)
    #[arg(long, global = true, value_name = "FILE", env = "SANDBOX_POLICY", value_parser = path_or_nothing(), value_hint = ValueHint::FilePath)]
    pub policy: Option<PathBuf>,
    /// Give the plugin named by --plugin what it wishes for: its origins, variables and credentials
    #[arg(long, global = true)]
    pub grant: bool,
    /// Trust the certificate authorities in FILE (PEM) too
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca_file: Option<PathBuf>,
    /// Print results as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress, no build log
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// More diagnostics on stderr; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No colours
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image, create a sandbox, run a command in it, terminate it
    Run(Run),
    /// Create a sandbox and print its id
    Create(Create),
    /// Run a command in a sandbox
    Exec(Exec),
    /// Open a shell in a sandbox
    Shell(Shell),
    /// Copy files and directories into or out of a sandbox
    Cp(Cp),
    /// List a directory
    Ls(Ls),
    /// Print files
    Cat(Cat),
    /// Remove files
    Rm(Rm),
    /// List sandboxes
    #[command(visible_alias = "ps")]
    List(List),
    /// Show what is known of a sandbox
    Inspect(Id),
    /// Print the log of a sandbox
    Logs(Logs),
    /// Wait for the end of a sandbox and say how it ended
    Wait(Id),
    /// Terminate sandboxes
    Terminate(Terminate),
    /// Show or change the tags of a sandbox
    Tags(Tags),
    /// Freeze a sandbox's file system, a directory, or its memory
    Snapshot(Snapshot),
    /// Make a sandbox from a memory snapshot
    Restore(Restore),
    /// Mount an image at a path of a running sandbox
    Mount(Mount),
    /// Undo `mount`
    Unmount(Unmount),
    /// Change where a running sandbox may connect to
    Network(Network),
    /// Make a token for HTTP connections to a port of a sandbox
    Token(Token),
    /// Show what a sandbox has used
    Stats(Id),
    /// Containers beside a sandbox's main one
    #[command(subcommand)]
    Sidecar(SidecarCommand),
    /// Show where the ports of a sandbox are reached
    Tunnels(Id),
    /// Remove sandboxes whose owner has gone: those that a killed `run` or harness left behind
    Sweep(Sweep),
    /// Connect local ports to ports of a sandbox
    Forward(Forward),
    /// Build an image and print its id
    Build(Build),
    /// Look at images, remove them
    #[command(subcommand)]
    Image(ImageCommand),
    /// Look at provider components, fetch them
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Let hosts that speak only HTTP/1.1 run the plugin: gRPC-Web in, gRPC out
    Gateway(Gateway),
    /// Check plugin, settings, network and emulator
    Doctor(Doctor),
    /// Run an emulator of the provider in the foreground
    Emulator(Emulator),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the manual page, or write one per command into a directory
    Man(Man),
}

/// Where the image comes from.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Image")]
pub struct ImageArgs {
    /// Image: a registry name such as `python:3.12-slim`, or an id of the provider (`im-…`)
    #[arg(long, value_name = "REF", conflicts_with = "dockerfile")]
    pub image: Option<String>,
    /// Image published under a name at the provider, such as `tools:latest`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["image", "dockerfile"])]
    pub published: Option<String>,
    /// Build the image from this Dockerfile (`-` for standard input); its directory is the build context
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub dockerfile: Option<PathBuf>,
    /// Build context for COPY lines [default: the Dockerfile's directory; none for standard input]
    #[arg(long, value_name = "DIR", requires = "dockerfile", value_hint = ValueHint::DirPath)]
    pub context: Option<PathBuf>,
    /// Value for an ARG line
    #[arg(long, value_name = "K=V", requires = "dockerfile", value_parser = pair)]
    pub build_arg: Vec<(String, String)>,
    /// Stage to build
    #[arg(long, value_name = "STAGE", requires = "dockerfile")]
    pub target: Option<String>,
    /// A Dockerfile line on top of the image, such as `RUN apt-get install -y git`
    #[arg(long = "line", value_name = "LINE")]
    pub lines: Vec<String>,
    /// Secret of the provider that signs in to the registry
    #[arg(long, value_name = "NAME")]
    pub registry_secret: Option<String>,
    /// Secret of the provider whose entries RUN lines see as environment variables
    #[arg(long, value_name = "NAME")]
    pub build_secret: Vec<String>,
    /// Accelerator during the build, such as H100 or A100:2
    #[arg(long, value_name = "MODEL[:N]", value_parser = gpu)]
    pub build_gpu: Option<(String, u32)>,
    /// Version of the provider's image builder
    #[arg(long, value_name = "VERSION")]
    pub builder_version: Option<String>,
    /// Build again even if the provider has it
    #[arg(long)]
    pub force_build: bool,
}

/// What the sandbox is to be.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Sandbox")]
pub struct SandboxArgs {
    /// Environment variable; without `=V` its value here
    #[arg(short, long, value_name = "K[=V]", value_parser = env_pair)]
    pub env: Vec<(String, String)>,
    /// Secret of the provider whose entries become environment variables
    #[arg(long, value_name = "NAME")]
    pub secret: Vec<String>,
    /// Directory to start in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Cores to set aside, such as 0.5
    #[arg(long, value_name = "CORES")]
    pub cpu: Option<f64>,
    /// Most cores it may use
    #[arg(long, value_name = "CORES")]
    pub cpu_limit: Option<f64>,
    /// Memory to set aside, such as 512M or 4G
    #[arg(long, value_name = "SIZE", value_parser = mebibytes)]
    pub memory: Option<u32>,
    /// Most memory it may use
    #[arg(long, value_name = "SIZE", value_parser = mebibytes)]
    pub memory_limit: Option<u32>,
    /// Accelerator, such as H100 or A100:2
    #[arg(long, value_name = "MODEL[:N]", value_parser = gpu)]
    pub gpu: Option<(String, u32)>,
    /// Longest life of the sandbox, such as 90s, 10m, 2h [default: the provider's; Modal's is 5m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub lifetime: Option<std::time::Duration>,
    /// End it after this long without a command
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub idle_timeout: Option<std::time::Duration>,
    /// No network
    #[arg(long)]
    pub block_network: bool,
    /// Only these addresses or domains may be connected to (CIDR or name; repeatable)
    #[arg(long, value_name = "CIDR|DOMAIN", conflicts_with = "block_network")]
    pub allow: Vec<String>,
    /// Only these addresses may connect to its ports (CIDR; repeatable)
    #[arg(long, value_name = "CIDR")]
    pub inbound: Vec<String>,
    /// Proxy of the provider for outbound traffic
    #[arg(long, value_name = "NAME")]
    pub proxy: Option<String>,
    /// Port to be reachable from outside: by TLS, by TLS with HTTP/2, or as it is
    #[arg(long, value_name = "PORT[/tls|/h2|/tcp]", value_parser = port)]
    pub port: Vec<(PortKind, u16)>,
    /// Volume of the provider; options: ro, create, sub=DIR
    #[arg(long, value_name = "NAME:PATH[:OPTION,…]", value_parser = volume)]
    pub volume: Vec<VolumeMount>,
    /// Bucket; options: ro, prefix=P/, secret=NAME, requester_pays, force_path_style, oidc_role=ROLE, endpoint=URL
    #[arg(long, value_name = "NAME:PATH[:OPTION,…]", value_parser = bucket)]
    pub bucket: Vec<BucketMount>,
    /// Further container with this image, which runs the image's own command
    #[arg(long, value_name = "NAME=IMAGE", value_parser = pair)]
    pub sidecar: Vec<(String, String)>,
    /// Ready when this port accepts a connection
    #[arg(long, value_name = "PORT")]
    pub ready_port: Option<u16>,
    /// Ready when this shell command exits 0
    #[arg(long, value_name = "LINE", conflicts_with = "ready_port")]
    pub ready_command: Option<String>,
    /// Region, as the provider names it
    #[arg(long, value_name = "REGION")]
    pub region: Vec<String>,
    /// Name, unique among the live ones
    #[arg(long)]
    pub name: Option<String>,
    /// Tag
    #[arg(long, value_name = "K=V", value_parser = pair)]
    pub tag: Vec<(String, String)>,
    /// Option of the provider; the value is JSON or text (see `plugin inspect`)
    #[arg(long = "option", value_name = "K=V", value_parser = pair)]
    pub options: Vec<(String, String)>,
}

/// How the command runs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Command")]
pub struct CommandArgs {
    /// Pass standard input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Run in a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// User to run as
    #[arg(short, long)]
    pub user: Option<String>,
    /// Kill the command after this long, such as 90s, 10m, 2h (exit code 124)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<std::time::Duration>,
}

/// `run`
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub image: ImageArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sandbox: SandboxArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub how: CommandArgs,
    /// Leave the sandbox running and print its id on stderr
    #[arg(long)]
    pub keep: bool,
    /// Terminate the sandbox at the end (always so without --keep)
    #[arg(long, conflicts_with = "keep")]
    pub rm: bool,
    /// Command and its arguments, no shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    pub argv: Vec<String>,
}

/// `create`
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub image: ImageArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sandbox: SandboxArgs,
    /// Makes the create repeatable: two with the same key give the same sandbox
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Return when it is ready (needs --ready-port or --ready-command), at the latest after TIME
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5m", value_parser = duration)]
    pub wait_ready: Option<std::time::Duration>,
    /// A terminal for the entry-point command
    #[arg(short, long)]
    pub tty: bool,
    /// Entry-point command and its arguments [default: the image's, or none]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    pub argv: Vec<String>,
}

/// `exec`
#[derive(Debug, Args)]
pub struct Exec {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub how: CommandArgs,
    /// Environment variable; without `=V` its value here
    #[arg(short, long, value_name = "K[=V]", value_parser = env_pair)]
    pub env: Vec<(String, String)>,
    /// Directory to start in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Start it and return: prints the exec id
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub detach: bool,
    /// Further container of the sandbox to run in, by its name [default: the main one]
    #[arg(long, value_name = "NAME")]
    pub container: Option<String>,
    /// Sandbox
    pub id: String,
    /// Command and its arguments, no shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    pub argv: Vec<String>,
}

/// `shell`
#[derive(Debug, Args)]
pub struct Shell {
    /// Sandbox; a new one for the session without it
    pub id: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub image: ImageArgs,
    /// Shell to run [default: bash where there is one, else sh]
    #[arg(long)]
    pub shell: Option<String>,
    /// User to run as
    #[arg(short, long)]
    pub user: Option<String>,
    /// Further container of the sandbox to run in, by its name [default: the main one]
    #[arg(long, value_name = "NAME", requires = "id")]
    pub container: Option<String>,
}

/// `cp`
#[derive(Debug, Args)]
pub struct Cp {
    /// Copy a directory with all below it; `-` is then a tar archive
    #[arg(short, long)]
    pub recursive: bool,
    /// Source: a local path, ID:/path, or - for standard input
    #[arg(value_name = "SRC")]
    pub source: String,
    /// Destination: a local path, ID:/path, or - for standard output
    #[arg(value_name = "DST")]
    pub destination: String,
}

/// `ls`
#[derive(Debug, Args)]
pub struct Ls {
    /// One entry per line with mode, owner, size and time
    #[arg(short, long)]
    pub long: bool,
    /// What to list
    #[arg(value_name = "ID:PATH")]
    pub path: String,
}

/// `cat`
#[derive(Debug, Args)]
pub struct Cat {
    /// What to print
    #[arg(value_name = "ID:PATH", required = true)]
    pub paths: Vec<String>,
}

/// `rm`
#[derive(Debug, Args)]
pub struct Rm {
    /// Directories with all below them
    #[arg(short, long)]
    pub recursive: bool,
    /// What is not there is no error
    #[arg(short, long)]
    pub force: bool,
    /// What to remove
    #[arg(value_name = "ID:PATH", required = true)]
    pub paths: Vec<String>,
}

/// `list`
#[derive(Debug, Args)]
pub struct List {
    /// Also those that have ended
    #[arg(short, long)]
    pub all: bool,
    /// Only those with this tag
    #[arg(long, value_name = "K=V", value_parser = pair)]
    pub tag: Vec<(String, String)>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
}

/// A sandbox.
#[derive(Debug, Args)]
pub struct Id {
    /// Sandbox
    pub id: String,
}

/// `logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// Go on until the sandbox ends
    #[arg(short, long, conflicts_with_all = ["since", "until", "search"])]
    pub follow: bool,
    /// Not before this long ago, such as 10m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub since: Option<std::time::Duration>,
    /// Not after this long ago
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub until: Option<std::time::Duration>,
    /// Only this stream
    #[arg(long, value_parser = ["stdout", "stderr"])]
    pub stream: Option<String>,
    /// Only entries with this text
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,
    /// Sandbox
    pub id: String,
}

/// `terminate`
#[derive(Debug, Args)]
pub struct Terminate {
    /// Wait until they are over
    #[arg(long)]
    pub wait: bool,
    /// Sandboxes
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// `tags`
#[derive(Debug, Args)]
pub struct Tags {
    /// Sandbox
    pub id: String,
    /// Tags to set
    #[arg(value_name = "K=V", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Tag to remove
    #[arg(long, value_name = "K")]
    pub unset: Vec<String>,
}

/// `snapshot`
#[derive(Debug, Args)]
pub struct Snapshot {
    /// Only this directory
    #[arg(long, value_name = "PATH", conflicts_with = "memory")]
    pub directory: Option<String>,
    /// Memory and processes too: ends the sandbox where the provider works that way
    #[arg(long)]
    pub memory: bool,
    /// Wait for the snapshot that is taken when the sandbox ends
    #[arg(long, conflicts_with_all = ["directory", "memory", "ttl"])]
    pub at_exit: bool,
    /// How long the image is kept
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "memory")]
    pub ttl: Option<std::time::Duration>,
    /// Sandbox
    pub id: String,
}

/// `restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// Name of the new sandbox
    #[arg(long)]
    pub name: Option<String>,
    /// Memory snapshot
    pub snapshot: String,
}

/// `mount`
#[derive(Debug, Args)]
pub struct Mount {
    /// Where
    #[arg(value_name = "ID:PATH")]
    pub path: String,
    /// Image of a directory snapshot; an empty directory without it
    pub image: Option<String>,
}

/// `unmount`
#[derive(Debug, Args)]
pub struct Unmount {
    /// Where
    #[arg(value_name = "ID:PATH")]
    pub path: String,
}

/// `network`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("reach").args(["open", "block", "allow"]).required(true).multiple(true))]
pub struct Network {
    /// Let it connect to anywhere
    #[arg(long, conflicts_with_all = ["block", "allow"])]
    pub open: bool,
    /// Cut it off
    #[arg(long, conflicts_with = "allow")]
    pub block: bool,
    /// Let it connect to these addresses or domains only (CIDR or name; repeatable)
    #[arg(long, value_name = "CIDR|DOMAIN")]
    pub allow: Vec<String>,
    /// Sandbox
    pub id: String,
}

/// `token`
#[derive(Debug, Args)]
pub struct Token {
    /// Handed to the program behind the port
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub metadata: String,
    /// Sandbox
    pub id: String,
    /// Port inside
    pub port: u16,
}

/// `sidecar …`
#[derive(Debug, Subcommand)]
pub enum SidecarCommand {
    /// Add a container to a sandbox
    Add(Box<SidecarAdd>),
    /// List the containers of a sandbox but its main one
    List(Id),
    /// Wait for the end of a container
    Wait(SidecarName),
    /// End a container
    Terminate(SidecarName),
}

/// `sidecar add`
#[derive(Debug, Args)]
pub struct SidecarAdd {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub image: ImageArgs,
    /// Environment variable; without `=V` its value here
    #[arg(short, long, value_name = "K[=V]", value_parser = env_pair)]
    pub env: Vec<(String, String)>,
    /// Directory to start in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Sandbox
    pub id: String,
    /// Name of the container
    pub name: String,
    /// Its command [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    pub argv: Vec<String>,
}

/// A container of a sandbox.
#[derive(Debug, Args)]
pub struct SidecarName {
    /// Sandbox
    pub id: String,
    /// Name of the container
    pub name: String,
}

/// `image …`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Show what is known of an image
    Inspect(ImageId),
    /// Remove an image
    Rm(ImageId),
}

/// An image.
#[derive(Debug, Args)]
pub struct ImageId {
    /// Image (`im-…`)
    pub image: String,
}

/// `sweep`
#[derive(Debug, Args)]
pub struct Sweep {
    /// Only show what would be removed (the default on a terminal)
    #[arg(short = 'n', long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Remove (the default when not on a terminal)
    #[arg(short, long)]
    pub yes: bool,
    /// Owner whose sandboxes are looked at [default: this user on this machine]
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
}

/// `forward`
#[derive(Debug, Args)]
pub struct Forward {
    /// Sandbox
    pub id: String,
    /// Ports: LOCAL:REMOTE, or one number for both; 0 for any free local port
    #[arg(value_name = "[LOCAL:]REMOTE", required = true, value_parser = ports)]
    pub ports: Vec<(u16, u16)>,
}

/// `gateway`
#[derive(Debug, Args)]
pub struct Gateway {
    /// Where to listen; loopback only
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: std::net::SocketAddr,
    /// Write the token to this file (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,
    /// End when standard input ends: with the program that started it
    #[arg(long)]
    pub exit_with_stdin: bool,
}

/// `build`
#[derive(Debug, Args)]
pub struct Build {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub image: ImageArgs,
}

/// `plugin …`
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Show imports, exports, interface version, digest, wishes and grants of a component
    Inspect(PluginInspect),
    /// Fetch a component and keep it under a name, for --plugin NAME
    Pull(PluginPull),
}

/// `plugin pull`
#[derive(Debug, Args)]
pub struct PluginPull {
    /// SHA-256 that the component must have; needed for https, unless the address ends in #sha256=…
    #[arg(long, value_name = "SHA256")]
    pub digest: Option<String>,
    /// Name to keep it under [default: the last part of where it comes from]
    #[arg(long)]
    pub name: Option<String>,
    /// Where it is: https://HOST/PATH#sha256=…, oci://HOST/NAME:TAG, or oci://HOST/NAME@sha256:…
    #[arg(value_name = "REF")]
    pub reference: String,
}

/// `plugin inspect`
#[derive(Debug, Args)]
pub struct PluginInspect {
    /// The component, or name of a pulled one [default: the one that the other commands use]
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// `emulator`
#[derive(Debug, Args)]
pub struct Emulator {
    #[cfg(feature = "emulator")]
    #[command(flatten)]
    #[allow(missing_docs)]
    pub args: modal_emulator::cli::Args,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Use the service for some minutes: make sandboxes and images, try what docs/live-checks.md lists, remove them again
    #[arg(long)]
    pub live: bool,
}

/// `completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct Man {
    /// Directory to write one page per command into
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    match (local.parse(), remote.parse()) {
        (Ok(local), Ok(remote)) if remote != 0 => Ok((local, remote)),
        _ => Err("not of the form LOCAL:REMOTE with numbers from 1 to 65535".into()),
    }
}

/// An accelerator: its model, and how many.
fn gpu(text: &str) -> Result<(String, u32), String> {
    let (model, count) = text.split_once(':').unwrap_or((text, "1"));
    match count.parse() {
        Ok(count) if count > 0 && !model.is_empty() => Ok((model.to_owned(), count)),
        _ => Err("write MODEL or MODEL:COUNT".into()),
    }
}

fn port(text: &str) -> Result<(PortKind, u16), String> {
    let (number, kind) = text.split_once('/').unwrap_or((text, "tls"));
    let kind = match kind {
        "tls" => PortKind::Tls,
        "h2" => PortKind::H2,
        "tcp" => PortKind::Tcp,
        _ => return Err(format!("{kind:?} is no kind of port; use tls, h2 or tcp")),
    };
    match number.parse() {
        Ok(number) if number != 0 => Ok((kind, number)),
        _ => Err("not a port from 1 to 65535".into()),
    }
}

/// Name, path, and options as name and value.
type Mounted<'a> = (&'a str, &'a str, Vec<(&'a str, Option<&'a str>)>);

/// `NAME:PATH:OPTION,…` in its parts.
fn mounted(text: &str) -> Result<Mounted<'_>, String> {
    let mut parts = text.splitn(3, ':');
    let (Some(name), Some(path)) = (parts.next().filter(|name| !name.is_empty()), parts.next()) else {
        return Err("write NAME:/path or NAME:/path:OPTION,…".into());
    };
    let options = parts.next().into_iter().flat_map(|options| options.split(','));
    let options = options.map(|option| match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    });
    Ok((name, path, options.collect()))
}

fn volume(text: &str) -> Result<VolumeMount, String> {
    let (volume, path, options) = mounted(text)?;
    let (volume, path) = (volume.to_owned(), path.to_owned());
    let mut mount = VolumeMount { volume, path, read_only: false, sub_path: None, create: false };
    for option in options {
        match option {
            ("ro", None) => mount.read_only = true,
            ("create", None) => mount.create = true,
            ("sub", Some(directory)) => mount.sub_path = Some(directory.to_owned()),
            (name, _) => return Err(format!("{name:?} is no option of a volume; use ro, create, sub=DIR")),
        }
    }
    Ok(mount)
}

fn bucket(text: &str) -> Result<BucketMount, String> {
    let (bucket, path, options) = mounted(text)?;
    let mut mount = BucketMount::new(bucket, path);
    for option in options {
        match option {
            ("ro", None) => mount.read_only = true,
            ("prefix", Some(prefix)) => mount.prefix = Some(prefix.to_owned()),
            ("secret", Some(secret)) => mount.secret = Some(secret.to_owned()),
            ("endpoint", Some(url)) => mount.endpoint = Some(url.to_owned()),
            (name, None) => mount.extra.push((name.to_owned(), "true".to_owned())),
            (name, Some(value)) => mount.extra.push((name.to_owned(), serde_json::json!(value).to_string())),
        }
    }
    Ok(mount)
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("not of the form K=V".into()),
    }
}

fn env_pair(text: &str) -> Result<(String, String), String> {
    if text.contains('=') {
        return pair(text);
    }
    match std::env::var(text) {
        Ok(value) if !text.is_empty() => Ok((text.to_owned(), value)),
        _ => Err(format!("{text} is not set here; write {text}=VALUE")),
    }
}

/// A path, or nothing, as which an empty environment variable counts.
fn path_or_nothing() -> impl TypedValueParser<Value = PathBuf> {
    clap::builder::OsStringValueParser::new().map(PathBuf::from)
}

/// A span of time: a number of seconds, or one with a unit.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let (number, factor) = match text.char_indices().find(|(_, c)| c.is_ascii_alphabetic()) {
        None => (text, 1.0),
        Some((at, _)) => match &text[at..] {
            "ms" => (&text[..at], 0.001),
            "s" => (&text[..at], 1.0),
            "m" | "min" => (&text[..at], 60.0),
            "h" => (&text[..at], 3600.0),
            "d" => (&text[..at], 86400.0),
            unit => return Err(format!("{unit:?} is no unit of time; use ms, s, m, h or d")),
        },
    };
    match number.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 && value * factor < 1e9 => {
            Ok(std::time::Duration::from_secs_f64(value * factor))
        }
        _ => Err("not a time such as 90s, 10m or 2h".into()),
    }
}

/// A size in MiB: a number of MiB, or one with a unit.
fn mebibytes(text: &str) -> Result<u32, String> {
    let (number, factor) = match text.char_indices().find(|(_, c)| c.is_ascii_alphabetic()) {
        None => (text, 1.0),
        Some((at, _)) => match text[at..].to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
            "m" => (&text[..at], 1.0),
            "g" => (&text[..at], 1024.0),
            "t" => (&text[..at], 1024.0 * 1024.0),
            _ => return Err("not a size such as 512M or 4G".into()),
        },
    };
    match number.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 && value * factor <= f64::from(u32::MAX) => {
            Ok((value * factor).ceil() as u32)
        }
        _ => Err("not a size such as 512M or 4G".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_and_sizes() {
        assert_eq!(duration("1.5m").unwrap().as_secs(), 90);
        assert_eq!(duration("250ms").unwrap().as_millis(), 250);
        assert_eq!(duration("7").unwrap().as_secs(), 7);
        assert!(duration("0").is_err() && duration("5y").is_err() && duration("-1s").is_err());
        assert_eq!(mebibytes("4G").unwrap(), 4096);
        assert_eq!(mebibytes("512").unwrap(), 512);
        assert_eq!(mebibytes("1GiB").unwrap(), 1024);
        assert!(mebibytes("4K").is_err());
    }

    #[test]
    fn ports_and_mounts() {
        assert_eq!(port("80").unwrap(), (PortKind::Tls, 80));
        assert_eq!(port("53/tcp").unwrap(), (PortKind::Tcp, 53));
        assert!(port("0").is_err() && port("80/udp").is_err() && port("x").is_err());
        let mount = volume("data:/data:ro,create,sub=a/b").unwrap();
        assert_eq!(
            (mount.volume.as_str(), mount.path.as_str(), mount.sub_path.as_deref()),
            ("data", "/data", Some("a/b"))
        );
        assert!(mount.read_only && mount.create);
        assert!(volume("data").is_err() && volume(":/data").is_err() && volume("data:/data:rw").is_err());
        let mount = bucket("b:/b:ro,requester_pays,endpoint=https://s3.example.org:9000/x").unwrap();
        assert_eq!(mount.endpoint.as_deref(), Some("https://s3.example.org:9000/x"));
        assert_eq!(mount.extra, [("requester_pays".to_owned(), "true".to_owned())]);
        assert_eq!(gpu("A100:2").unwrap(), ("A100".to_owned(), 2));
        assert!(gpu("A100:x").is_err() && gpu(":1").is_err() && gpu("A100:0").is_err());
    }
}
