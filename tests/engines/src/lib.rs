//! Real container engines for tests and benchmarks: dockerd, podman and an image registry of Debian packages, started
//! on loopback without an installation. They need root and the folder that `cargo xtask engines` creates.
//!
//! ```no_run
//! use engines::{Engine, Kind, Options};
//!
//! let engine = Engine::start(Kind::Dockerd, &Options::default())?;
//! let (status, version) = engine.request("GET", "/version", None)?;
//! assert_eq!(status, 200);
//! println!("{} is version {}", engine.host(), version["Version"]);
//! # Ok::<(), engines::Error>(())
//! ```
//!
//! # Isolation
//!
//! An engine and its containers live in a mount, PID, network, control group and IPC namespace of their own:
//!
//! - **Packages**: the unpacked packages are a layer below the machine's `/usr`, in the mount namespace only. podman
//!   starts itself again after the end of a container, with few environment variables, and so do `conmon` and the
//!   `containerd` shims. With search paths in variables those programs did not find their libraries.
//! - **Processes**: process 1 ends with its parent, and the kernel ends all others with process 1. The script
//!   `supervise.sh` is the parent. It reads a pipe that the owner of the [`Engine`] holds open, so everything ends with
//!   the owner too, even after `SIGKILL`.
//! - **Mounts** end with the namespace. The folder of the engine and its control groups are removed by the script.
//! - **Control groups**: one group in each hierarchy is the root of what the engine sees. This was tested on a machine
//!   with the controllers of version 1 beside an empty hierarchy of version 2. The steps for version 2 alone are there
//!   too, but untested. `crun` refuses a machine that has both, so podman runs `runc`.
//!
//! # Networks
//!
//! The engine has a network namespace without a link to the machine, so no packet can leave the machine. In it, the
//! engine uses its usual bridge, packet filter and address translation, and `none`, `bridge` and `host` behave as on a
//! server. A relay in this process connects the two sides:
//!
//! - **API**: a TCP port on 127.0.0.1 and a Unix socket are relayed to the engine.
//! - **Published ports**: each port on which 127.0.0.1 listens in the namespace is opened on 127.0.0.1 of the machine too. The
//!   relay looks for new ports before it passes on an answer of the API. A client that knows a port can connect to it.
//!   Engines choose published ports from a range that no other engine of this crate has.
//! - **Ports of the machine**: [`Engine::reach`] opens a port of 127.0.0.1 of the machine in the namespace, for containers
//!   as [`WORLD`] and for pulls of the engine as 127.0.0.1.
//!
//! These other ways were tried:
//!
//! - dockerd with `--bridge=none` on the network of the machine has `none` and `host` only.
//! - dockerd on the network of the machine with a bridge of its own, `--iptables=false` and the user-space proxy works,
//!   with `none`, a bridge and published ports. The bridge stays on the machine if the test is killed.
//! - podman (netavark) on the network of the machine works too. It leaves filter rules behind, and turns on the
//!   forwarding of packets for the whole machine.
//! - podman with `netns = "slirp4netns"` in its configuration: a container that is created through the compatible API
//!   gets a bridge all the same. The network mode `slirp4netns` has to be in each request.

mod engine;
mod error;
mod http;
mod image;
mod listeners;
mod registry;
mod relay;
mod tls;

pub use engine::{Engine, Kind, Options, packages};
pub use error::Error;
pub use image::IMAGES;
pub use registry::{REPOSITORY, USER};
pub use relay::WORLD;
