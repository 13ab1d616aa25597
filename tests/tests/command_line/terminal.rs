//! Runs the program on a pseudo-terminal whose other end is held by the test.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, ExitStatus},
    sync::{Arc, Condvar, Mutex},
};

use nix::{
    libc,
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, Termios, tcgetattr},
    },
    unistd::Pid,
};
use serde_json::json;
use system_tests::Emulator;

use super::{WAIT_TIMEOUT, order, printed, shared};

nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, Winsize);

fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A terminal and the program that runs on it.
struct Terminal {
    ours: File,
    /// Kept open, so that the settings of the terminal can be read after the end of the program.
    theirs: OwnedFd,
    child: Child,
    shown: Arc<(Mutex<Vec<u8>>, Condvar)>,
}

impl Terminal {
    /// Starts the program as the leader of a session with this controlling terminal, as a terminal emulator does.
    fn start(command: &mut Command, rows: u16, columns: u16) -> Terminal {
        let pair = openpty(&winsize(rows, columns), None).expect("cannot open a pseudo-terminal");
        let theirs = || pair.slave.try_clone().expect("cannot duplicate the descriptor");
        command.stdin(theirs()).stdout(theirs()).stderr(theirs()).env("TERM", "xterm-256color");
        let lead_session = || {
            nix::unistd::setsid()?;
            // SAFETY: TIOCSCTTY takes a number and reads no memory of this process.
            let done = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
            if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: between fork and exec `lead_session` makes two system calls. It takes no lock and allocates nothing.
        unsafe { command.pre_exec(lead_session) };
        let child = command.spawn().expect("cannot start the program");
        let ours = File::from(pair.master);
        let shown = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let (mut reader, filled) = (ours.try_clone().expect("cannot duplicate the descriptor"), shown.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(size @ 1..) = reader.read(&mut piece) {
                filled.0.lock().expect("the lock is poisoned").extend_from_slice(&piece[..size]);
                filled.1.notify_all();
            }
        });
        Terminal { ours, theirs: pair.slave, child, shown }
    }

    /// Waits until the screen shows `wanted` after the text of the previous wait, and returns and removes all text up
    /// to its end.
    fn wait_for(&self, wanted: &str) -> Vec<u8> {
        let mut shown = self.shown.0.lock().expect("the lock is poisoned");
        loop {
            if let Some(at) = shown.windows(wanted.len()).position(|window| window == wanted.as_bytes()) {
                return shown.drain(..at + wanted.len()).collect();
            }
            let (now, late) = self.shown.1.wait_timeout(shown, WAIT_TIMEOUT).expect("the lock is poisoned");
            shown = now;
            assert!(!late.timed_out(), "{wanted:?} is not in {:?}", String::from_utf8_lossy(&shown));
        }
    }

    fn send(&mut self, keys: &[u8]) {
        self.ours.write_all(keys).expect("cannot write to the terminal");
    }

    fn resize(&self, rows: u16, columns: u16) {
        // SAFETY: the descriptor is open, and the request reads a structure of this type.
        unsafe { set_size(self.ours.as_raw_fd(), &winsize(rows, columns)) }.expect("not a terminal");
    }

    fn settings(&self) -> Termios {
        tcgetattr(self.theirs.as_fd()).expect("not a terminal")
    }

    /// Returns whether the terminal passes on single keys without echo and signals.
    fn is_raw(&self) -> bool {
        !self.settings().local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().expect("cannot wait for the program")
    }

    /// Returns the rest of the screen after the end of the program. Text that the test writes to the terminal marks the
    /// end.
    fn rest(&mut self) -> String {
        File::from(self.theirs.try_clone().expect("cannot duplicate the descriptor"))
            .write_all(b"<END>")
            .expect("cannot write to the terminal");
        let rest = self.wait_for("<END>");
        String::from_utf8_lossy(&rest[..rest.len() - 5]).into_owned()
    }
}

fn exec(emulator: &Emulator, id: &str, script: &str) -> Command {
    let mut command = emulator.sandbox();
    command.args(["exec", "-t", id, "--", "sh", "-c", script]);
    command
}

