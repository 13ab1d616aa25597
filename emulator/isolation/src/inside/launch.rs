//! Turns a forked child of init into a process: sets up streams, terminal, directory and user, and executes the program.
//!
//! If the program or directory does not exist, the child exits with 127; if the program cannot be executed, with 126. It
//! prints a line to standard error, as a shell does. The file tools can also run without being executed: they are part of
//! this same program, and an image from scratch has no dynamic linker for it.

use std::{
    ffi::{CString, OsStr},
    io::Write,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        signal::{SigSet, SigmaskHow, sigprocmask},
        stat::Mode,
    },
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout},
};

use rustix::{
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::build_root;
use crate::{
    fstools,
    spec::ProcessSpec,
    sys::{self, ForkedChild},
    users,
};

/// `PATH` for processes whose environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The kernel's OOM killer treats a process with this score as if it used an extra tenth of the machine's memory.
const OOM_SCORE: &str = "100";

/// How long a program may be open for writing before its execution fails. The start of a process takes milliseconds, on a
/// loaded machine up to seconds; a user whose program stays open should not wait long for the error.
const BUSY_TIME: Duration = Duration::from_secs(5);

/// Pause between two attempts to execute such a program.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// A new pseudo-terminal of the container.
pub(crate) struct Terminal {
    /// The engine's side of the terminal.
    pub(crate) master: OwnedFd,
    slave: OwnedFd,
}

impl Terminal {
    /// Opens a new terminal. `directory` is the container's `/dev/pts`. `rows` and `columns` are its size in characters.
    pub(crate) fn open(directory: &OwnedFd, rows: u16, columns: u16) -> nix::Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = nix::fcntl::openat(directory, "ptmx", flags, Mode::empty())?;
        let slave = open_slave(&master, rows, columns);
        let slave = slave.map_err(|error| Errno::from_raw(error.raw_os_error()))?;
        Ok(Self { master, slave })
    }
}

