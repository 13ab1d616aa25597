//! Starts a program as the first process of new namespaces.

use std::{
    ffi::CStr,
    io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::SigSet,
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    process::Signal,
};

/// The descriptor of the program's end of the control socket.
pub(crate) const CONTROL_FD: RawFd = 3;

/// The descriptor from which the program is executed; close-on-exec.
const PROGRAM_FD: RawFd = 4;

/// Descriptors are first duplicated to numbers from here on, which differ from those above: `dup2` onto the same number
/// would keep close-on-exec.
const FREE_FD: RawFd = 10;

/// The parameters of [`start`].
pub(crate) struct Start<'a> {
    /// The program's file.
    pub(crate) program: BorrowedFd<'a>,
    /// `argv[0]` of the program, its only argument. Its environment is empty.
    pub(crate) name: &'a CStr,
    /// Becomes [`CONTROL_FD`]. The program is executed when one byte has arrived there.
    pub(crate) control: BorrowedFd<'a>,
    /// Becomes standard input, output and error.
    pub(crate) null: BorrowedFd<'a>,
    /// Also create a user namespace.
    pub(crate) user_namespace: bool,
}

/// Starts a process in new mount, PID, UTS, IPC and network namespaces. Returns its pid and a pidfd. The kernel kills the
/// process when the calling thread ends.
pub(crate) fn start(start: &Start<'_>) -> io::Result<(libc::pid_t, OwnedFd)> {
    let mut flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_PIDFD;
    if start.user_namespace {
        flags |= libc::CLONE_NEWUSER;
    }
    let argv = [start.name.as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null()];
    let mut pidfd: RawFd = -1;
    let mut args = libc::clone_args {
        flags: flags as u64,
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: `args` has the kernel's layout and the size passed to the call, and `pidfd` outlives the call. Without
    // `CLONE_VM` the child has a copy of this memory, as after `fork`. It only calls `child`, which does not allocate and
    // takes no lock.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        ..0 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: this is the child. Both lists end with a null pointer, and their strings are in memory that the
            // child has a copy of.
            unsafe { child(start, argv.as_ptr(), envp.as_ptr()) }
        }
        // SAFETY: the call has succeeded in the parent, so the kernel has stored a new descriptor, which has no other
        // owner.
        pid => Ok((pid as libc::pid_t, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Sets up the process as [`start`] documents, and executes the program. Makes system calls only.
///
/// # Safety
///
/// The caller must be a single-threaded child that shares no memory with its parent. `argv` and `envp` must be
/// null-terminated lists of C strings.
unsafe fn child(start: &Start<'_>, argv: *const *const libc::c_char, envp: *const *const libc::c_char) -> ! {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // The signal mask of the caller is unknown, so the program starts with an empty mask, as from a shell.
    let _ = SigSet::empty().thread_set_mask();
    // Detaches from the caller's terminal and its signals.
    let _ = rustix::process::setsid();
    let copy = |fd: BorrowedFd<'_>| fcntl(fd, FcntlArg::F_DUPFD(FREE_FD)).unwrap_or(-1);
    let (control, program) = (copy(start.control), copy(start.program));
    // Copied first, because `null` may be one of the standard streams.
    let redirected = fcntl_dupfd_cloexec(start.null, FREE_FD)
        .is_ok_and(|null| dup2_stdin(&null).and(dup2_stdout(&null)).and(dup2_stderr(&null)).is_ok());
    if !redirected {
        exit(125);
    }
    // SAFETY: takes only numbers. A descriptor that this replaces is a copy of the parent's, which nothing in this process
    // uses.
    unsafe { libc::dup2(control, CONTROL_FD) };
    // SAFETY: as above.
    unsafe { libc::dup3(program, PROGRAM_FD, libc::O_CLOEXEC) };
    // Before waiting, because the other descriptors include copies of the parent's ends of sockets, and the end of a
    // stream is reported only when all of them are closed.
    // SAFETY: takes only numbers. The closed descriptors are copies of the parent's, which nothing in this process uses
    // afterwards.
    unsafe { libc::close_range(PROGRAM_FD as libc::c_uint + 1, libc::c_uint::MAX, 0) };
    // SAFETY: the descriptor was opened above and stays open.
    let control = unsafe { BorrowedFd::borrow_raw(CONTROL_FD) };
    let mut go = [0u8];
    loop {
        match rustix::io::read(control, &mut go) {
            Ok(1) => break,
            Err(Errno::INTR) => {}
            _ => exit(125),
        }
    }
    // SAFETY: the caller guarantees that both lists are null-terminated; the path is a constant.
    unsafe { libc::syscall(libc::SYS_execveat, PROGRAM_FD, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH) };
    exit(126)
}

/// Exits the process without running any more of its code, such as destructors or exit handlers.
fn exit(code: libc::c_int) -> ! {
    // SAFETY: takes only a number.
    unsafe { libc::_exit(code) }
}

/// Returns whether a descriptor is open.
pub(super) fn is_open(number: RawFd) -> bool {
    // SAFETY: only queries the descriptor flags; the kernel returns an error for numbers that are not open.
    (unsafe { libc::fcntl(number, libc::F_GETFD) }) >= 0
}
