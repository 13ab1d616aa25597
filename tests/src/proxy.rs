//! A TCP proxy between the host and the emulator that spoils connections: it cuts, stalls, delays, duplicates and swallows.
//! What it does to the connections that are opened while it is told to follows from a seed, in their order.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Connections of one case that are spoiled at most; those after them are good, so that trying again can help.
const MOST_SPOILED: u32 = 4;

/// What happens to one direction of a connection, at an offset of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoil {
    /// The connection ends.
    Cut,
    /// Nothing moves for so long.
    Stall(Duration),
    /// Each piece from there on is late by so long.
    Delay(Duration),
    /// A piece comes twice.
    Duplicate,
    /// So many bytes never come.
    Swallow(u64),
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
            0..3 => Spoil::Cut,
            3 | 4 => Spoil::Stall(Duration::from_millis(random.random_range(1..3000))),
            5 | 6 => Spoil::Delay(Duration::from_millis(random.random_range(1..30))),
            7 | 8 => Spoil::Duplicate,
            9 | 10 => Spoil::Swallow(random.random_range(1..5000)),
            _ if std::mem::replace(&mut self.silent, true) => Spoil::Cut,
            _ => Spoil::Swallow(u64::MAX),
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
    tokio::try_join!(direction(near_in, far_out, of(false)), direction(far_in, near_out, of(true)))?;
    Ok(())
}

async fn direction(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    plan: Option<Plan>,
) -> io::Result<()> {
    let mut piece = vec![0; 16 << 10];
    let (mut passed, mut done) = (0, false);
    let mut swallowing = 0_u64;
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
                _ if !first => {}
                Spoil::Cut => {
                    to.write_all(before).await?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Spoil::Stall(time) => {
                    to.write_all(before).await?;
                    tokio::time::sleep(time).await;
                    data = after;
                }
                Spoil::Duplicate => to.write_all(data).await?,
                Spoil::Swallow(bytes) => {
                    to.write_all(before).await?;
                    (swallowing, data) = (bytes, after);
                }
            }
        }
        let lost = usize::try_from(swallowing).unwrap_or(usize::MAX).min(data.len());
        if swallowing != u64::MAX {
            swallowing -= lost as u64;
        }
        to.write_all(&data[lost..]).await?;
        passed = reached;
    }
}
