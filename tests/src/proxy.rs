//! A TCP proxy between the host and the emulator that spoils connections: it cuts, stalls, delays, duplicates and swallows.
//! What it does to the connections that are opened while it is told to follows from a seed, in their order.
//!
//! It does what a network can do under TLS: bytes are late, or end, or the whole of what the host says comes a second time on
//! another connection. Bytes that are wrong or missing in the middle of a connection are what TCP and TLS rule out, and
//! nothing above could tell them from right ones.

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

/// Connections of one case that are spoiled at most; those after them are good, so that trying again can help.
const MOST_SPOILED: u32 = 4;

/// What happens to a connection: to one of its directions from an offset of its bytes on, or to all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoil {
    /// The connection ends.
    Cut,
    /// Nothing moves for so long.
    Stall(Duration),
    /// Each piece from there on is late by so long.
    Delay(Duration),
    /// All that the host says comes a second time, on a connection whose answers are dropped.
    Duplicate,
    /// Nothing comes any more, and the connection stays.
    Swallow,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    spoil: Spoil,
    at: u64,
    /// The direction: what the emulator says, or else what the host says.
    of_answers: bool,
}

#[derive(Debug)]
struct Orders {
    random: StdRng,
    size: u64,
    left: u32,
    /// A connection that is silent for good is noticed after many seconds: one of a case is enough.
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
        // Where calls begin, as often as in the middle of what they move.
        let reach = if random.random_bool(0.5) { 3000 } else { self.size + 3000 };
        Some(Plan { spoil, at: random.random_range(0..reach), of_answers: random.random_bool(0.5) })
    }
}

/// See the head of this file. It ends when it is dropped, with its connections.
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
    /// Starts one that leads nowhere yet and spoils nothing.
    ///
    /// # Panics
    ///
    /// When there is no port left.
    pub async fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(accept(listener, shared.clone()));
        Proxy { address, shared, task }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads connections there.
    pub fn lead_to(&self, address: SocketAddr) {
        *self.shared.to.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// Spoils connections that are opened from now on, of flows that move about `size` bytes.
    pub fn spoil(&self, seed: u64, size: usize) {
        let orders =
            Orders { random: StdRng::seed_from_u64(seed), size: size as u64, left: MOST_SPOILED, silent: false };
        *self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(orders);
    }

    /// Spoils no further connections.
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

/// Passes a connection on; both ends see its end when either direction fails.
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
            // Its end is not that of the connection.
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
                    // Read on: a full pipe would tell the other end that something is wrong.
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
