//! The command line as clap definitions. The modules of `commands` give them their effect. `docs/cli.md` is generated from
//! them.

mod commands;
mod groups;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

pub use self::commands::*;
pub use self::groups::{CommandArgs, ImageArgs, SandboxArgs};
pub use self::values::duration;
use self::values::path_or_nothing;

/// The text below the help of `stats`.
const STATS: &str = "\
Also works for sandboxes that have ended. Costs are in US dollars, as the provider reports them.
Values that the provider does not report are omitted, and null with --json. The usage of the last
minutes may be missing.";

/// The text below the help of `conformance`.
const CONFORMANCE: &str = "\
Reads what the provider declares, and tests it in sandboxes that it creates and terminates. What the provider
does not declare must be refused before anything is sent to the service. Connections are damaged through a proxy
on this machine, so the service must be reachable directly: by https, http or a Unix socket.

Checks use what the image has: the programs /bin/sh, echo, cat and sleep, in a few cases others, the user `nobody`,
and a directory /tmp in which every user may write. Checks that need what it lacks are skipped. Dockerfiles of the
checks begin with the image of --image if that is a registry name, and otherwise with `debian`.

Exit codes: 0 if all checks hold, 1 if one failed or something could not be removed, 125 if this
program failed.";

/// The exit codes and environment variables, below the help of the program.
const AFTER: &str = "\
Exit codes:
  0-255  the exit code of the remote command (128+N if signal N killed it)
  124    the command exceeded its --timeout; from `wait`: the sandbox exceeded its lifetime or was idle
  125    this program failed: usage, plugin, credentials, network, provider
  126    the remote command is not executable
  127    the remote command was not found
  130    this program was interrupted
  137    from `wait`: the sandbox was terminated, or ran out of memory
  141    the remote command was killed, because the reader of this program's output is gone

Environment:
  SANDBOX_LOG                  filter for the diagnostics, such as sandbox_host=trace; replaces -v
  OTEL_EXPORTER_OTLP_ENDPOINT  URL of the collector for spans and counters (OTLP over gRPC) [default: none]";

/// The name of the program in its own texts. It is also installed as `sandbox`, a name that a program of another vendor has
/// too.
pub const PROGRAM: &str = "sandbox-host";

/// Runs commands in disposable cloud machines (sandboxes), through a provider plugin.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    bin_name = PROGRAM,
    version,
    after_help = AFTER,
    max_term_width = 100,
    arg_required_else_help = true
)]
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
    /// Use a private emulator that runs during this command; needs no account and no network
    #[arg(long, global = true, conflicts_with = "emulator_url")]
    pub emulator: bool,
    /// Use the emulator that listens at URL
    #[arg(long, global = true, value_name = "URL")]
    pub emulator_url: Option<String>,
    /// File of the provider component, or name of a bundled one (modal, docker, memory) or a pulled one [default: modal]
    #[arg(long, global = true, value_name = "FILE|NAME", env = "SANDBOX_PLUGIN", value_parser = path_or_nothing(), value_hint = ValueHint::FilePath)]
    pub plugin: Option<PathBuf>,
    /// Use this profile of the provider's profile file (for Modal, ~/.modal.toml)
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["emulator", "emulator_url"])]
    pub profile: Option<String>,
    /// Read limits and grants for the plugin from this TOML file (see docs/security.md)
    #[arg(long, global = true, value_name = "FILE", env = "SANDBOX_POLICY", value_parser = path_or_nothing(), value_hint = ValueHint::FilePath)]
    pub policy: Option<PathBuf>,
    /// Grant the plugin of --plugin all origins, environment variables and credentials that it requests
    #[arg(long, global = true)]
    pub grant: bool,
    /// Also trust the certificate authorities in this PEM file
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca_file: Option<PathBuf>,
    /// Print results and errors as JSON on stdout (see docs/cli.md)
    #[arg(long, global = true)]
    pub json: bool,
    /// Do not print progress, messages and build logs
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print diagnostics on stderr; -vv prints more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Do not use colours
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command in a new sandbox, then terminate the sandbox
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
    /// Remove files and directories
    Rm(Rm),
    /// List sandboxes
    #[command(visible_alias = "ps")]
    List(List),
    /// Show the properties of a sandbox
    Inspect(Id),
    /// Print the log of a sandbox
    Logs(Logs),
    /// Wait until a sandbox ends, and print how it ended
    Wait(Id),
    /// Terminate sandboxes
    Terminate(Terminate),
    /// Freeze the processes of sandboxes, until `resume`
    Pause(Ids),
    /// End the processes of sandboxes and keep their files, until `resume`
    Stop(Ids),
    /// Continue paused sandboxes, and start stopped ones again
    Resume(Ids),
    /// Change how long sandboxes may still live, and print when they will be ended
    Extend(Extend),
    /// List the commands that were started in a sandbox, newest first
    Execs(Execs),
    /// Show or change the tags of a sandbox
    Tags(Tags),
    /// Save the files, a directory, or the memory of a sandbox, and print the id of the snapshot
    Snapshot(Snapshot),
    /// Create a sandbox from a memory snapshot
    Restore(Restore),
    /// Mount an image or an empty directory at a path of a running sandbox
    Mount(Mount),
    /// Remove a mount that `mount` made
    Unmount(Unmount),
    /// Change the outbound network policy of a running sandbox
    Network(Network),
    /// Create a token for HTTP connections to a port of a sandbox
    Token(Token),
    /// Show the resource usage and the cost of a sandbox
    #[command(after_help = STATS)]
    Stats(Id),
    /// Manage the sidecars of a sandbox: additional containers beside its main one
    #[command(subcommand)]
    Sidecar(SidecarCommand),
    /// Show the public addresses of the ports of a sandbox
    Tunnels(Id),
    /// Terminate abandoned sandboxes: those that a killed `run` or harness left running
    Sweep(Sweep),
    /// Forward local ports to ports of a sandbox
    Forward(Forward),
    /// Build an image and print its id
    Build(Build),
    /// List the images that the provider has stored, newest first
    Images(Images),
    /// Show or delete images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Show, download, check and pack provider components
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Check whether a component is a correct provider: runs the checks of the interface on it
    #[command(after_help = CONFORMANCE)]
    Conformance(Conformance),
    /// Let hosts that speak only HTTP/1.1 run the plugin: gRPC-Web in, gRPC out
    Gateway(Gateway),
    /// Check the plugin, the settings, the service and the emulator
    Doctor(Doctor),
    /// Run an emulator of Modal in the foreground
    Emulator(Emulator),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the manual page, or write one page per command to a directory
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
