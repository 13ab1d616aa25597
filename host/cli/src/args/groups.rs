//! Options that several commands have: of the image, of the sandbox, of the command in it.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use sandbox_host::types::{BucketMount, PortKind, VolumeMount};

use super::values::{bucket, duration, env_pair, gpu, mebibytes, pair, port, volume};

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
    /// Option of the provider; the value is JSON or text (`plugin inspect` lists the options)
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
