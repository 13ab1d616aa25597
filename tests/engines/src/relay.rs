//! Connects the network namespace of an engine with the machine: the API and published ports outwards, chosen ports of the
//! machine inwards. Each accepted connection has two threads, which copy bytes until both directions have ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::listeners::Listeners;

/// The address at which containers reach the ports of [`Engine::reach`](crate::Engine::reach). It belongs to a range for
/// documentation, so it counts as a public address that exists nowhere else.
pub const WORLD: &str = "203.0.113.1";

/// Size of one read. Larger ones did not copy faster.
const CHUNK: usize = 64 << 10;

/// Where the API of the engine listens.
#[derive(Debug)]
pub(crate) enum Target {
    /// A Unix socket.
    Unix(PathBuf),
    /// A port of 127.0.0.1 in the engine's namespace.
    Port(u16),
}

/// A range of ports that one engine may publish, apart from those of all other engines. A port that stays bound on the
/// machine is the lock.
#[derive(Debug)]
pub(crate) struct Slot {
    _lock: TcpListener,
    first: u16,
}

impl Slot {
    /// Number of ports of one engine. More than fifty engines can run at a time.
    const SIZE: u16 = 400;

    /// Takes a free range below the ports that the kernel gives to outgoing connections.
    ///
    /// # Errors
    ///
    /// Fails if all ranges are taken.
    pub(crate) fn take() -> io::Result<Self> {
        (10_000..32_000)
            .step_by(usize::from(Self::SIZE))
            .find_map(|base| {
                let lock = TcpListener::bind((Ipv4Addr::LOCALHOST, base)).ok()?;
                Some(Self { _lock: lock, first: base + 1 })
            })
            .ok_or_else(|| io::Error::other("all ranges of ports are taken by other engines"))
    }

    /// Returns the first and the last port, as the kernel's setting for a namespace.
    pub(crate) fn range(&self) -> String {
        format!("{} {}", self.first, self.first + Self::SIZE - 2)
    }
}

/// The open connections between a namespace and the machine. It accepts no more of them after it has been dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    shared: Arc<Shared>,
    listeners: Mutex<Vec<Service>>,
}

/// What the threads of a relay share.
#[derive(Debug)]
struct Shared {
    /// The engine's network namespace.
    engine: File,
    /// The list of ports of the namespace.
    listeners: Mutex<Listeners>,
    target: Target,
    /// The published ports. `None` for one that another program has on the machine.
    published: Mutex<BTreeMap<u16, Option<Service>>>,
    /// Ports of the namespace that are not published.
    hidden: Mutex<BTreeSet<u16>>,
}

impl Relay {
    /// Creates a relay for the namespace of the process `pid`.
    ///
    /// # Errors
    ///
    /// Fails if the process has ended or the caller may not enter its namespace.
    pub(crate) fn new(pid: u32, target: Target) -> io::Result<Self> {
        let engine = space(pid)?;
        let listeners = inside(&engine, Listeners::open)?;
        let hidden = match target {
            Target::Port(port) => BTreeSet::from([port]),
            Target::Unix(_) => BTreeSet::new(),
        };
        let shared = Shared {
            engine,
            listeners: Mutex::new(listeners),
            target,
            published: Mutex::default(),
            hidden: Mutex::new(hidden),
        };
        Ok(Self { shared: Arc::new(shared), listeners: Mutex::default() })
    }

    /// Opens the API on a free port of 127.0.0.1 and returns the port.
    ///
    /// # Errors
    ///
    /// Fails if the machine has no free port.
    pub(crate) fn open_port(&self) -> io::Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        self.open_api(Listener::Tcp(listener));
        Ok(port)
    }

    /// Opens the API on a Unix socket.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be created.
    pub(crate) fn open_socket(&self, path: &Path) -> io::Result<()> {
        self.open_api(Listener::Unix(UnixListener::bind(path)?));
        Ok(())
    }

    fn open_api(&self, listener: Listener) {
        let shared = Arc::clone(&self.shared);
        let service = Service::start(listener, move |client| {
            let server = match &shared.target {
                Target::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
                Target::Port(port) => shared.connect_inside(*port).map(Stream::Tcp),
            };
            let Ok(server) = server else { return };
            // Encrypted answers have no visible beginning.
            let encrypted = matches!(shared.target, Target::Port(_));
            let ports = Arc::clone(&shared);
            join(client, server, move |bytes| {
                if encrypted || bytes.starts_with(b"HTTP/") {
                    ports.publish();
                }
            });
        });
        lock(&self.listeners).push(service);
    }

    /// Opens a port of the machine's 127.0.0.1 in the namespace, at all addresses.
    ///
    /// # Errors
    ///
    /// Fails if the port is in use there.
    pub(crate) fn reach(&self, port: u16) -> io::Result<()> {
        lock(&self.shared.hidden).insert(port);
        let listener = inside(&self.shared.engine, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
        let service = Service::start(Listener::Tcp(listener), move |client| {
            if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                join(client, Stream::Tcp(server), |_| ());
            }
        });
        lock(&self.listeners).push(service);
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        lock(&self.shared.published).clear();
    }
}

