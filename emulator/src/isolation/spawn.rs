//! Starts a container's init: one `clone3` into fresh namespaces, then `exec` of the program in its inner role.
//!
//! The child is process 1 of its PID namespace from the first instruction on, so there is no helper process between the
//! emulator and it. Between `clone3` and `exec` the child is a fork of a program with threads and may only make system
//! calls: everything that needs memory is prepared before. It waits for one byte, which the emulator sends once it has
//! written the id maps (and put the process into its control groups).

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::protocol::CONTROL_FD;

/// argv[0] by which the program knows that it is a container's init.
pub(crate) const INIT_NAME: &str = "modal-sandbox-init";

/// A started init.
pub(crate) struct Init {
    /// Process id as the emulator sees it.
    pub pid: i32,
    /// Readable once every process of the container has ended.
    pub pidfd: OwnedFd,
    /// The emulator's end of the control socket, non-blocking.
    pub control: UnixStream,
}

/// Whether the whole range of ids can be mapped into a container (the emulator is root of its namespace).
pub(crate) fn all_ids() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Starts `program` as init. `before` runs when the process exists but has not yet been let go.
pub(crate) fn spawn(program: &Path, own_network: bool, before: impl FnOnce(i32)) -> io::Result<Init> {
    let (ours, theirs) = UnixStream::pair()?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let path = CString::new(program.as_os_str().as_encoded_bytes())?;
    let name = CString::new(INIT_NAME)?;
    let argv = [name.as_ptr(), std::ptr::null()];
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];

    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_PIDFD;
    if own_network {
        flags |= libc::CLONE_NEWNET;
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
        // Safety: as above. `dup2` clears close-on-exec on the copies; everything else of ours is close-on-exec.
        unsafe { child(theirs.as_raw_fd(), null.as_raw_fd(), path.as_ptr(), argv.as_ptr(), envp.as_ptr()) }
    }
    // Safety: the kernel stored a descriptor that is ours alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = pid as i32;
    drop(theirs);
    let started = (|| {
        map_ids(pid)?;
        before(pid);
        (&ours).write_all(&[1])?;
        ours.set_nonblocking(true)
    })();
    if let Err(e) = started {
        kill(&pidfd);
        reap(&pidfd);
        return Err(e);
    }
    Ok(Init { pid, pidfd, control: ours })
}

unsafe fn child(
    socket: RawFd,
    null: RawFd,
    path: *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
) -> ! {
    unsafe {
        // The parent may be anything: give the program signals as a shell would.
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        // Away from the emulator's terminal and its signals.
        libc::setsid();
        let mut go = 0u8;
        loop {
            let n = libc::read(socket, (&raw mut go).cast(), 1);
            if n == 1 {
                break;
            }
            if n == 0 || *libc::__errno_location() != libc::EINTR {
                libc::_exit(125);
            }
        }
        // dup2 onto itself would keep close-on-exec; go over a number that is surely different.
        let socket = libc::fcntl(socket, libc::F_DUPFD, 10);
        let null = libc::fcntl(null, libc::F_DUPFD_CLOEXEC, 10);
        libc::dup2(null, 0);
        libc::dup2(null, 1);
        libc::dup2(null, 2);
        libc::dup2(socket, CONTROL_FD);
        libc::close(socket);
        libc::execve(path, argv, envp);
        libc::_exit(126)
    }
}

/// As root every id means the same inside and outside; otherwise our own id is root inside and nobody else exists.
fn map_ids(pid: i32) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if all_ids() {
        let map = |what: &str| -> io::Result<String> {
            // Inside a user namespace of its own, root has only the ids that were mapped for it.
            let own = fs::read_to_string(format!("/proc/self/{what}"))?;
            let mut lines = String::new();
            for line in own.lines() {
                let mut fields = line.split_whitespace();
                let (Some(first), _, Some(count)) = (fields.next(), fields.next(), fields.next()) else { continue };
                let count = count.parse::<u64>().unwrap_or(0).min(1 << 31);
                lines.push_str(&format!("{first} {first} {count}\n"));
            }
            Ok(lines)
        };
        fs::write(format!("/proc/{pid}/uid_map"), map("uid_map")?)?;
        fs::write(format!("/proc/{pid}/gid_map"), map("gid_map")?)?;
    } else {
        fs::write(format!("/proc/{pid}/uid_map"), format!("0 {uid} 1\n"))?;
        fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        fs::write(format!("/proc/{pid}/gid_map"), format!("0 {gid} 1\n"))?;
    }
    Ok(())
}

/// Ends init, and with it everything in the container.
pub(crate) fn kill(pidfd: &OwnedFd) {
    // Safety: a plain system call on a descriptor we hold. ESRCH (already gone) is fine.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        );
    }
}

/// Collects an ended init, so that it does not stay behind as a zombie. Blocks until it has ended.
pub(crate) fn reap(pidfd: &OwnedFd) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    use std::os::fd::AsFd;
    while let Err(nix::errno::Errno::EINTR) = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED) {}
}
