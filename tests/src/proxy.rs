//! A TCP proxy between the host and the emulator that damages connections: it cuts, stalls, delays, duplicates and
//! swallows. The damage to each new connection is derived from a seed, in the order in which the connections are
//! opened.
//!
//! It does only what a network can do below TLS: bytes arrive late or stop, or all bytes of the host arrive a second
//! time on another connection. TCP and TLS rule out wrong or missing bytes within a connection, and no layer above
//! could detect them.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Largest number of connections that are damaged in one case. Later connections work, so that a retry can succeed.
const MAX_SPOILED_CONNECTIONS: u32 = 4;

/// The damage to a connection: to one direction from a byte offset on, or to both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoil {
    /// The connection is closed.
    Cut,
    /// Nothing is passed on for this time.
    Stall(Duration),
    /// Each piece after the offset is delayed by this time.
    Delay(Duration),
    /// The bytes of the host are also sent on a second connection, whose answers are discarded.
    Duplicate,
    /// Nothing is passed on any more, and the connection stays open.
    Swallow,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    spoil: Spoil,
    at: u64,
    /// The damaged direction: from the emulator to the host if set, otherwise from the host to the emulator.
    of_answers: bool,
}

#[derive(Debug)]
struct Orders {
    random: StdRng,
    size: u64,
    left: u32,
    /// Whether a connection has been swallowed already. Clients notice that only after many seconds, so one per case is
    /// enough.
    silent: bool,
}

impl Orders {
    fn next(&mut self) -> Option<Plan> {
        self.left = self.left.checked_sub(1)?;
        let random = &mut self.random;
        let spoil = match random.random_range(0..12) {
            0..4 => Spoil::Cut,
            4 | 5 => Spoil::Stall(Duration::from_millis(random.random_range(1..3000))),
            6 | 7 => Spoil::Delay(Duration::from_millis(random.random_range(1..30))),
            8..11 => Spoil::Duplicate,
            _ if std::mem::replace(&mut self.silent, true) => Spoil::Cut,
            _ => Spoil::Swallow,
        };
        // Half of the offsets are near the start of a connection, where calls begin; the others are anywhere in the
        // transferred data.
        let reach = if random.random_bool(0.5) { 3000 } else { self.size + 3000 };
        Some(Plan { spoil, at: random.random_range(0..reach), of_answers: random.random_bool(0.5) })
    }
}

/// A running proxy. Dropping it ends the proxy and its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    to: Mutex<Option<SocketAddr>>,
    orders: Mutex<Option<Orders>>,
}

impl Proxy {
    /// Starts a proxy without a target. It damages no connections yet.
    ///
    /// # Panics
    ///
    /// Panics if no port is available.
    pub async fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("cannot bind a port");
        let address = listener.local_addr().expect("the socket has no address");
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(accept(listener, shared.clone()));
        Proxy { address, shared, task }
    }

    /// Returns the address on which the proxy listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the address to which new connections are passed on.
    pub fn lead_to(&self, address: SocketAddr) {
        *self.shared.to.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// Damages new connections from now on. `size` is the approximate number of bytes that the operation moves.
    pub fn spoil(&self, seed: u64, size: usize) {
        let orders = Orders {
            random: StdRng::seed_from_u64(seed),
            size: size as u64,
            left: MAX_SPOILED_CONNECTIONS,
            silent: false,
        };
        *self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(orders);
    }

    /// Stops damaging new connections.
    pub fn calm(&self) {
        *self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut passing = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                let to = *shared.to.lock().unwrap_or_else(PoisonError::into_inner);
                let plan = shared.orders.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(Orders::next);
                if let Some(to) = to {
                    passing.spawn(pass(near, to, plan));
                }
            }
            Some(_) = passing.join_next() => {}
        }
    }
}

/// Passes a connection on. Closes both sides when either direction fails.
async fn pass(near: TcpStream, to: SocketAddr, plan: Option<Plan>) -> io::Result<()> {
    let far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let of = |answers: bool| plan.filter(|plan| plan.of_answers == answers);
    let again = match plan {
        Some(Plan { spoil: Spoil::Duplicate, .. }) => Some(TcpStream::connect(to).await?),
        _ => None,
    };
    let (again_in, again_out) = again.map(TcpStream::into_split).unzip();
    let dropped = async {
        if let Some(mut again) = again_in {
            // The end of the second connection must not end the first one.
            let _ = tokio::io::copy(&mut again, &mut tokio::io::sink()).await;
        }
        Ok(())
    };
    tokio::try_join!(
        direction(near_in, far_out, again_out, of(false)),
        direction(far_in, near_out, None, of(true)),
        dropped
    )?;
    Ok(())
}

async fn direction(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut again: Option<OwnedWriteHalf>,
    plan: Option<Plan>,
) -> io::Result<()> {
    let mut piece = vec![0; 16 << 10];
    let (mut passed, mut done) = (0, false);
    loop {
        let size = from.read(&mut piece).await?;
        if size == 0 {
            return to.shutdown().await;
        }
        let mut data = &piece[..size];
        let reached = passed + size as u64;
        if let Some(plan) = plan.filter(|plan| plan.at < reached) {
            let first = !std::mem::replace(&mut done, true);
            let (before, after) = data.split_at(usize::try_from(plan.at.saturating_sub(passed)).unwrap_or(0));
            match plan.spoil {
                Spoil::Delay(time) => tokio::time::sleep(time).await,
                Spoil::Duplicate => {}
                Spoil::Cut => {
                    to.write_all(before).await?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Spoil::Stall(time) => {
                    if first {
                        to.write_all(before).await?;
                        tokio::time::sleep(time).await;
                        data = after;
                    }
                }
                Spoil::Swallow => {
                    to.write_all(before).await?;
                    // The proxy keeps reading, because a full buffer would show the sender that something is wrong.
                    while from.read(&mut piece).await? > 0 {}
                    return to.shutdown().await;
                }
            }
        }
        to.write_all(data).await?;
        if let Some(to) = &mut again
            && to.write_all(data).await.is_err()
        {
            again = None;
        }
        passed = reached;
    }
}
