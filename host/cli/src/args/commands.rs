//! Options of each command.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::groups::{CommandArgs, ImageArgs, SandboxArgs};
use super::values::{duration, env_pair, pair, ports};

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
    /// Check a component for its author: format, limits, imports, exports, manifest, description
    Check(PluginCheck),
    /// Put a manifest into a component
    Pack(PluginPack),
}

/// `plugin check`
#[derive(Debug, Args)]
pub struct PluginCheck {
    /// The component
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// `plugin pack`
#[derive(Debug, Args)]
pub struct PluginPack {
    /// The component; a manifest in it is replaced
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The manifest (TOML; see docs/provider-guide.md)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub manifest: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
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
    /// The component, or name of a bundled or pulled one [default: the one that the other commands use]
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
