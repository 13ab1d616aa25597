//! The options of an emulator. `cli` creates them from the command line; tests create them directly.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The options of an emulator.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address and port to listen on; port 0 selects a free one.
    pub listen: SocketAddr,
    /// Permit an address that is not loopback. Every client that reaches it can then use the emulator.
    pub allow_remote: bool,
    /// Accept connections of every user of this machine. Without it, loopback connections are accepted only from root and from
    /// the user that runs the emulator.
    pub any_user: bool,
    /// Address that is announced to clients if it differs from the listener's: the address of a proxy in front of the emulator.
    pub advertise: Option<SocketAddr>,
    /// Parent of the state directory; the system's temporary directory by default.
    pub state_dir: Option<PathBuf>,
    /// The program that is executed for processes inside containers; this program by default. It must call
    /// [`crate::child_entry`] first.
    pub program: Option<PathBuf>,
    /// Give sandboxes network access through this machine, as far as their policies permit. Without it they have none.
    pub network: bool,
    /// Names that resolve to these addresses inside sandboxes, regardless of the machine's resolver.
    pub resolve: Vec<(String, IpAddr)>,
    /// Bytes that each sandbox may write, held in memory. With `None`, sandboxes write to the machine's disk.
    pub disk: Option<u64>,
    /// Bytes to keep free on the disk of the state directory. The sandbox that has written most is ended if less is free. The
    /// default depends on the disk and is at most one gibibyte.
    pub keep_free: Option<u64>,
    /// Largest number of concurrent streams of one connection.
    pub max_streams: u32,
    /// Image builder version that environments report.
    pub image_builder_version: String,
    /// The only credentials that are accepted, as id and secret; `None` accepts any.
    pub token: Option<(String, String)>,
    /// Lifetime of router tokens.
    pub router_token_life: Duration,
    /// Lifetime of control-plane tokens.
    pub auth_token_life: Duration,
    /// Seed that selects the calls that faults with a probability apply to.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            allow_remote: false,
            any_user: false,
            advertise: None,
            state_dir: None,
            program: None,
            network: false,
            resolve: Vec::new(),
            disk: None,
            keep_free: None,
            max_streams: 100,
            image_builder_version: "2025.06".to_owned(),
            token: None,
            router_token_life: Duration::from_secs(600),
            auth_token_life: Duration::from_secs(1200),
            seed: 0,
        }
    }
}
