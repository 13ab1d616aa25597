//! Starts a program as the first process of new namespaces.

use std::{
    ffi::CStr,
    io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::SigSet,
};
use rustix::{io::Errno, process::Signal};

/// The descriptor on which the program finds its end of the control socket.
pub(crate) const CONTROL_FD: RawFd = 3;

/// The descriptor that the program is executed from, and which is closed by that.
const PROGRAM_FD: RawFd = 4;

/// Numbers from here on are surely different from those above: `dup2` onto itself would keep close-on-exec.
const FREE_FD: RawFd = 10;

/// What to start.
pub(crate) struct Start<'a> {
    /// The program's file.
    pub(crate) program: BorrowedFd<'a>,
    /// Its argv[0], which is its only argument. Its environment is empty.
    pub(crate) name: &'a CStr,
    /// Becomes [`CONTROL_FD`]. The program is executed once one byte has arrived there.
    pub(crate) control: BorrowedFd<'a>,
    /// Becomes standard input, output and error.
    pub(crate) null: BorrowedFd<'a>,
    /// The new namespaces include one of users.
    pub(crate) user_namespace: bool,
}

/// Starts a process in new namespaces of mounts, processes, host names, IPC and network. Returns its number and a descriptor
/// that stands for it. It is killed when the calling thread ends.
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
    // SAFETY: `args` has the kernel's layout and the size that is given, and `pidfd` outlives the call. Without CLONE_VM the
    // child has a copy of this memory, as after `fork`; it calls `child` alone, which allocates nothing and takes no lock.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        ..0 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: this is the child. Both lists end with a null pointer, and their texts live in memory that the child has
            // a copy of.
            unsafe { child(start, argv.as_ptr(), envp.as_ptr()) }
        }
        // SAFETY: the call has succeeded in the parent, so the kernel has stored a new descriptor, which has no other owner.
        pid => Ok((pid as libc::pid_t, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Makes the process what [`start`] promises, and executes the program. Makes system calls only.
///
/// # Safety
///
/// The caller is a child that shares no memory with its parent and has one thread. `argv` and `envp` are lists of texts that end
/// with a null pointer.
unsafe fn child(start: &Start<'_>, argv: *const *const libc::c_char, envp: *const *const libc::c_char) -> ! {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // The caller may be anything: give the program signals as a shell would.
    let _ = SigSet::empty().thread_set_mask();
    // Away from the caller's terminal and its signals.
    let _ = rustix::process::setsid();
    let copy = |fd: BorrowedFd<'_>| fcntl(fd, FcntlArg::F_DUPFD(FREE_FD)).unwrap_or(-1);
    let (control, null, program) = (copy(start.control), copy(start.null), copy(start.program));
    for number in 0..CONTROL_FD {
        // SAFETY: takes numbers only. What was open as the number is a copy of the parent's descriptor, which nothing in this
        // process uses.
        unsafe { libc::dup2(null, number) };
    }
    // SAFETY: as above.
    unsafe { libc::dup2(control, CONTROL_FD) };
    // SAFETY: as above.
    unsafe { libc::dup3(program, PROGRAM_FD, libc::O_CLOEXEC) };
    // Before waiting: among the rest are copies of the parent's ends of sockets, and an end of stream is seen only once all of
    // them are closed.
    // SAFETY: takes numbers only. What is closed are copies of the parent's descriptors, which nothing in this process uses
    // from here on.
    unsafe { libc::close_range(PROGRAM_FD as libc::c_uint + 1, libc::c_uint::MAX, 0) };
    // SAFETY: the descriptor was opened above and stays open.
    let control = unsafe { BorrowedFd::borrow_raw(CONTROL_FD) };
    let mut go = [0u8];
    loop {
        match rustix::io::read(control, &mut go) {
            Ok(1) => break,
            Err(Errno::INTR) => {}
            // SAFETY: ends the process without running anything of it.
            _ => unsafe { libc::_exit(125) },
        }
    }
    // SAFETY: the caller promises that both lists are whole; the path is a constant.
    unsafe { libc::syscall(libc::SYS_execveat, PROGRAM_FD, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH) };
    // SAFETY: as above.
    unsafe { libc::_exit(126) }
}

/// Whether a descriptor is open.
pub(super) fn is_open(number: RawFd) -> bool {
    // SAFETY: only asks; the kernel refuses numbers that are not open.
    (unsafe { libc::fcntl(number, libc::F_GETFD) }) >= 0
}
