//! Starts a container's init: a `clone3` into new namespaces, then `exec` of the program in its inner role.
//!
//! The child is process 1 of its PID namespace from its first instruction on, so there is no process between the engine
//! and it. Between `clone3` and `exec` the child is a fork of a multi-threaded program and may only make system calls, so
//! everything that needs memory is prepared before. It waits for one byte, which is sent when its id maps are written and
//! it is in its control groups.
//!
//! Two mechanisms end init with the engine: the end of the socket's stream, and a parent death signal. The signal is sent
//! when the *thread* that created init ends, so the engine creates all of them on one dedicated thread ([`Spawner`]).

use std::{
    ffi::CString,
    fs,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
};

use rustix::{
    io::Errno,
    process::{Signal, WaitId, WaitIdOptions, waitid},
};

use crate::{sealed_program::Program, sys};

/// `argv[0]` that selects the role of init.
pub(crate) const INIT_NAME: &str = "modal-emulator-init";

/// A running init.
#[derive(Debug)]
pub(crate) struct Init {
    /// A pidfd. It is readable once init has ended; the kernel then has killed all processes of the container.
    pub(crate) pidfd: OwnedFd,
    /// The engine's end of the control socket, non-blocking.
    pub(crate) control: UnixStream,
}

impl Init {
    /// Kills init and thus all processes of the container. Does nothing if init has ended.
    pub(crate) fn kill(pidfd: impl AsFd) {
        let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    }

    /// Reaps init, so that it does not remain as a zombie. Blocks until it has ended.
    pub(crate) fn reap(pidfd: impl AsFd) {
        while let Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
    }
}

/// The parameters of an init.
pub(crate) struct Kind {
    pub(crate) user_namespace: bool,
    pub(crate) all_ids: bool,
    /// Files to which the pid of init is written before it may continue.
    pub(crate) groups: Vec<PathBuf>,
}

/// Returns whether a large range of ids can be mapped into a container: the emulator runs as root and is not itself
/// confined to a few ids.
pub(crate) fn all_ids() -> bool {
    let count = |file: &str| -> u64 {
        let map = fs::read_to_string(file).unwrap_or_default();
        map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
    };
    let may_set_groups = fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "allow");
    nix::unistd::geteuid().is_root()
        && may_set_groups
        && count("/proc/self/uid_map") >= 65_536
        && count("/proc/self/gid_map") >= 65_536
}

/// The thread that creates all inits.
#[derive(Debug)]
pub(crate) struct Spawner {
    jobs: mpsc::Sender<Job>,
}

struct Job {
    kind: Kind,
    answer: Box<dyn FnOnce(io::Result<Init>) + Send>,
}

impl Spawner {
    /// Starts the thread. It ends, and with it every container, when the `Spawner` is dropped.
    pub(crate) fn new(program: Arc<Program>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new().name("containers".into()).spawn(move || {
            for job in queue {
                (job.answer)(start(&program, &job.kind));
            }
        })?;
        Ok(Self { jobs })
    }

    /// Starts an init. `answer` is called on the spawner's thread.
    pub(crate) fn start(&self, kind: Kind, answer: impl FnOnce(io::Result<Init>) + Send + 'static) {
        // The thread ends only after `self`, unless it panics; `answer` is dropped then, which the caller notices.
        let _ = self.jobs.send(Job { kind, answer: Box::new(answer) });
    }
}

fn start(program: &Program, kind: &Kind) -> io::Result<Init> {
    let (ours, theirs) = UnixStream::pair()?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let program = program.executable()?;
    let name = CString::new(INIT_NAME)?;
    let (pid, pidfd) = sys::start(&sys::Start {
        program: program.as_fd(),
        name: &name,
        control: theirs.as_fd(),
        null: null.as_fd(),
        user_namespace: kind.user_namespace,
    })?;
    drop(theirs);
    let let_go = || {
        if kind.user_namespace {
            map_ids(pid, kind.all_ids)?;
        }
        for group in &kind.groups {
            fs::write(group, pid.to_string())?;
        }
        (&ours).write_all(&[1])?;
        ours.set_nonblocking(true)
    };
    match let_go() {
        Ok(()) => Ok(Init { pidfd, control: ours }),
        Err(error) => {
            Init::kill(&pidfd);
            Init::reap(&pidfd);
            Err(error)
        }
    }
}

/// Writes the id maps. With `all_ids`, all ids are the same inside and outside; otherwise this user's id is root inside,
/// and no other id exists.
fn map_ids(pid: i32, all_ids: bool) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if all_ids {
        for what in ["uid_map", "gid_map"] {
            // If the emulator itself runs in a user namespace, only the ids that are mapped there exist.
            let own = fs::read_to_string(format!("/proc/self/{what}"))?;
            let mut map = String::new();
            for line in own.lines() {
                let mut fields = line.split_whitespace();
                if let (Some(first), Some(_), Some(count)) = (fields.next(), fields.next(), fields.next()) {
                    map.push_str(&format!("{first} {first} {count}\n"));
                }
            }
            fs::write(format!("/proc/{pid}/{what}"), map)?;
        }
    } else {
        fs::write(format!("/proc/{pid}/uid_map"), format!("0 {uid} 1\n"))?;
        fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        fs::write(format!("/proc/{pid}/gid_map"), format!("0 {gid} 1\n"))?;
    }
    Ok(())
}
