//! A proxy between a provider and its service that cuts, delays, stalls and refuses connections.
//!
//! It is an HTTP proxy (CONNECT) on the loopback address, so it works for every service that a component reaches: by
//! HTTPS, by plain HTTP, and by a Unix socket, which the host names by the host name that the component uses for it. What
//! it does to each connection is derived from a seed, in the order in which the connections are opened. It does only what
//! a network can do below TLS: bytes arrive late, or stop.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Largest number of connections that are damaged for one seed. Later connections work, so that a retry can succeed.
const MAX_DAMAGED_CONNECTIONS: u32 = 4;

/// Largest size of the head of a CONNECT request, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// It is not opened.
    Refuse,
    /// It is closed.
    Cut,
    /// Nothing is passed on for this time.
    Stall(Duration),
    /// Each piece is delayed by this time.
    Delay(Duration),
    /// Nothing is passed on any more, and the connection stays open.
    Swallow,
}

/// The damage to one connection, to one direction from a byte offset on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) damage: Damage,
    /// Number of bytes of the direction that pass unharmed.
    pub(crate) at: u64,
    /// The damaged direction: from the service to the provider if set, otherwise from the provider to the service.
    pub(crate) of_answers: bool,
}

/// What is done to new connections.
#[derive(Debug, Default)]
enum Orders {
    /// Nothing.
    #[default]
    Pass,
    /// All are refused.
    RefuseAll,
    /// All suffer this.
    All(Plan),
    /// The next one suffers this, and later ones nothing.
    Once(Plan),
    /// The first few suffer what the seed says. `size` is the number of bytes that the operation moves.
    Random { random: Box<StdRng>, size: u64, left: u32 },
}

impl Orders {
    fn next(&mut self) -> Option<Plan> {
        match self {
            Orders::Pass => None,
            Orders::RefuseAll => Some(Plan { damage: Damage::Refuse, at: 0, of_answers: false }),
            Orders::All(plan) => Some(*plan),
            Orders::Once(plan) => {
                let plan = *plan;
                *self = Orders::Pass;
                Some(plan)
            }
            Orders::Random { random, size, left } => {
                *left = left.checked_sub(1)?;
                let damage = match random.random_range(0..10) {
                    0..5 => Damage::Cut,
                    5 => Damage::Refuse,
                    6 | 7 => Damage::Stall(Duration::from_millis(random.random_range(1..2000))),
                    _ => Damage::Delay(Duration::from_millis(random.random_range(1..30))),
                };
                // Half of the offsets are near the start of a connection, where calls begin. The others are anywhere in
                // the data.
                let reach = if random.random_bool(0.5) { 3000 } else { *size + 3000 };
                Some(Plan { damage, at: random.random_range(0..reach), of_answers: random.random_bool(0.5) })
            }
        }
    }
}

/// The Unix sockets behind targets of the form `HOST:PORT`.
pub(crate) type Sockets = HashMap<String, PathBuf>;

/// A running proxy. Dropping it ends the proxy and its connections.
pub(crate) struct Gate {
    address: SocketAddr,
    orders: Arc<Mutex<Orders>>,
    task: tokio::task::JoinHandle<()>,
}

impl Gate {
    /// Starts a proxy on a free port, which connects to these Unix sockets by name. It damages nothing yet.
    pub(crate) async fn open(sockets: Sockets) -> io::Result<Gate> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let orders = Arc::<Mutex<Orders>>::default();
        let task = tokio::spawn(accept(listener, orders.clone(), Arc::new(sockets)));
        Ok(Gate { address, orders, task })
    }

    /// Returns the URL of the proxy.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Damages the next few connections as the seed says. `size` is the number of bytes that the operation moves.
    pub(crate) fn damage(&self, seed: u64, size: usize) {
        let random = Box::new(StdRng::seed_from_u64(seed));
        *self.orders() = Orders::Random { random, size: size as u64, left: MAX_DAMAGED_CONNECTIONS };
    }

    /// Damages the next connection in this way.
    pub(crate) fn damage_once(&self, plan: Plan) {
        *self.orders() = Orders::Once(plan);
    }

    /// Damages all new connections in this way.
    pub(crate) fn damage_all(&self, plan: Plan) {
        *self.orders() = Orders::All(plan);
    }

    /// Refuses all new connections.
    pub(crate) fn refuse(&self) {
        *self.orders() = Orders::RefuseAll;
    }

    /// Leaves new connections alone.
    pub(crate) fn calm(&self) {
        *self.orders() = Orders::Pass;
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, orders: Arc<Mutex<Orders>>, sockets: Arc<Sockets>) {
    let mut passing = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                let plan = orders.lock().unwrap_or_else(PoisonError::into_inner).next();
                tracing::debug!(?plan, "a connection through the proxy");
                passing.spawn(pass(near, plan, sockets.clone()));
            }
            Some(_) = passing.join_next() => {}
        }
    }
}

/// Opens the connection that the client asks for, and passes data on.
async fn pass(mut near: TcpStream, plan: Option<Plan>, sockets: Arc<Sockets>) -> io::Result<()> {
    near.set_nodelay(true)?;
    let Some(target) = target(&mut near).await? else {
        return near.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n").await;
    };
    if plan.is_some_and(|plan| plan.damage == Damage::Refuse) {
        return near.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
    }
    if let Some(path) = sockets.get(&target) {
        return relay(near, UnixStream::connect(path).await, plan).await;
    }
    let far = TcpStream::connect(target).await;
    if let Ok(far) = &far {
        far.set_nodelay(true)?;
    }
    relay(near, far, plan).await
}

