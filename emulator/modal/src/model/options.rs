//! How an emulator is started.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How an emulator is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 for any.
    pub listen: SocketAddr,
    /// Listen elsewhere than on loopback. The emulator has no account of who may use it.
    pub allow_remote: bool,
    /// Answer every user of this machine. Without it, and on loopback, only the user that runs the emulator, and root.
    pub any_user: bool,
    /// Where clients find it, when that is not where it listens: the address of a proxy in front of it.
    pub advertise: Option<SocketAddr>,
    /// Parent of the state directory; the machine's temporary directory by default.
    pub state_dir: Option<PathBuf>,
    /// The program that is executed for inner roles; this one by default. It must call [`crate::child_entry`] first.
    pub program: Option<PathBuf>,
    /// Sandboxes reach, through this machine, what their policies permit; otherwise nothing.
    pub network: bool,
    /// Names that have these addresses inside sandboxes, whatever the machine's resolver says.
    pub resolve: Vec<(String, IpAddr)>,
    /// Bytes that every sandbox has to write to. Held in memory; without it they write to the machine's disk.
    pub disk: Option<u64>,
    /// Bytes to leave free on the disk of the state directory: what has written most is ended before. By default up to a
    /// gibibyte.
    pub keep_free: Option<u64>,
    /// Streams a connection may have open at once.
    pub max_streams: u32,
    /// What environments say images are built with.
    pub image_builder_version: String,
    /// The only credentials taken; any when none are given.
    pub token: Option<(String, String)>,
    /// How long router tokens are good for.
    pub router_token_life: Duration,
    /// How long control-plane tokens are good for.
    pub auth_token_life: Duration,
    /// Decides which calls are hit by faults with a probability.
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
