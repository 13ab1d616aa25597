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
    /// Do not terminate the sandbox; print its id on stderr
    #[arg(long)]
    pub keep: bool,
    /// Terminate the sandbox when the command ends; this is the default
    #[arg(long, conflicts_with = "keep")]
    pub rm: bool,
    /// Program to run and its arguments; they are not interpreted by a shell
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
    /// Idempotency key: a second create with the same key returns the same sandbox (1-64 of A-Z a-z 0-9 _ -)
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Wait until the sandbox is ready (see --ready-port, --ready-command); fail after TIME [default TIME: 5m]
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5m", value_parser = duration)]
    pub wait_ready: Option<std::time::Duration>,
    /// Allocate a terminal for the entry-point command
    #[arg(short, long)]
    pub tty: bool,
    /// Keep the sandbox alive without the command of the image (in place of ARGV)
    #[arg(long, conflicts_with = "argv")]
    pub keep_alive: bool,
    /// Entry-point command and its arguments [default: the image's command, if it has one]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    pub argv: Vec<String>,
}

/// `exec`
#[derive(Debug, Args)]
pub struct Exec {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub how: CommandArgs,
    /// Set an environment variable; without `=V`, to its value on this machine (repeatable)
    #[arg(short, long, value_name = "K[=V]", value_parser = env_pair)]
    pub env: Vec<(String, String)>,
    /// Absolute path of the working directory [default: the sandbox's]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Start the command, print its exec id and return without waiting
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub detach: bool,
    /// Run in the sidecar with this name [default: the main container]
    #[arg(long, value_name = "NAME")]
    pub container: Option<String>,
    /// Id of the sandbox
    pub id: String,
    /// Program to run and its arguments; they are not interpreted by a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    pub argv: Vec<String>,
}

/// `shell`
#[derive(Debug, Args)]
pub struct Shell {
    /// Id of the sandbox; if it is missing, a new sandbox is created for the session
    pub id: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub image: ImageArgs,
    /// Shell to run [default: bash if the sandbox has it, otherwise sh]
    #[arg(long)]
    pub shell: Option<String>,
    /// User to run the command as [default: the image's]
    #[arg(short, long)]
    pub user: Option<String>,
    /// Run in the sidecar with this name [default: the main container]
    #[arg(long, value_name = "NAME", requires = "id")]
    pub container: Option<String>,
}

/// `cp`
#[derive(Debug, Args)]
pub struct Cp {
    /// Copy a directory with its contents; with `-`, the stream is a tar archive
    #[arg(short, long)]
    pub recursive: bool,
    /// Source: a local path, SANDBOX-ID:/path, or `-` for standard input
    #[arg(value_name = "SRC")]
    pub source: String,
    /// Destination: a local path, SANDBOX-ID:/path, or `-` for standard output
    #[arg(value_name = "DST")]
    pub destination: String,
}

/// `ls`
#[derive(Debug, Args)]
pub struct Ls {
    /// Print mode, owner, group, size and modification time of each entry
    #[arg(short, long)]
    pub long: bool,
    /// Sandbox id and absolute path of a directory or file
    #[arg(value_name = "ID:PATH")]
    pub path: String,
}

/// `cat`
#[derive(Debug, Args)]
pub struct Cat {
    /// Sandbox id and absolute path of a file
    #[arg(value_name = "ID:PATH", required = true)]
    pub paths: Vec<String>,
}

/// `rm`
#[derive(Debug, Args)]
pub struct Rm {
    /// Remove directories with their contents
    #[arg(short, long)]
    pub recursive: bool,
    /// Ignore paths that do not exist
    #[arg(short, long)]
    pub force: bool,
    /// Sandbox id and absolute path of a file or directory
    #[arg(value_name = "ID:PATH", required = true)]
    pub paths: Vec<String>,
}

/// `list`
#[derive(Debug, Args)]
pub struct List {
    /// Include sandboxes that have ended
    #[arg(short, long)]
    pub all: bool,
    /// List only sandboxes with this tag (repeatable; all tags must match)
    #[arg(long, value_name = "K=V", value_parser = pair)]
    pub tag: Vec<(String, String)>,
    /// Maximum number of sandboxes to list
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
}

/// A sandbox.
#[derive(Debug, Args)]
pub struct Id {
    /// Id of the sandbox
    pub id: String,
}