/// Tells the client whether the connection to the service is open, and passes data on. Closes both sides when either
/// direction fails.
async fn relay(
    mut near: TcpStream,
    far: io::Result<impl AsyncRead + AsyncWrite + Unpin>,
    plan: Option<Plan>,
) -> io::Result<()> {
    let Ok(far) = far else {
        return near.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
    };
    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let ((near_in, near_out), (far_in, far_out)) = (tokio::io::split(near), tokio::io::split(far));
    let of = |answers: bool| plan.filter(|plan| plan.of_answers == answers);
    tokio::try_join!(direction(near_in, far_out, of(false)), direction(far_in, near_out, of(true)))?;
    Ok(())
}

/// Reads the head of a CONNECT request and returns its target, or `None` for another request.
async fn target(near: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    // Byte by byte, because what follows the head belongs to the connection.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Ok(None);
        }
        head.push(near.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split_ascii_whitespace();
    Ok(words.next().filter(|method| *method == "CONNECT").and_then(|_| words.next()).map(str::to_owned))
}

async fn direction(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    plan: Option<Plan>,
) -> io::Result<()> {
    let mut piece = vec![0; 16 << 10];
    let (mut passed, mut reached) = (0, false);
    loop {
        let size = from.read(&mut piece).await?;
        if size == 0 {
            return to.shutdown().await;
        }
        let data = &piece[..size];
        let Some(plan) = plan.filter(|plan| plan.at < passed + size as u64) else {
            to.write_all(data).await?;
            passed += size as u64;
            continue;
        };
        let (before, after) = data.split_at(usize::try_from(plan.at.saturating_sub(passed)).unwrap_or(0));
        to.write_all(before).await?;
        let first = !std::mem::replace(&mut reached, true);
        match plan.damage {
            Damage::Delay(time) => tokio::time::sleep(time).await,
            Damage::Stall(time) if first => tokio::time::sleep(time).await,
            Damage::Stall(_) | Damage::Refuse => {}
            Damage::Cut => return Err(io::ErrorKind::ConnectionAborted.into()),
            Damage::Swallow => {
                // Keeps reading, because a full buffer would show the sender that something is wrong.
                while from.read(&mut piece).await? > 0 {}
                return to.shutdown().await;
            }
        }
        to.write_all(after).await?;
        passed += size as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("cannot bind a port");
        let address = listener.local_addr().expect("no address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    /// Sends data through the gate, and returns the answer to CONNECT and what came back.
    async fn send(gate: &Gate, to: impl std::fmt::Display, data: &[u8]) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(gate.address).await.expect("cannot connect");
        stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n").as_bytes()).await.expect("cannot ask");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("no answer"));
        }
        let _ = stream.write_all(data).await;
        let _ = stream.shutdown().await;
        let mut back = Vec::new();
        let _ = stream.read_to_end(&mut back).await;
        (String::from_utf8(head).expect("not UTF-8"), back)
    }

    #[tokio::test]
    async fn connections_pass_and_are_damaged_as_ordered() {
        let (gate, to) = (Gate::open(Sockets::new()).await.expect("no port"), echo().await);
        assert_eq!(send(&gate, to, b"word").await, ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), b"word".to_vec()));
        gate.refuse();
        assert!(send(&gate, to, b"word").await.0.starts_with("HTTP/1.1 503"));
        let plan = Plan { damage: Damage::Cut, at: 2, of_answers: true };
        gate.damage_once(plan);
        assert_eq!(send(&gate, to, b"word").await.1, b"wo");
        assert_eq!(send(&gate, to, b"word").await.1, b"word");
        gate.damage_all(Plan { damage: Damage::Delay(Duration::from_millis(1)), ..plan });
        for _ in 0..2 {
            assert_eq!(send(&gate, to, b"word").await.1, b"word");
        }
    }

    #[tokio::test]
    async fn a_unix_socket_is_reached_and_damaged_by_its_name() {
        let folder = tempfile::tempdir().expect("no directory");
        let path = folder.path().join("engine.sock");
        let listener = tokio::net::UnixListener::bind(&path).expect("cannot bind a socket");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let name = "engine.sock.localhost:80";
        let gate = Gate::open(Sockets::from([(name.to_owned(), path)])).await.expect("no port");
        assert_eq!(send(&gate, name, b"word").await, ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), b"word".to_vec()));
        gate.damage_once(Plan { damage: Damage::Cut, at: 2, of_answers: true });
        assert_eq!(send(&gate, name, b"word").await.1, b"wo");
        drop(folder);
        assert!(send(&gate, name, b"word").await.0.starts_with("HTTP/1.1 502"));
    }

    #[test]
    fn a_seed_repeats_its_damage() {
        let plans = |seed| {
            let mut orders = Orders::Random { random: Box::new(StdRng::seed_from_u64(seed)), size: 1000, left: 4 };
            std::iter::from_fn(|| orders.next().map(|plan| format!("{plan:?}"))).collect::<Vec<_>>()
        };
        assert_eq!(plans(1).len(), 4);
        assert_eq!(plans(1), plans(1));
        assert_ne!(plans(1), plans(2));
    }
}