impl Shared {
    fn connect_inside(&self, port: u16) -> io::Result<TcpStream> {
        inside(&self.engine, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
    }

    /// Opens the ports on the machine on which the namespace listens now, and closes those on which it no longer does.
    fn publish(self: &Arc<Self>) {
        let mut published = lock(&self.published);
        let now = match lock(&self.listeners).local_ports() {
            Ok(ports) => ports,
            Err(error) => return eprintln!("the published ports are unknown: {error}"),
        };
        let hidden = lock(&self.hidden).clone();
        published.retain(|port, _| now.contains(port));
        for port in now.difference(&hidden) {
            published.entry(*port).or_insert_with(|| {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port));
                let listener =
                    listener.inspect_err(|error| eprintln!("the published port {port} stays closed: {error}"));
                let (port, shared) = (*port, Arc::downgrade(self));
                Some(Service::start(Listener::Tcp(listener.ok()?), move |client| {
                    let server = shared.upgrade().and_then(|shared| shared.connect_inside(port).ok());
                    if let Some(server) = server {
                        join(client, Stream::Tcp(server), |_| ());
                    }
                }))
            });
        }
    }
}

/// Returns whether a port of 127.0.0.1 accepts connections in the network namespace of a process.
pub(crate) fn listens(pid: u32, port: u16) -> bool {
    space(pid).is_ok_and(|space| inside(&space, || TcpStream::connect((Ipv4Addr::LOCALHOST, port))).is_ok())
}

/// Opens the network namespace of a process.
fn space(pid: u32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/ns/net"))
}

/// Runs `work` in a network namespace. Sockets stay in the namespace in which they are created.
fn inside<T: Send>(space: &File, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    // The calling thread may belong to a test, and a failed return would leave it in the wrong namespace.
    let enter = || {
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    thread::scope(|scope| scope.spawn(enter).join())
        .unwrap_or_else(|_| Err(io::Error::other("a thread of the relay failed")))
}

/// A listening socket with the thread that accepts its connections. The socket is closed when it is dropped.
#[derive(Debug)]
struct Service {
    listener: Arc<Listener>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Calls `serve` in a new thread for each connection.
    fn start(listener: Listener, serve: impl Fn(Stream) + Send + Sync + 'static) -> Self {
        let listener = Arc::new(listener);
        let (accepting, serve) = (Arc::clone(&listener), Arc::new(serve));
        let thread = thread::spawn(move || {
            while let Ok(stream) = accepting.accept() {
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self { listener, thread: Some(thread) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Linux ends a waiting `accept` with an error.
        let _ = rustix::net::shutdown(self.listener.as_fd(), rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Accepts a connection. Repeats after errors that belong to one connection.
    fn accept(&self) -> io::Result<Stream> {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
                Self::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
            };
            match accepted {
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                other => return other,
            }
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => {
                // Small messages go back and forth.
                stream.set_nodelay(true)?;
                stream.try_clone().map(Self::Tcp)
            }
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }

    fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }
}

/// Copies in both directions until both have ended. `answer` sees each chunk from the server before the client does.
fn join(client: Stream, server: Stream, answer: impl FnMut(&[u8]) + Send + 'static) {
    let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
    let requests = thread::spawn(move || copy(from_client, to_server, |_| ()));
    copy(server, client, answer);
    let _ = requests.join();
}

/// Copies in one direction. The end of the input ends the output; an error ends both connections.
fn copy(mut from: Stream, mut to: Stream, mut see: impl FnMut(&[u8])) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return to.shutdown(Shutdown::Write),
            Ok(count) => {
                see(&buffer[..count]);
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    from.shutdown(Shutdown::Both);
    to.shutdown(Shutdown::Both);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_two_engines_differ() {
        let (one, two) = (Slot::take().expect("no range"), Slot::take().expect("no range"));
        assert_ne!(one.range(), two.range());
    }

    #[test]
    fn the_end_of_a_request_leaves_its_answer() {
        let (mut client, inner) = UnixStream::pair().expect("no pair");
        let (outer, mut server) = UnixStream::pair().expect("no pair");
        let relay = thread::spawn(move || join(Stream::Unix(inner), Stream::Unix(outer), |_| ()));
        client.write_all(b"question").expect("cannot write");
        client.shutdown(Shutdown::Write).expect("cannot shut down");
        let mut text = String::new();
        server.read_to_string(&mut text).expect("cannot read");
        assert_eq!(text, "question");
        server.write_all(b"answer").expect("cannot write");
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).expect("cannot read");
        assert_eq!(text, "answer");
        relay.join().expect("the relay failed");
    }
}