/// Several sandboxes.
#[derive(Debug, Args)]
pub struct Ids {
    /// Ids of the sandboxes
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// `extend`
#[derive(Debug, Args)]
pub struct Extend {
    /// How long the sandboxes may live from now on, such as 90s, 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub lifetime: std::time::Duration,
    /// Ids of the sandboxes
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// `execs`
#[derive(Debug, Args)]
pub struct Execs {
    /// Maximum number of commands to list
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
    /// Id of the sandbox
    pub id: String,
}

/// `images`
#[derive(Debug, Args)]
pub struct Images {
    /// Maximum number of images to list
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
}

/// `logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// Print new output as it arrives, until the sandbox ends
    #[arg(short, long, conflicts_with_all = ["since", "until", "search"])]
    pub follow: bool,
    /// Print only entries newer than this, such as 10m [default: all]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub since: Option<std::time::Duration>,
    /// Print only entries older than this, such as 1m [default: all]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub until: Option<std::time::Duration>,
    /// Print only this stream [default: both]
    #[arg(long, value_parser = ["stdout", "stderr"])]
    pub stream: Option<String>,
    /// Print only entries that contain this text
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,
    /// Id of the sandbox
    pub id: String,
}

/// `terminate`
#[derive(Debug, Args)]
pub struct Terminate {
    /// Wait until the sandboxes have ended
    #[arg(long)]
    pub wait: bool,
    /// Ids of the sandboxes
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// `tags`
#[derive(Debug, Args)]
pub struct Tags {
    /// Id of the sandbox
    pub id: String,
    /// Tags to set; without tags, the current ones are printed
    #[arg(value_name = "K=V", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Name of a tag to remove (repeatable)
    #[arg(long, value_name = "K")]
    pub unset: Vec<String>,
}

/// `snapshot`
#[derive(Debug, Args)]
pub struct Snapshot {
    /// Save only the directory at this absolute path
    #[arg(long, value_name = "PATH", conflicts_with = "memory")]
    pub directory: Option<String>,
    /// Save memory and processes as well as files; with some providers this ends the sandbox
    #[arg(long)]
    pub memory: bool,
    /// Wait for the snapshot that the provider takes when the sandbox ends, and print its id
    #[arg(long, conflicts_with_all = ["directory", "memory", "ttl"])]
    pub at_exit: bool,
    /// Delete the image after this time [default: the provider keeps it]
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "memory")]
    pub ttl: Option<std::time::Duration>,
    /// Id of the sandbox
    pub id: String,
}

/// `restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// Name of the new sandbox
    #[arg(long)]
    pub name: Option<String>,
    /// Id of the memory snapshot
    pub snapshot: String,
}

/// `mount`
#[derive(Debug, Args)]
pub struct Mount {
    /// Sandbox id and absolute path of the directory
    #[arg(value_name = "ID:PATH")]
    pub path: String,
    /// Id of the image of a directory snapshot [default: mount an empty directory]
    pub image: Option<String>,
}

/// `unmount`
#[derive(Debug, Args)]
pub struct Unmount {
    /// Sandbox id and absolute path of the directory
    #[arg(value_name = "ID:PATH")]
    pub path: String,
}

/// `network`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("reach").args(["open", "block", "allow"]).required(true).multiple(true))]
pub struct Network {
    /// Permit all outbound connections
    #[arg(long, conflicts_with_all = ["block", "allow"])]
    pub open: bool,
    /// Block all outbound connections
    #[arg(long, conflicts_with = "allow")]
    pub block: bool,
    /// Permit outbound connections only to this address range or domain (repeatable)
    #[arg(long, value_name = "CIDR|DOMAIN")]
    pub allow: Vec<String>,
    /// Id of the sandbox
    pub id: String,
}

/// `token`
#[derive(Debug, Args)]
pub struct Token {
    /// Text that the program at the port receives with each connection
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub metadata: String,
    /// Id of the sandbox
    pub id: String,
    /// Port in the sandbox
    pub port: u16,
}

/// `sidecar …`
#[derive(Debug, Subcommand)]
pub enum SidecarCommand {
    /// Add a sidecar to a sandbox
    Add(Box<SidecarAdd>),
    /// List the sidecars of a sandbox
    List(Id),
    /// Wait until a sidecar ends, and print how it ended
    Wait(SidecarName),
    /// Terminate a sidecar
    Terminate(SidecarName),
}

