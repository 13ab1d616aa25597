//! Process 1 of a container.
//!
//! It builds the root ([`super::build_root`]), then does three things for ever: start processes, collect ended ones, and pass
//! signals on, all on the engine's word. It has one thread and no runtime, so it may fork as it likes. When the socket to
//! the engine closes it ends, and the kernel ends everything else in the container with it: nothing outlives the emulator,
//! whatever became of that.
//!
//! It trusts nothing in the container: whatever may block or lie (account files, directories, programs) is touched only by
//! the forked child ([`super::launch`]), which harms only itself.

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

/// Limit of open files that programs start with; what container engines give.
const OPEN_FILES: u64 = 65_536;

/// Times that a session is looked through for new members while it is killed: one that forks faster than that is a fork
/// bomb and wants [`crate::Container::stop`].
const KILL_ROUNDS: usize = 8;

struct Init {
    socket: OwnedFd,
    /// The directory of the container's own terminals. Held open: names in the container may be changed by it.
    terminals: OwnedFd,
    all_ids: bool,
    running: HashMap<i32, u64>,
}

/// Runs the role. Never returns.
pub(crate) fn main() -> ! {
    std::process::exit(i32::from(run().is_err()))
}

fn run() -> Result<(), String> {
    // Processes inside must neither read this one's descriptors nor trace it, nor reach its program. Its forks inherit that,
    // and are shown only when they execute a program of the container: the kernel resets it then.
    nix::sys::prctl::set_dumpable(false).map_err(|error| error.to_string())?;
    // It was executed by descriptor, so the kernel knows no name for it.
    let _ = nix::sys::prctl::set_name(c"modal-emulator");
    // The engine put its socket there before it executed this program.
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
        if spoken && !inbox.receive_some(init.socket.as_raw_fd()).map_err(|error| error.to_string())? {
            return Ok(());
        }
    }
}

fn prepare(setup: &Setup) -> Result<(OwnedFd, build_root::Built), String> {
    let built = build_root::build(setup)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let terminals = nix::fcntl::open("/dev/pts", flags, Mode::empty()).map_err(|error| format!("/dev/pts: {error}"))?;
    // Hides the emulator's place in the control groups; a kernel without them has nothing to hide.
    let _ = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP);
    // Away from the keys of the user that started the engine.
    sys::join_own_keyring();
    // While there are the capabilities for it: programs that change their user shall go on doing so.
    syscall_filter::install().map_err(|error| format!("system call filter: {error}"))?;
    capabilities::limit(setup.user_namespace).map_err(|error| format!("capabilities: {error}"))?;
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let limit = OPEN_FILES.min(hard);
        let _ = setrlimit(Resource::RLIMIT_NOFILE, limit, limit);
    }
    // Not zero: that keeps files from being written, but not the machine's crash handler from being called. One does.
    let _ = setrlimit(Resource::RLIMIT_CORE, 1, 1);
    if !setup.all_ids {
        // Counted per user namespace, so it bounds this container alone. Root of the machine is exempt from it, and there
        // has control groups.
        let _ = setrlimit(Resource::RLIMIT_NPROC, MOST_PROCESSES.into(), MOST_PROCESSES.into());
    }
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    // Signals that the engine was told to ignore are not ignored in its containers.
    sys::reset_signals();
    Ok((terminals, built))
}

impl Init {
    fn reply(&self, reply: &Reply, fds: &[RawFd]) {
        // An engine that is gone shows as the end of the stream in the main loop.
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

    fn collect(&mut self) {
        loop {
            // Not nix's: it loses processes that a real-time signal ended.
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

/// Signals the group that `pid` leads, itself should it not lead one yet, and what of its session made groups of its own.
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

/// Processes of the session that `leader` leads but not of its group.
fn session_members(leader: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let member = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read(entry.path().join("stat")).ok()?;
        // The name in parentheses may contain anything; what follows the last one does not.
        let after = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
        let after = String::from_utf8_lossy(after);
        let mut fields = after.split_ascii_whitespace().skip(2);
        let (group, session) = (fields.next()?.parse::<i32>().ok()?, fields.next()?.parse::<i32>().ok()?);
        (session == leader && group != leader).then_some(pid)
    };
    entries.flatten().filter_map(member).collect()
}
