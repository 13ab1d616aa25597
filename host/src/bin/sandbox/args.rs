//! What can be typed. Meaning is given to it in the other modules; `docs/cli.md` is made from these definitions.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

/// Exit codes, for `--help` and the manual.
const AFTER: &str = "\
Exit codes:
  0-255  of the remote command, passed through (128+N when signal N killed it)
  124    the command's time limit ran out
  125    our own failure: usage, plugin, credentials, network, provider
  126    the remote command is not executable
  127    the remote command was not found
  130    interrupted";

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
    /// Provider component [default: modal-provider.wasm beside this program]
    #[arg(long, global = true, value_name = "FILE", env = "SANDBOX_PLUGIN", value_hint = ValueHint::FilePath)]
    pub plugin: Option<PathBuf>,
    /// Profile of the provider's profile file
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// Limits and grants for the plugin (TOML; see docs/security.md)
    #[arg(long, global = true, value_name = "FILE", env = "SANDBOX_POLICY", value_hint = ValueHint::FilePath)]
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
    /// Freeze a sandbox's file system as an image
    Snapshot(Snapshot),
    /// Show where the ports of a sandbox are reached
    Tunnels(Id),
    /// Remove sandboxes whose owner has gone: those that a killed `run` or harness left behind
    Sweep(Sweep),
    /// Connect local ports to ports of a sandbox
    Forward(Forward),
    /// Build an image and print its id
    Build(Build),
    /// Look at provider components
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Let hosts that speak only HTTP/1.1 run the plugin: gRPC-Web in, gRPC out
    Gateway(Gateway),
    /// Check plugin, settings, network and emulator
    Doctor,
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
    /// Build the image from this Dockerfile; the directory of it is the build context
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub dockerfile: Option<PathBuf>,
    /// Build context for COPY lines [default: the Dockerfile's directory]
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
    /// Memory to set aside, such as 512M or 4G
    #[arg(long, value_name = "SIZE", value_parser = mebibytes)]
    pub memory: Option<u32>,
    /// Accelerator, such as H100 or A100:2
    #[arg(long, value_name = "MODEL[:N]")]
    pub gpu: Option<String>,
    /// Longest life of the sandbox, such as 90s, 10m, 2h
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
    /// Port to be reachable from outside, by TLS
    #[arg(long, value_name = "PORT")]
    pub port: Vec<u16>,
    /// Volume of the provider
    #[arg(long, value_name = "NAME:PATH[:ro]")]
    pub volume: Vec<String>,
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
}

/// `cp`
#[derive(Debug, Args)]
pub struct Cp {
    /// Copy a directory with all below it
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
    #[arg(short, long)]
    pub follow: bool,
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
    /// Memory and processes too
    #[arg(long)]
    pub memory: bool,
    /// How long the image is kept
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "memory")]
    pub ttl: Option<std::time::Duration>,
    /// Sandbox
    pub id: String,
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
}

/// `plugin inspect`
#[derive(Debug, Args)]
pub struct PluginInspect {
    /// The component [default: the one that the other commands use]
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
}