#[test]
fn the_window_size_and_its_changes_are_passed_on() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let script =
        r#"trap 'stty size; exit 4' WINCH; stty size; echo "TERM=$TERM"; echo ready; while :; do sleep 0.05; done"#;
    let mut terminal = Terminal::start(&mut exec(emulator, &id, script), 37, 91);
    terminal.wait_for("37 91\r\n");
    terminal.wait_for("TERM=xterm-256color\r\n");
    terminal.wait_for("ready");
    terminal.resize(41, 101);
    terminal.wait_for("41 101\r\n");
    assert_eq!(terminal.end().code(), Some(4));
    printed(emulator, &["terminate", &id]);
}

#[test]
fn control_c_is_passed_to_the_remote_program() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let mut terminal = Terminal::start(&mut exec(emulator, &id, script), 24, 80);
    terminal.wait_for("ready");
    terminal.send(b"\x03");
    terminal.wait_for("caught\r\n");
    assert_eq!(terminal.end().code(), Some(5));
    printed(emulator, &["terminate", &id]);
}

/// Whatever ends the program, the settings of the user's terminal are restored.
#[test]
fn the_terminal_is_restored() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGHUP), Some(Signal::SIGINT)] {
        let mut terminal = Terminal::start(&mut exec(emulator, &id, "echo ready; read answer; exit 6"), 24, 80);
        terminal.wait_for("ready");
        assert!(terminal.is_raw());
        let code = match signal {
            None => {
                // Enter sends a carriage return in raw mode; the remote terminal turns it into a line end.
                terminal.send(b"x\r");
                6
            }
            Some(signal) => {
                kill(Pid::from_raw(terminal.child.id() as i32), signal).expect("cannot signal the program");
                128 + signal as i32
            }
        };
        assert_eq!(terminal.end().code(), Some(code), "{signal:?}");
        assert!(!terminal.is_raw(), "{signal:?}");
        let fresh = openpty(None, None).expect("cannot open a pseudo-terminal");
        assert_eq!(terminal.settings(), tcgetattr(fresh.slave.as_fd()).expect("not a terminal"), "{signal:?}");
    }
    printed(emulator, &["terminate", &id]);
}

/// A full-screen editor sets its own raw mode, switches to another screen, and reads single bytes of any value.
#[test]
fn full_screen_programs_exchange_every_byte() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let script = r#"stty raw -echo; printf '\033[?1049h\033[2J\033[5;7Hready'; dd bs=1 count=256 2>/dev/null | od -An -v -tx1 | tr -d ' \n'; printf '\033[?1049l.'"#;
    let mut terminal = Terminal::start(&mut exec(emulator, &id, script), 24, 80);
    assert!(terminal.wait_for("ready").ends_with(b"\x1b[?1049h\x1b[2J\x1b[5;7Hready"));
    let keys: Vec<u8> = (0..=255).collect();
    for key in keys.chunks(3) {
        terminal.send(key);
    }
    let hex: String = keys.iter().map(|key| format!("{key:02x}")).collect();
    assert_eq!(String::from_utf8(terminal.wait_for("\x1b[?1049l.")).expect("not UTF-8"), format!("{hex}\x1b[?1049l."));
    assert_eq!(terminal.end().code(), Some(0));
    printed(emulator, &["terminate", &id]);
}

#[test]
fn an_interactive_shell_works() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    for session in
        [vec!["shell", &id], vec!["shell", "--shell", "/bin/sh", &id], vec!["shell", "-q", "--image", "debian"]]
    {
        let mut terminal = Terminal::start(emulator.sandbox().args(&session), 33, 99);
        // The terminal echoes the command line, so the expected output must not be contained in it.
        terminal.send(b"echo a-$((6 * 7)); stty size\r");
        terminal.wait_for("a-42\r\n");
        terminal.wait_for("33 99\r\n");
        terminal.send(b"exit 3\r");
        assert_eq!(terminal.end().code(), Some(3), "{session:?}");
        assert!(!terminal.is_raw());
    }
    printed(emulator, &["terminate", &id]);
}