/// Opens the slave side through the master instead of by name, because processes in the container can change what a name
/// refers to.
fn open_slave(master: &OwnedFd, rows: u16, columns: u16) -> rustix::io::Result<OwnedFd> {
    unlockpt(master)?;
    let slave = ioctl_tiocgptpeer(master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    tcsetwinsize(&slave, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
    Ok(slave)
}

/// Becomes the process. Must be called in a new fork of init, which has a single thread.
pub(crate) fn run(
    spec: &ProcessSpec,
    terminal: Option<Terminal>,
    pipes: &[OwnedFd],
    all_ids: bool,
    child: ForkedChild,
) -> ! {
    let _ = nix::unistd::setsid();
    // None of the streams is descriptor 0 to 2, because those are `/dev/null` in init.
    let streams = match (&terminal, pipes) {
        (Some(terminal), _) => [&terminal.slave; 3],
        (None, [input, output, errors]) => [input, output, errors],
        (None, _) => fail(126, "no streams given"),
    };
    let _ = dup2_stdin(streams[0]);
    let _ = dup2_stdout(streams[1]);
    let _ = dup2_stderr(streams[2]);
    if terminal.is_some() {
        let _ = rustix::process::ioctl_tiocsctty(std::io::stdin());
    }
    // The closed descriptors belong to init; nothing in this process uses or drops them afterwards.
    sys::close_all_but_standard(child);
    let has_terminal = terminal.is_some();
    std::mem::forget(terminal);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    // Rust programs ignore `SIGPIPE`, and ignored signals are inherited.
    sys::default_sigpipe();

    // When memory runs out, the kernel kills this process before the container's init and before other processes of the
    // machine.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);

    let user = match users::find(spec.user.as_deref(), all_ids) {
        Ok(user) => user,
        Err(message) => fail(126, &message),
    };
    if has_terminal && let Some(user) = &user {
        // The user owns its terminal, so that it can open the terminal by name.
        let _ = nix::unistd::fchown(std::io::stdin(), Some(user.uid), None);
    }
    if let Some(user) = &user
        && let Err(message) = user.switch()
    {
        fail(126, &message);
    }
    let directory = if spec.cwd.as_os_str().is_empty() { OsStr::new("/") } else { spec.cwd.as_os_str() };
    if let Err(error) = nix::unistd::chdir(directory) {
        fail(127, &format!("cannot change to {}: {}", directory.display(), error.desc()));
    }
    let mut spec = spec.clone();
    // Container runtimes also set this variable, the only one that depends on the user.
    if !spec.env.iter().any(|(name, _)| name == "HOME") {
        spec.env.push(("HOME".into(), users::home(spec.user.as_deref())));
    }
    match spec.argv.first() {
        Some(program) => execute(&spec, program),
        None => fail(127, "no program given"),
    }
}

/// Replaces this process with the program. Prints an error and exits if that fails.
fn execute(spec: &ProcessSpec, program: &OsStr) -> ! {
    let text = |parts: &[&[u8]]| {
        CString::new(parts.concat()).unwrap_or_else(|_| fail(126, "an argument or variable contains a zero byte"))
    };
    let argv: Vec<CString> = spec.argv.iter().map(|argument| text(&[argument.as_bytes()])).collect();
    let variables = spec.env.iter().map(|(name, value)| text(&[name.as_bytes(), b"=", value.as_bytes()]));
    let (mut env, mut hidden): (Vec<CString>, Vec<CString>) = (variables.collect(), Vec::new());
    if program == build_root::FS_TOOLS {
        (hidden, env) = env.into_iter().partition(|pair| fstools::is_loaders(pair.as_bytes()));
    }
    if !hidden.is_empty() {
        let pairs: Vec<&[u8]> = hidden.iter().map(|pair| pair.as_bytes()).collect();
        env.push(text(&[fstools::HIDDEN, &pairs.join(&fstools::BETWEEN)]));
    }
    // The engine may have written the file just now, and a process that another thread of it is starting has the descriptor
    // until its own `execve`. The kernel executes no file that is open for writing.
    let until = Instant::now() + BUSY_TIME;
    let attempt = |file: &CString| loop {
        match nix::unistd::execve(file, &argv, &env) {
            Ok(never) => match never {},
            Err(Errno::ETXTBSY) if Instant::now() < until => thread::sleep(BUSY_PAUSE),
            Err(error) => return error,
        }
    };

    let error = if program.as_bytes().contains(&b'/') {
        attempt(&text(&[program.as_bytes()]))
    } else if program.is_empty() {
        Errno::ENOENT
    } else {
        let path = spec.env.iter().rev().find(|(name, _)| name == "PATH");
        let path = path.map_or(DEFAULT_PATH.as_bytes(), |(_, value)| value.as_bytes());
        let mut error = Errno::ENOENT;
        for directory in path.split(|byte| *byte == b':') {
            let directory = if directory.is_empty() { b"." } else { directory };
            match attempt(&text(&[directory, b"/", program.as_bytes()])) {
                Errno::ENOENT | Errno::ENOTDIR => {}
                // A later directory may contain a file that can be executed.
                Errno::EACCES => error = Errno::EACCES,
                other => {
                    error = other;
                    break;
                }
            }
        }
        error
    };
    // Executed like other programs first, so that `/proc` shows it under its name. If that fails, for example because the
    // image lacks the libraries, it is called as a function.
    if program == build_root::FS_TOOLS {
        std::process::exit(fstools::run(&spec.argv));
    }
    match error {
        Errno::ENOENT | Errno::ENOTDIR => fail(127, &format!("{}: not found", program.display())),
        other => fail(126, &format!("{}: {}", program.display(), other.desc())),
    }
}

/// Prints a message to standard error and exits.
fn fail(code: i32, message: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "{message}");
    std::process::exit(code)
}
