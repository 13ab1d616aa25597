//! Init, process 1 of a container.
//!
//! It builds the root ([`super::build_root`]). Then it serves the engine's requests until the end: it starts processes,
//! reaps ended ones, and sends signals. It has a single thread and no runtime, so it may fork at any time. When the
//! socket to the engine is closed, init exits, and the kernel kills all other processes of the container. So no process
//! outlives the emulator, however that ended.
//!
//! Init trusts nothing in the container: only the forked child ([`super::launch`]) accesses what may block or be
//! malicious (account files, directories, programs), so that only this child is affected.

use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        socket::{AddressFamily, SockFlag, SockType, socket},
        stat::Mode,
    },
};

use rustix::process::{WaitOptions, wait};

use super::{
    build_root, capabilities,
    launch::{self, Terminal},
    syscall_filter,
};
use crate::{
    cgroups::MOST_PROCESSES,
    protocol::{Inbox, Reply, Request, Setup, send_blocking},
    spec::{Exit, ProcessSpec},
    sys::{self, Fork},
};

/// Limit of open files for processes; the value that container engines use.
const OPEN_FILES: u64 = 65_536;

/// How often a killed session is searched for new members. A session that forks faster than that is a fork bomb, which
/// needs [`crate::Container::stop`].
const KILL_ROUNDS: usize = 8;

struct Init {
    socket: OwnedFd,
    /// The container's `/dev/pts` directory. Kept open, because processes in the container can change what the path
    /// refers to.
    terminals: OwnedFd,
    all_ids: bool,
    running: HashMap<i32, u64>,
}

/// Runs init. Never returns.
pub(crate) fn main() -> ! {
    std::process::exit(i32::from(run().is_err()))
}

fn run() -> Result<(), String> {
    // Processes in the container must not trace this process or access its descriptors or its program. Forks inherit
    // this; the kernel resets it when they execute a program of the container.
    nix::sys::prctl::set_dumpable(false).map_err(|error| error.to_string())?;
    // The program was executed by descriptor, so the kernel has no name for the process.
    let _ = nix::sys::prctl::set_name(c"modal-emulator");
    // The spawner placed the socket at this descriptor before it executed the program.
    let socket = sys::take_inherited(sys::CONTROL_FD).map_err(|error| error.to_string())?;
    let close_on_exec = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    nix::fcntl::fcntl(&socket, close_on_exec).map_err(|error| error.to_string())?;
    let mut inbox = Inbox::default();
    let setup = match inbox.receive_blocking::<Request>(&socket) {
        Ok(Some((Request::Setup(setup), _))) => setup,
        _ => return Err("no setup".into()),
    };
    let (terminals, built) = match prepare(&setup) {
        Ok(prepared) => prepared,
        Err(failure) => {
            let _ = send_blocking(socket.as_raw_fd(), &Reply::Failed(failure.clone()), &[]);
            return Err(failure);
        }
    };
    let mut init = Init { socket, terminals, all_ids: setup.all_ids, running: HashMap::new() };
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().map_err(|error| error.to_string())?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|error| error.to_string())?;
    {
        let build_root::Built { missing, device, written } = built;
        let fds: Vec<RawFd> =
            [device.as_ref(), written.as_ref()].into_iter().flatten().map(AsRawFd::as_raw_fd).collect();
        init.reply(&Reply::Ready(missing), &fds);
    }

    loop {
        while let Some((request, fds)) = inbox.take::<Request>().map_err(|error| error.to_string())? {
            init.serve(request, fds);
        }
        let mut ready =
            [PollFd::new(init.socket.as_fd(), PollFlags::POLLIN), PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::NONE).is_err() {
            continue;
        }
        let woken = |fd: &PollFd| fd.revents().is_some_and(|events| !events.is_empty());
        let (spoken, ended) = (woken(&ready[0]), woken(&ready[1]));
        if ended {
            while let Ok(Some(_)) = children.read_signal() {}
            init.collect();
        }
        if spoken && !inbox.receive_some(&init.socket).map_err(|error| error.to_string())? {
            return Ok(());
        }
    }
}

