//! What is to be executed, and the last steps of the new process before it executes the program.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    io::Write,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Signal, chdir, ioctl_tiocsctty, set_parent_process_death_signal, setsid},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};

use crate::{
    answer::{Answer, Failure},
    args::{Args, c_string, parse_size},
    sys::process::{execute, reset_signals},
    user::User,
};

/// The longest word or environment entry that the kernel accepts, with its NUL.
const MAX_WORD: usize = 128 * 1024;
/// Where programs are searched if the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the output of a stream goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sink {
    /// Into the spool.
    Keep,
    /// Nowhere.
    Discard,
    /// Into the stream of stdout.
    Merge,
}

/// A command with everything that its process needs.
pub struct Command {
    /// The words; never empty.
    pub argv: Vec<CString>,
    env: Vec<CString>,
    search: Vec<u8>,
    pub cwd: Option<CString>,
    /// The user, or none for that of the helper.
    pub user: Option<User>,
    /// Rows and columns of the terminal, if it gets one.
    pub pty: Option<(u16, u16)>,
    /// After how long it is killed.
    pub timeout: Option<Duration>,
    /// Whether its input comes from the spool. Else it is empty.
    pub stdin: bool,
    /// Where stdout goes.
    pub out: Sink,
    /// Where stderr goes.
    pub err: Sink,
}

/// The step at which a new process failed. The number is sent to the supervisor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Input, output or session.
    Setup = 1,
    /// The working directory.
    Directory = 2,
    /// The execution of the program.
    Program = 3,
    /// The change of the user.
    User = 4,
}

impl Command {
    /// The command that the arguments describe.
    ///
    /// # Errors
    ///
    /// Fails if an argument is wrong, or the user does not exist.
    pub fn of(args: &Args) -> Answer<Self> {
        let argv = args.argv.iter().map(|word| c_string("argv", word)).collect::<Answer<Vec<_>>>()?;
        if argv.is_empty() {
            return Err(Failure::invalid("argv", "The command has no words."));
        }
        let user = args.text("user").map(User::find).transpose()?;
        let pty = args.text("pty").map(parse_size).transpose()?;
        let env = environment(args, user.as_ref(), pty.is_some())?;
        let search = env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_bytes().to_vec());
        let env = env
            .into_iter()
            .map(|(mut entry, value)| {
                entry.push("=");
                entry.push(value);
                c_string("env", entry)
            })
            .collect::<Answer<Vec<_>>>()?;
        if argv.iter().chain(&env).any(|word| word.as_bytes_with_nul().len() > MAX_WORD) {
            return Err(too_long());
        }
        let cwd = args.text("cwd").filter(|cwd| !cwd.is_empty()).map(|cwd| c_string("cwd", cwd)).transpose()?;
        let sink = |name| if args.text(name) == Some("discard") { Sink::Discard } else { Sink::Keep };
        let merged = pty.is_some() || args.flag("merge");
        Ok(Self {
            argv,
            env,
            search: search.unwrap_or_else(|| DEFAULT_PATH.to_vec()),
            cwd,
            user,
            pty,
            timeout: args.duration("timeout")?,
            stdin: pty.is_some() || args.text("stdin") != Some("none"),
            out: sink("out"),
            err: if merged { Sink::Merge } else { sink("err") },
        })
    }

    /// Turns this new process into the command. It writes the step and the error to `report` if that fails.
    pub fn execute(&self, [stdin, stdout, stderr]: [OwnedFd; 3], report: OwnedFd) -> ! {
        let (step, error) = self.try_execute(&stdin, &stdout, &stderr);
        let mut message = [0; 8];
        message[..4].copy_from_slice(&(step as u32).to_ne_bytes());
        message[4..].copy_from_slice(&error.raw_os_error().to_ne_bytes());
        let _ = std::fs::File::from(report).write_all(&message);
        std::process::exit(127)
    }

    /// Returns only the step that failed.
    fn try_execute(&self, stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> (Step, Errno) {
        let before = || -> Result<(), Errno> {
            setsid()?;
            dup2_stdin(stdin)?;
            dup2_stdout(stdout)?;
            dup2_stderr(stderr)?;
            if self.pty.is_some() {
                ioctl_tiocsctty(stdin)?;
            }
            reset_signals();
            Ok(())
        };
        if let Err(error) = before() {
            return (Step::Setup, error);
        }
        // As in Docker, the directory need not be accessible to the user. Some network disks refuse root instead.
        let mut entered = self.enter();
        if let Some(Err(error)) = self.user.as_ref().map(User::become_now) {
            return (Step::User, Errno::from_io_error(&error).unwrap_or(Errno::PERM));
        }
        if entered == Err(Errno::ACCESS) {
            entered = self.enter();
        }
        if let Err(error) = entered {
            return (Step::Directory, error);
        }
        // The command does not outlive its supervisor. The kernel forgets this when a process changes its user.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        (Step::Program, self.search_and_execute())
    }

    fn enter(&self) -> Result<(), Errno> {
        self.cwd.as_ref().map_or(Ok(()), chdir)
    }

    fn search_and_execute(&self) -> Errno {
        let run = |path: &CStr| Errno::from_io_error(&execute(path, &self.argv, &self.env)).unwrap_or(Errno::NOENT);
        let name = self.argv[0].to_bytes();
        if name.is_empty() {
            return Errno::NOENT;
        }
        if name.contains(&b'/') {
            return run(&self.argv[0]);
        }
        let mut result = Errno::NOENT;
        for dir in self.search.split(|byte| *byte == b':') {
            let dir = if dir.is_empty() { b"." } else { dir };
            let Ok(path) = CString::new([dir, b"/", name].concat()) else { continue };
            match run(&path) {
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => result = Errno::ACCESS,
                other => return other,
            }
        }
        result
    }
}

/// The failure for words that exceed the kernel's limits.
pub fn too_long() -> Failure {
    Failure::invalid("argv", "The arguments and the environment of the command are longer than the kernel accepts.")
}

/// The environment of the helper, with the changes that the arguments and the user make.
fn environment(args: &Args, user: Option<&User>, terminal: bool) -> Answer<Vec<(OsString, OsString)>> {
    let mut env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let mut set = |name: &str, value: &str| {
        let value = OsString::from(value);
        match env.iter_mut().find(|(key, _)| key == OsStr::new(name)) {
            Some(entry) => entry.1 = value,
            None => env.push((name.into(), value)),
        }
    };
    if let Some(user) = user
        && args.text("home") != Some("keep")
    {
        set("HOME", &user.home);
    }
    match args.text("term") {
        Some(term) => set("TERM", term),
        None if terminal && std::env::var_os("TERM").is_none() => set("TERM", "xterm"),
        None => {}
    }
    for entry in args.texts("env") {
        match entry.split_once('=') {
            Some((name, value)) if !name.is_empty() => set(name, value),
            _ => {
                return Err(Failure::invalid(
                    "env",
                    format_args!("The environment entry {entry:?} is not NAME=VALUE."),
                ));
            }
        }
    }
    Ok(env)
}
