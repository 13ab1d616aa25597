//! Starts a container's init: one `clone3` into fresh namespaces, then `exec` of the program in its inner role.
//!
//! The child is process 1 of its PID namespace from the first instruction on, so there is no process between the engine
//! and it. Between `clone3` and `exec` the child is a fork of a program with threads and may only make system calls:
//! everything that needs memory is prepared before. It waits for one byte, which is sent once its id maps are written and
//! it is in its control groups.
//!
//! Two things tie it to the engine: the socket, whose end of stream ends it, and a death signal. The latter is sent when
//! the *thread* that made it ends, so the engine makes all of them on one thread of its own ([`Spawner`]).

use std::{
    ffi::CString,
    fs,
    io::{self, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
};

use crate::{
    protocol::{CONTROL_FD, PROGRAM_FD},
    sealed_program::Program,
};

/// argv[0] by which the program knows that it is a container's init.
pub(crate) const INIT_NAME: &str = "modal-emulator-init";

/// A started init.
#[derive(Debug)]
pub(crate) struct Init {
    /// Readable once every process of the container has ended.
    pub(crate) pidfd: OwnedFd,
    /// The engine's end of the control socket, non-blocking.
    pub(crate) control: UnixStream,
}

impl Init {
    /// Ends init, and with it everything in the container.
    pub(crate) fn kill(pidfd: &impl AsRawFd) {
        let none = std::ptr::null::<libc::siginfo_t>();
        // Safety: a plain system call on a descriptor that the caller holds. ESRCH (already gone) is fine.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, none, 0) };
    }

    /// Collects an ended init, so that it does not stay behind as a zombie. Blocks until it has ended.
    pub(crate) fn reap(pidfd: &impl AsRawFd) {
        // Safety: the structure is written by the kernel during the call only.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            while libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, &raw mut info, libc::WEXITED) < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
    }
}

/// What kind of init to start.
pub(crate) struct Kind {
    pub(crate) user_namespace: bool,
    pub(crate) all_ids: bool,
    /// Files to which the new process's number is written before it is let go.
    pub(crate) groups: Vec<PathBuf>,
}

/// Whether a range of ids worth the name can be mapped into a container: the emulator is root and not itself shut in with
/// a few ids.
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

/// The thread on which all inits are made.
#[derive(Debug)]
pub(crate) struct Spawner {
    jobs: mpsc::Sender<Job>,
}

struct Job {
    kind: Kind,
    answer: Box<dyn FnOnce(io::Result<Init>) + Send>,
}

impl Spawner {
    /// Starts the thread; it ends, and with it every container, when the last sender is dropped.
    pub(crate) fn new(program: Arc<Program>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new().name("containers".into()).spawn(move || {
            for job in queue {
                (job.answer)(start(&program, &job.kind));
            }
        })?;
        Ok(Self { jobs })
    }

    /// Starts an init; `answer` is called on the spawner's thread.
    pub(crate) fn start(&self, kind: Kind, answer: impl FnOnce(io::Result<Init>) + Send + 'static) {
        // The thread ends only after `self`; should it have panicked, dropping `answer` tells the caller.
        let _ = self.jobs.send(Job { kind, answer: Box::new(answer) });
    }
}

fn start(program: &Program, kind: &Kind) -> io::Result<Init> {
    let (ours, theirs) = UnixStream::pair()?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let program = program.executable()?;
    let name = CString::new(INIT_NAME)?;
    let argv = [name.as_ptr(), std::ptr::null()];
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];

    let mut flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_PIDFD;
    if kind.user_namespace {
        flags |= libc::CLONE_NEWUSER;
    }
    let mut pidfd: RawFd = -1;
    // Safety: zero is a valid value of every field.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;

    // Safety: without CLONE_VM this is a fork; the child below makes system calls only, on memory prepared above.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // Safety: as above.
        unsafe { child(theirs.as_raw_fd(), null.as_raw_fd(), program.as_raw_fd(), argv.as_ptr(), envp.as_ptr()) }
    }
    // Safety: the kernel stored a descriptor that is ours alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
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

unsafe fn child(
    socket: RawFd,
    null: RawFd,
    program: RawFd,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
) -> ! {
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // The engine may be anything: give the program signals as a shell would.
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        // Away from the emulator's terminal and its signals.
        libc::setsid();
        // Over numbers that are surely different: dup2 onto itself would keep close-on-exec.
        let socket = libc::fcntl(socket, libc::F_DUPFD, 10);
        let null = libc::fcntl(null, libc::F_DUPFD, 10);
        let program = libc::fcntl(program, libc::F_DUPFD, 10);
        for number in 0..CONTROL_FD {
            libc::dup2(null, number);
        }
        libc::dup2(socket, CONTROL_FD);
        libc::dup3(program, PROGRAM_FD, libc::O_CLOEXEC);
        // Before waiting: among the rest are copies of the engine's ends of sockets, this container's and others', and an
        // end of stream is seen only once all of them are closed.
        libc::close_range(PROGRAM_FD as libc::c_uint + 1, libc::c_uint::MAX, 0);
        let mut go = 0u8;
        loop {
            let count = libc::read(CONTROL_FD, (&raw mut go).cast(), 1);
            if count == 1 {
                break;
            }
            if count == 0 || *libc::__errno_location() != libc::EINTR {
                libc::_exit(125);
            }
        }
        libc::syscall(libc::SYS_execveat, PROGRAM_FD, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH);
        libc::_exit(126)
    }
}

/// With all ids each means the same inside and outside; otherwise our own id is root inside and nobody else exists.
fn map_ids(pid: libc::c_long, all_ids: bool) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if all_ids {
        for what in ["uid_map", "gid_map"] {
            // In a user namespace of its own, the emulator has only the ids that were mapped for it.
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
