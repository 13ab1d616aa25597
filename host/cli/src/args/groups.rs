//! Options that several commands have: of the image, of the sandbox, of the command in it.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use sandbox_host::types::{BucketMount, PortKind, VolumeMount};

use super::values::{bucket, duration, env_pair, gpu, mebibytes, pair, port, volume};

/// Where the image comes from.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Image")]
pub struct ImageArgs {
    /// Use this image: a registry name such as `python:3.12-slim`, or an image id of the provider: `im-…`, `sha256:…`, or
    /// any id as `id:ID`
    #[arg(long, value_name = "REF", conflicts_with = "dockerfile")]
    pub image: Option<String>,
    /// Use the image that was published at the provider under this name, such as `tools:latest`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["image", "dockerfile"])]
    pub published: Option<String>,
    /// Build the image from this Dockerfile; `-` reads it from standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub dockerfile: Option<PathBuf>,
    /// Directory that COPY lines read from [default: the Dockerfile's directory; none for standard input]
    #[arg(long, value_name = "DIR", requires = "dockerfile", value_hint = ValueHint::DirPath)]
    pub context: Option<PathBuf>,
    /// Value of an ARG of the Dockerfile (repeatable)
    #[arg(long, value_name = "K=V", requires = "dockerfile", value_parser = pair)]
    pub build_arg: Vec<(String, String)>,
    /// Stage of the Dockerfile to build [default: the last one]
    #[arg(long, value_name = "STAGE", requires = "dockerfile")]
    pub target: Option<String>,
    /// Add a Dockerfile line to the image, such as `RUN apt-get install -y git` (repeatable)
    #[arg(long = "line", value_name = "LINE")]
    pub lines: Vec<String>,
    /// Name of a secret at the provider that contains the credentials for the image's registry
    #[arg(long, value_name = "NAME")]
    pub registry_secret: Option<String>,
    /// Credential of the plugin for the image's registry, such as `registry`; `plugin inspect` lists the names
    #[arg(long, value_name = "NAME", conflicts_with = "registry_secret")]
    pub registry_credential: Option<String>,
    /// Name of a secret at the provider; its entries are environment variables of RUN lines (repeatable)
    #[arg(long, value_name = "NAME")]
    pub build_secret: Vec<String>,
    /// Accelerators for the build, such as H100 or A100:2 [default count: 1]
    #[arg(long, value_name = "MODEL[:N]", value_parser = gpu)]
    pub build_gpu: Option<(String, u32)>,
    /// Version of the provider's image builder [default: the configured version]
    #[arg(long, value_name = "VERSION")]
    pub builder_version: Option<String>,
    /// Build the image even if the provider already has it
    #[arg(long)]
    pub force_build: bool,
}

/// The properties of a new sandbox.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Sandbox")]
pub struct SandboxArgs {
    /// Set an environment variable; without `=V`, to its value on this machine (repeatable)
    #[arg(short, long, value_name = "K[=V]", value_parser = env_pair)]
    pub env: Vec<(String, String)>,
    /// Name of a secret at the provider; its entries become environment variables (repeatable)
    #[arg(long, value_name = "NAME")]
    pub secret: Vec<String>,
    /// Absolute path of the working directory [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// CPU cores to reserve, such as 0.5
    #[arg(long, value_name = "CORES")]
    pub cpu: Option<f64>,
    /// Maximum number of CPU cores
    #[arg(long, value_name = "CORES")]
    pub cpu_limit: Option<f64>,
    /// Memory to reserve, such as 512M or 4G; a number without a unit is in MiB
    #[arg(long, value_name = "SIZE", value_parser = mebibytes)]
    pub memory: Option<u32>,
    /// Maximum memory, such as 512M or 4G
    #[arg(long, value_name = "SIZE", value_parser = mebibytes)]
    pub memory_limit: Option<u32>,
    /// Accelerators of the sandbox, such as H100 or A100:2 [default count: 1]
    #[arg(long, value_name = "MODEL[:N]", value_parser = gpu)]
    pub gpu: Option<(String, u32)>,
    /// Terminate the sandbox after this time, such as 90s, 10m, 2h [default: the provider's; 5m with Modal]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub lifetime: Option<std::time::Duration>,
    /// Terminate the sandbox after this time without a command or connection [default: never]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub idle_timeout: Option<std::time::Duration>,
    /// Block all outbound connections
    #[arg(long)]
    pub block_network: bool,
    /// Permit outbound connections only to this address range or domain (repeatable)
    #[arg(long, value_name = "CIDR|DOMAIN", conflicts_with = "block_network")]
    pub allow: Vec<String>,
    /// Permit connections to the sandbox's ports only from this address range (repeatable) [default: all]
    #[arg(long, value_name = "CIDR")]
    pub inbound: Vec<String>,
    /// Name of a proxy at the provider for outbound connections
    #[arg(long, value_name = "NAME")]
    pub proxy: Option<String>,
    /// Make a port reachable from outside: over TLS (default), TLS with HTTP/2, or plain TCP (repeatable)
    #[arg(long, value_name = "PORT[/tls|/h2|/tcp]", value_parser = port)]
    pub port: Vec<(PortKind, u16)>,
    /// Mount a volume of the provider; options: ro (read-only), create (if missing), sub=DIR (repeatable)
    #[arg(long, value_name = "NAME:PATH[:OPTION,…]", value_parser = volume)]
    pub volume: Vec<VolumeMount>,
    /// Mount a bucket; options: ro, prefix=P/, secret=NAME, requester_pays, force_path_style, oidc_role=ROLE, endpoint=URL
    #[arg(long, value_name = "NAME:PATH[:OPTION,…]", value_parser = bucket)]
    pub bucket: Vec<BucketMount>,
    /// Add a sidecar container that runs the command of this image (repeatable)
    #[arg(long, value_name = "NAME=IMAGE", value_parser = pair)]
    pub sidecar: Vec<(String, String)>,
    /// Consider the sandbox ready when this port accepts a connection
    #[arg(long, value_name = "PORT")]
    pub ready_port: Option<u16>,
    /// Consider the sandbox ready when this shell command exits with 0
    #[arg(long, value_name = "LINE", conflicts_with = "ready_port")]
    pub ready_command: Option<String>,
    /// Region that the sandbox may run in, as the provider names it (repeatable) [default: any]
    #[arg(long, value_name = "REGION")]
    pub region: Vec<String>,
    /// Name of the sandbox, unique among running sandboxes (1-64 of A-Z a-z 0-9 . _ -)
    #[arg(long)]
    pub name: Option<String>,
    /// Set a tag (repeatable)
    #[arg(long, value_name = "K=V", value_parser = pair)]
    pub tag: Vec<(String, String)>,
    /// Set an option of the provider; V is JSON or text (repeatable; `plugin inspect` lists the options)
    #[arg(long = "option", value_name = "K=V", value_parser = pair)]
    pub options: Vec<(String, String)>,
}

/// How the command runs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Command")]
pub struct CommandArgs {
    /// Send standard input to the command; without it the command's input is empty
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a terminal for the command
    #[arg(short, long)]
    pub tty: bool,
    /// User to run the command as [default: the image's]
    #[arg(short, long)]
    pub user: Option<String>,
    /// Kill the command after this time, such as 90s, 10m, 2h, and exit with 124 [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<std::time::Duration>,
}
