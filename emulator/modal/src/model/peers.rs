//! Determines which user of this machine a connection comes from.
//!
//! A loopback port is open to every user of the machine, and a request to the emulator runs commands as the user that runs the
//! emulator. Therefore connections over loopback are accepted only from that user and from root. TCP has no `SO_PEERCRED`, but
//! the kernel's tables of sockets (`/proc/net/tcp`, `/proc/net/tcp6`) name the owner of the socket at the other end. A Unix
//! socket would report its owner directly, but the clients of the service speak TCP only.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// The kernel's tables of the network namespace that the reading thread is in.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];

/// How many times a connection is looked up. The tables are no atomic snapshot: an entry can be missing while others change.
const TRIES: u32 = 5;

/// The addresses of a connection as its other end sees them: that end's own address first.
type Pair = (SocketAddr, SocketAddr);

/// Decides which connections are accepted.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    /// The user whose connections are accepted; `None` accepts all users.
    only: Option<u32>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Connections that wait for the next read of the tables. One read serves all of them, so that a user who opens many
/// connections does not delay the others.
#[derive(Debug, Default)]
struct Waiting {
    asked: Vec<(Pair, oneshot::Sender<Option<u32>>)>,
    reading: bool,
}

impl Peers {
    /// Accepts only connections of root and of the user that runs this process.
    ///
    /// # Errors
    ///
    /// Fails if the kernel's table of connections cannot be read.
    pub fn of_this_user() -> std::io::Result<Peers> {
        std::fs::File::open(TABLES[0])?;
        Ok(Peers { only: Some(nix::unistd::geteuid().as_raw()), waiting: Arc::default() })
    }

    /// Accepts every connection.
    pub fn any() -> Peers {
        Peers::default()
    }

    /// Checks whether a connection is accepted.
    ///
    /// # Errors
    ///
    /// Returns a text for the peer if the connection belongs to another user, or if its owner cannot be determined.
    pub async fn admit(&self, stream: &TcpStream) -> Result<(), String> {
        let Some(only) = self.only else { return Ok(()) };
        let unknown = || "the emulator cannot tell which user this connection comes from".to_owned();
        let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return Err(unknown()) };
        for _ in 0..TRIES {
            let found = self.owner((peer, local)).await;
            // A reset connection frees its addresses: the entry could then belong to another user's new connection.
            if stream.peer_addr().is_err() {
                return Err(unknown());
            }
            match found {
                Some(user) if user == only || user == 0 => return Ok(()),
                Some(user) => {
                    return Err(format!(
                        "the emulator answers only the user that runs it (uid {only}), and this connection is of uid \
                         {user}: start it with --any-user if other users of this machine are to run commands as uid {only}"
                    ));
                }
                None => {}
            }
        }
        Err(unknown())
    }

    /// Returns the owner of the socket at the other end. Returns `None` if the tables have no such socket, or no process holds
    /// it.
    async fn owner(&self, pair: Pair) -> Option<u32> {
        let (tell, told) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.lock();
            waiting.asked.push((pair, tell));
            !std::mem::replace(&mut waiting.reading, true)
        };
        if is_first {
            let waiting = self.waiting.clone();
            tokio::task::spawn_blocking(move || read_for(&waiting));
        }
        told.await.ok().flatten()
    }
}

/// Reads the tables for all waiting connections, and repeats until none is waiting.
fn read_for(waiting: &Mutex<Waiting>) {
    loop {
        let asked = {
            let mut waiting = waiting.lock();
            let asked = std::mem::take(&mut waiting.asked);
            waiting.reading = !asked.is_empty();
            asked
        };
        if asked.is_empty() {
            return;
        }
        let mut owners = HashMap::new();
        for table in TABLES {
            // An unreadable table yields no owners, and a connection without a known owner is rejected.
            let text = std::fs::read_to_string(table).unwrap_or_default();
            owners.extend(text.lines().skip(1).filter_map(entry));
        }
        for ((peer, local), tell) in asked {
            let _ = tell.send(owners.get(&(plain(peer), plain(local))).copied());
        }
    }
}

/// Converts an address to the form of the kernel's tables: without scope and flow, and with IPv4-mapped IPv6 as IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Parses a line of the table into a connection and its owner. Returns `None` for a socket that no process holds any more,
/// because the kernel reports user 0 as its owner instead of the user that it belonged to.
fn entry(line: &str) -> Option<(Pair, u32)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
    // Skips state, queues, timer and retransmissions; after the user come a timeout and the inode.
    let user = fields.nth(4)?.parse().ok()?;
    let inode: u64 = fields.nth(1)?.parse().ok()?;
    (inode != 0).then_some(((local, remote), user))
}

/// Parses an address of the table: 32-bit words in the byte order of memory, in hexadecimal, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for start in (0..host.len()).step_by(8) {
        let word = u32::from_str_radix(host.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match *bytes.as_slice() {
        [a, b, c, d] => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(plain(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_owner_of_a_connection_is_known() {
        let peers = Peers::of_this_user().unwrap();
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            // A machine may have no IPv6.
            let Ok(listener) = tokio::net::TcpListener::bind(listen).await else { continue };
            let address = listener.local_addr().unwrap();
            let client = TcpStream::connect(address).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            assert_eq!(peers.admit(&stream).await, Ok(()), "{listen}");
            let own = nix::unistd::geteuid().as_raw();
            assert_eq!(peers.owner((client.local_addr().unwrap(), address)).await, Some(own), "{listen}");
            // The kernel reports root as the owner of a socket that no process holds.
            drop(client);
            assert!(peers.admit(&stream).await.is_err(), "{listen}");
        }
    }

    #[test]
    fn lines_of_the_table() {
        let sl = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(entry(sl), None);
        let word = |word: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(word));
        let (ip, none) = (word([127, 0, 0, 1]), word([0; 4]));
        let mapped = format!("{none}{none}{}{ip}", word([0, 0, 0xff, 0xff]));
        let pair = ("127.0.0.1:256".parse().unwrap(), "127.0.0.1:1".parse().unwrap());
        for host in [&ip, &mapped] {
            let line = |inode: u32| {
                format!(
                    " 0: {host}:0100 {host}:0001 01 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0 20"
                )
            };
            assert_eq!(entry(&line(5)), Some((pair, 1000)));
            assert_eq!(entry(&line(0)), None);
        }
    }
}