/// Builds the root, then drops privileges and sets resource limits. Returns the `/dev/pts` directory and the built root.
fn prepare(setup: &Setup) -> Result<(OwnedFd, build_root::Built), String> {
    let built = build_root::build(setup)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let terminals = nix::fcntl::open("/dev/pts", flags, Mode::empty()).map_err(|error| format!("/dev/pts: {error}"))?;
    // Hides the emulator's path in the control groups. Fails only if the kernel has no cgroup namespaces, and then it is
    // ignored.
    let _ = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP);
    // Leaves the session keyring of the user that started the engine.
    sys::join_own_keyring();
    // Installed while init has `CAP_SYS_ADMIN`, so that `no_new_privs` is not needed and set-user-ID programs still work.
    syscall_filter::install().map_err(|error| format!("system call filter: {error}"))?;
    capabilities::limit(setup.user_namespace).map_err(|error| format!("capabilities: {error}"))?;
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let limit = OPEN_FILES.min(hard);
        let _ = setrlimit(Resource::RLIMIT_NOFILE, limit, limit);
    }
    // Not 0: with 0, no core file is written, but the machine's core pattern handler is still called. With 1, it is not.
    let _ = setrlimit(Resource::RLIMIT_CORE, 1, 1);
    if !setup.all_ids {
        // Counted per user namespace, so this limits only this container. The machine's root is exempt, but has control
        // groups.
        let _ = setrlimit(Resource::RLIMIT_NPROC, MOST_PROCESSES.into(), MOST_PROCESSES.into());
    }
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    // Signals that were ignored when the engine was started must not be ignored in containers.
    sys::reset_signals();
    Ok((terminals, built))
}

impl Init {
    fn reply(&self, reply: &Reply, fds: &[RawFd]) {
        // If the engine is gone, the main loop sees the end of the stream.
        let _ = send_blocking(self.socket.as_raw_fd(), reply, fds);
    }

    fn serve(&mut self, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Setup(_) => {}
            Request::Spawn { id, spec } => {
                if let Err(error) = self.start(id, &spec, fds) {
                    self.reply(&Reply::Refused { id, message: error.desc().to_owned() }, &[]);
                }
            }
            Request::Kill { pid, signal } => kill(pid, signal),
            Request::Socket { id, ipv6 } => {
                let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
                let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
                match socket(family, SockType::Stream, flags, None) {
                    Ok(made) => self.reply(&Reply::Socket { id }, &[made.as_raw_fd()]),
                    Err(error) => self.reply(&Reply::Refused { id, message: error.desc().to_owned() }, &[]),
                }
            }
        }
    }

    /// Starts a process: forks, and lets the child become the process.
    fn start(&mut self, id: u64, spec: &ProcessSpec, fds: Vec<OwnedFd>) -> nix::Result<()> {
        let terminal = match spec.pty {
            Some((rows, columns)) => Some(Terminal::open(&self.terminals, rows, columns)?),
            None if fds.len() == 3 => None,
            None => return Err(Errno::EINVAL),
        };
        match sys::fork()? {
            Fork::Child(child) => launch::run(spec, terminal, &fds, self.all_ids, child),
            Fork::Parent(child) => {
                self.running.insert(child, id);
                let master = terminal.as_ref().map(|terminal| terminal.master.as_raw_fd());
                self.reply(&Reply::Started { id, pid: child }, master.as_slice());
                Ok(())
            }
        }
    }

    /// Reaps ended processes and reports those that the engine started.
    fn collect(&mut self) {
        loop {
            // Not `nix`'s `wait`, which loses processes that were killed by a real-time signal.
            let (pid, status) = match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => (pid.as_raw_nonzero().get(), status),
                Err(rustix::io::Errno::INTR) => continue,
                Ok(None) | Err(_) => return,
            };
            let exit = match status.terminating_signal() {
                Some(signal) => Exit::Signal(signal),
                None => Exit::Code(status.exit_status().unwrap_or_default()),
            };
            if let Some(id) = self.running.remove(&pid) {
                self.reply(&Reply::Exited { id, exit }, &[]);
            }
        }
    }
}

/// Sends a signal to the process group of `pid`, or to `pid` itself if it does not lead a group yet, and to all other
/// members of its session.
fn kill(pid: i32, signal: i32) {
    let send = |to: i32| sys::kill(to, signal);
    if pid <= 1 {
        return;
    }
    if !send(-pid) {
        send(pid);
    }
    let mut sent = Vec::new();
    for _ in 0..KILL_ROUNDS {
        let others: Vec<i32> = session_members(pid).into_iter().filter(|other| !sent.contains(other)).collect();
        if others.is_empty() {
            return;
        }
        others.iter().for_each(|other| {
            send(*other);
        });
        sent.extend(others);
        if signal != libc::SIGKILL {
            return;
        }
    }
}

/// Returns the processes of a session that are not in the process group of its leader.
fn session_members(leader: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let member = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read(entry.path().join("stat")).ok()?;
        // The process name in parentheses may contain any characters, so fields are parsed from the last parenthesis on.
        let after = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
        let after = String::from_utf8_lossy(after);
        let mut fields = after.split_ascii_whitespace().skip(2);
        let (group, session) = (fields.next()?.parse::<i32>().ok()?, fields.next()?.parse::<i32>().ok()?);
        (session == leader && group != leader).then_some(pid)
    };
    entries.flatten().filter_map(member).collect()
}
