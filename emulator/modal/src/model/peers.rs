//! Which user of this machine a connection comes from.
//!
//! A loopback port is open to every user of the machine, and a request to the emulator runs commands as the user that runs
//! it. So connections over loopback are answered only when that user, or root, opened them. TCP has no `SO_PEERCRED`; the
//! kernel's table of sockets (`/proc/net/tcp`, `/proc/net/tcp6`) names the owner of the socket at the other end instead. A
//! Unix socket would tell it directly, but the clients of the service speak TCP only.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// The kernel's tables of the network namespace that the reading thread is in.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];

/// How often a connection is looked for. The tables are no snapshot: an entry can be missed while others come and go.
const TRIES: u32 = 5;

/// A connection as its other end has it: its own address first.
type Pair = (SocketAddr, SocketAddr);

/// Decides which connections are answered.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    /// The user whose connections are answered; all are when none is given.
    only: Option<u32>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Connections that wait for the next reading of the tables. One reading serves all of them, so that a user who connects
/// very often does not hold the others up.
#[derive(Debug, Default)]
struct Waiting {
    asked: Vec<(Pair, oneshot::Sender<Option<u32>>)>,
    reading: bool,
}

impl Peers {
    /// Answers the connections of this process's user and of root only.
    ///
    /// # Errors
    ///
    /// When the kernel's table of connections cannot be read.
    pub fn of_this_user() -> std::io::Result<Peers> {
        std::fs::File::open(TABLES[0])?;
        Ok(Peers { only: Some(nix::unistd::geteuid().as_raw()), waiting: Arc::default() })
    }

    /// Answers every connection.
    pub fn any() -> Peers {
        Peers::default()
    }

    /// Whether a connection is answered; if not, why.
    ///
    /// # Errors
    ///
    /// A text for the peer.
    pub async fn admit(&self, stream: &TcpStream) -> Result<(), String> {
        let Some(only) = self.only else { return Ok(()) };
        let unknown = || "the emulator cannot tell which user this connection comes from".to_owned();
        let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return Err(unknown()) };
        for _ in 0..TRIES {
            let found = self.owner((peer, local)).await;
            // A reset connection frees its addresses: the entry could then be that of another user's new connection.
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

    /// The owner of the socket at the other end, if the kernel has one there that a process holds.
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

/// Reads the tables for those that wait, until there are none.
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
            // A table that cannot be read names no owner, and a connection without one is not answered.
            let text = std::fs::read_to_string(table).unwrap_or_default();
            owners.extend(text.lines().skip(1).filter_map(entry));
        }
        for ((peer, local), tell) in asked {
            let _ = tell.send(owners.get(&(plain(peer), plain(local))).copied());
        }
    }
}

/// An address without what the kernel's table does not have; an IPv4 address inside an IPv6 one as what it is.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A line of the table as a connection and its owner. Returns `None` for a socket that no process holds any more: the
/// kernel reports user 0 as its owner, and not the user that it belonged to.
fn entry(line: &str) -> Option<(Pair, u32)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
    // State, queues, timer, retransmissions; then the user, a time-out and the inode.
    let user = fields.nth(4)?.parse().ok()?;
    let inode: u64 = fields.nth(1)?.parse().ok()?;
    (inode != 0).then_some(((local, remote), user))
}

/// An address of the table: words of 32 bits as they are in memory, in hexadecimal digits, and the port.
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
            // The kernel would say that what no process holds belongs to root.
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