/// `sidecar add`
#[derive(Debug, Args)]
pub struct SidecarAdd {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub image: ImageArgs,
    /// Set an environment variable; without `=V`, to its value on this machine (repeatable)
    #[arg(short, long, value_name = "K[=V]", value_parser = env_pair)]
    pub env: Vec<(String, String)>,
    /// Absolute path of the working directory [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Id of the sandbox
    pub id: String,
    /// Name of the sidecar
    pub name: String,
    /// Command of the sidecar and its arguments [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    pub argv: Vec<String>,
}

/// A container of a sandbox.
#[derive(Debug, Args)]
pub struct SidecarName {
    /// Id of the sandbox
    pub id: String,
    /// Name of the sidecar
    pub name: String,
}

/// `image …`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Show the properties of an image
    Inspect(ImageId),
    /// Delete an image, or a memory snapshot
    Rm(ImageRm),
}

/// `image rm`
#[derive(Debug, Args)]
pub struct ImageRm {
    /// Delete the memory snapshot with this id, which `snapshot --memory` has printed
    #[arg(long)]
    pub memory: bool,
    /// Id of the image (`im-…`) or of the memory snapshot
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

/// An image.
#[derive(Debug, Args)]
pub struct ImageId {
    /// Id of the image, such as `im-…` or `sha256:…`
    pub image: String,
}

/// `sweep`
#[derive(Debug, Args)]
pub struct Sweep {
    /// Show what would be terminated, without terminating it (the default on a terminal)
    #[arg(short = 'n', long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Terminate the sandboxes (the default if standard output is not a terminal)
    #[arg(short, long)]
    pub yes: bool,
    /// Owner of the sandboxes [default: this user on this machine]
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
}

/// `forward`
#[derive(Debug, Args)]
pub struct Forward {
    /// Id of the sandbox
    pub id: String,
    /// Local and remote port, or one number for both; local port 0 selects a free port
    #[arg(value_name = "[LOCAL:]REMOTE", required = true, value_parser = ports)]
    pub ports: Vec<(u16, u16)>,
}

/// `conformance`
#[derive(Debug, Args)]
pub struct Conformance {
    /// Environment variable for the plugin; without `=V` its value here
    #[arg(short, long, value_name = "K[=V]", value_parser = env_pair)]
    pub env: Vec<(String, String)>,
    /// Image of the sandboxes: a registry name, or an id of the provider as for `run` [default: that of the provider]
    #[arg(long, value_name = "REF")]
    pub image: Option<String>,
    /// Run only this check, or the checks of this group (repeatable)
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Number of checks that run at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
    /// Seed of the damage to connections
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Write the results to FILE as JUnit XML
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub junit: Option<PathBuf>,
    /// List the checks without running them
    #[arg(long, conflicts_with_all = ["image", "junit", "env"])]
    pub list: bool,
}

/// `gateway`
#[derive(Debug, Args)]
pub struct Gateway {
    /// Address to listen on; must be a loopback address; port 0 selects a free port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: std::net::SocketAddr,
    /// Write the token to this file (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,
    /// Let pages of this origin in a browser use the gateway, such as http://localhost:5173; they need the token too (repeatable)
    #[arg(long, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
    /// Exit when standard input is closed, so that the gateway ends with the program that started it
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
    /// Show digest, interface, imports, exports, requested access and granted access of a component
    Inspect(PluginInspect),
    /// Download a component and store it under a name for --plugin NAME
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
    /// Expected SHA-256 of the component; required for https unless the address ends in #sha256=…
    #[arg(long, value_name = "SHA256")]
    pub digest: Option<String>,
    /// Name to store it under [default: the last part of REF]
    #[arg(long)]
    pub name: Option<String>,
    /// Source: https://HOST/PATH#sha256=…, oci://HOST/NAME:TAG, or oci://HOST/NAME@sha256:…
    #[arg(value_name = "REF")]
    pub reference: String,
}

/// `plugin inspect`
#[derive(Debug, Args)]
pub struct PluginInspect {
    /// File of the component, or name of a bundled or pulled one [default: the value of --plugin]
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
    /// Also run the checks of docs/live-checks.md: create sandboxes and images for some minutes (costs money), then delete them
    #[arg(long)]
    pub live: bool,
}

/// `completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// Shell to write the script for
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct Man {
    /// Directory for one page per command [default: print the main page]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
}
