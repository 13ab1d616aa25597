//! What can be typed. Meaning is given to it in the other modules; `docs/cli.md` is made from these definitions.

mod commands;
mod groups;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

pub use self::commands::*;
pub use self::groups::{CommandArgs, ImageArgs, SandboxArgs};
pub use self::values::duration;
use self::values::path_or_nothing;

/// Exit codes, for `--help` and the manual.
const STATS: &str = "\
Works after the end of the sandbox too. Costs are in US dollars, as the provider reports them.
A value that it does not report has no line, and is null with --json. Usage of the last minutes
may be missing.";

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
    /// Provider component, or name of a bundled one (modal, memory) or a pulled one [default: modal]
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
    /// Show what a sandbox has used and cost
    #[command(after_help = STATS)]
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
    /// Look at provider components, fetch, check and pack them
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