/// Spinners and colours appear on terminals, and where they are requested.
#[test]
fn progress_and_colours_appear_on_a_terminal() {
    let emulator = Emulator::start();
    let slow = json!([{ "method": "SandboxCreateV2", "times": 1, "fault": { "delay": { "millis": 1500 } } }]);
    order(&emulator, &slow);
    let mut command = emulator.sandbox();
    command.env_remove("NO_COLOR");
    let mut terminal = Terminal::start(command.args(["create", "--image", "debian"]), 24, 80);
    let before = String::from_utf8_lossy(&terminal.wait_for("creating the sandbox")).into_owned();
    let log = before.split("debian").next().expect("no text");
    assert!(log.contains("\x1b[2m"), "the build log should be dimmed: {before:?}");
    terminal.wait_for("sb-");
    assert_eq!(terminal.end().code(), Some(0));
    assert!(!terminal.rest().contains("creating"), "the progress line should be removed at the end");

    order(&emulator, &slow);
    let mut terminal = Terminal::start(emulator.sandbox().args(["create", "-q", "--image", "debian"]), 24, 80);
    assert_eq!(terminal.end().code(), Some(0));
    let shown = terminal.rest();
    assert!(shown.starts_with("sb-") && shown.trim_end().len() == 29, "{shown:?}");

    for (arguments, variable, colored) in [
        (vec!["inspect", "sb-none"], "", true),
        (vec!["inspect", "sb-none", "--no-color"], "", false),
        (vec!["inspect", "sb-none"], "1", false),
    ] {
        let mut command = emulator.sandbox();
        let mut terminal = Terminal::start(command.args(&arguments).env("NO_COLOR", variable), 24, 80);
        assert_eq!(terminal.end().code(), Some(125));
        let shown = terminal.rest();
        assert_eq!(shown.contains('\x1b'), colored, "{arguments:?} {shown:?}");
        assert!(shown.contains("cannot inspect the sandbox sb-none"), "{shown:?}");
    }
}

/// A copy shows a progress bar and removes it at the end.
#[test]
fn a_copy_shows_a_progress_bar() {
    let emulator = Emulator::start();
    let id = printed(&emulator, &["create", "-q"]);
    let file = tempfile::NamedTempFile::new().expect("cannot create a file");
    file.as_file().set_len(8 << 20).expect("cannot set the length");
    let path = file.path().to_str().expect("not UTF-8");
    let slow = |method: &str| json!([{ "method": method, "times": 1, "fault": { "delay": { "millis": 1500 } } }]);
    order(&emulator, &slow("TaskExecStdinWrite*"));
    let target = format!("{id}:/file");
    let mut terminal = Terminal::start(emulator.sandbox().args(["cp", path, &target]), 24, 100);
    terminal.wait_for("copying ");
    terminal.wait_for("/8.00 MiB");
    assert_eq!(terminal.end().code(), Some(0));
    assert!(terminal.rest().ends_with("\x1b[2K"), "the progress line should be empty at the end");

    // Without a terminal the progress is a line.
    order(&emulator, &slow("TaskExecStdinWrite*"));
    let copied = system_tests::feed(emulator.sandbox().args(["cp", path, &target]), b"");
    let text = system_tests::stderr(&copied);
    assert!(text.starts_with(&format!("copying {path}: ")) && text.ends_with(" of 8.00 MiB\n"), "{text:?}");
    printed(&emulator, &["terminate", &id]);
}

/// On a terminal a sweep lists the sandboxes, and terminates them only with `--yes`.
#[test]
fn a_sweep_on_a_terminal_needs_yes() {
    let emulator = shared();
    let owner = "sweep-on-a-terminal";
    let tag = |name: &str, value: &str| format!("sandbox-{name}={value}");
    let id = printed(emulator, &["create", "-q"]);
    printed(emulator, &["tags", &id, &tag("owner", owner), &tag("run", "r"), &tag("lease", "1000")]);
    let mut terminal = Terminal::start(emulator.sandbox().args(["sweep", "--owner", owner]), 24, 120);
    assert_eq!(terminal.end().code(), Some(0));
    let shown = terminal.rest();
    assert!(shown.contains(&format!("{id}  abandoned")) && shown.contains("--yes"), "{shown:?}");
    assert!(printed(emulator, &["inspect", &id]).contains("running"));
    let mut terminal = Terminal::start(emulator.sandbox().args(["sweep", "--owner", owner, "--yes"]), 24, 120);
    assert_eq!(terminal.end().code(), Some(0));
    let shown = terminal.rest();
    assert!(shown.contains(&format!("{id}  terminated")), "{shown:?}");
    printed(emulator, &["terminate", "--wait", &id]);
}
