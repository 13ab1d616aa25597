//! Starts a command exactly once.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat, open},
    process::setsid,
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};

use crate::{
    answer::{Answer, Failure},
    base::{Activity, Base, make_dir},
    exec::{
        command::Command,
        state::Exec,
        supervise::{Extras, supervise},
    },
    json,
    sys::process::{Fork, fork, replace_arguments},
};

/// Starts `command` as `id`, or finds the command that has this id already. It returns when that has started.
///
/// # Errors
///
/// Fails if the command cannot be started, and then for each repetition alike.
pub fn launch(
    base: &Base,
    id: &str,
    command: impl FnOnce() -> Answer<Command>,
    extras: Extras,
    activity: &mut Option<Activity>,
) -> Answer<Exec> {
    let dir = base.exec(id)?;
    if let Some(exec) = Exec::open(&dir)? {
        exec.until_started()?;
        return Ok(exec);
    }
    let command = command()?;
    let failed = |error: io::Error| Failure::internal(id, error);
    let draft = Draft::create(base, &command).map_err(failed)?;
    // The page is a descriptor's mapping: it remains valid when the directory gets its name.
    let Some(exec) = draft.publish(&dir).map_err(failed)? else {
        let exec = Exec::existing(&dir, id)?;
        exec.until_started()?;
        return Ok(exec);
    };
    match fork().map_err(failed) {
        Ok(Fork::Parent(_)) => {}
        Ok(Fork::Child) => {
            detach(&format!("supervise {id}"));
            supervise(&exec, &command, extras, activity.take());
            std::process::exit(0)
        }
        Err(failure) => exec.fail(&failure),
    }
    drop(extras);
    exec.until_started()?;
    Ok(exec)
}

/// Lets this process run on when the call of the helper ends. The list of processes shows it as `what`: the arguments of
/// the call may contain secrets.
pub fn detach(what: &str) {
    replace_arguments(&format!("inside {what}"));
    let _ = setsid();
    if let Ok(null) = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = dup2_stdin(&null);
        let _ = dup2_stdout(&null);
        let _ = dup2_stderr(&null);
    }
}

/// A directory of a command that has not its name yet. It is removed if it does not get one.
struct Draft {
    dir: PathBuf,
    exec: Option<Exec>,
}

impl Draft {
    fn create(base: &Base, command: &Command) -> io::Result<Self> {
        let own = std::process::id();
        let dir = base.execs().join(format!(".new-{own}"));
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_dir(&dir)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A process that had this id was killed here.
                fs::remove_dir_all(&dir)?;
                fs::create_dir(&dir)?;
            }
            other => other?,
        }
        let mut draft = Self { dir, exec: None };
        let exec = Exec::create(&draft.dir)?;
        for name in ["stdout", "stderr", "stdin"] {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft.dir.join(name))?;
        }
        mknodat(CWD, draft.dir.join("wake"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        let words = command.argv.iter().map(|word| json::string(&word.to_string_lossy()));
        fs::write(draft.dir.join("spec"), json::array(words))?;
        draft.exec = Some(exec);
        Ok(draft)
    }

    /// Gives the directory its name, in one step. None if another process was faster.
    fn publish(mut self, dir: &Path) -> io::Result<Option<Exec>> {
        match fs::rename(&self.dir, dir) {
            Ok(()) => Ok(self.exec.take().map(|exec| exec.renamed(dir))),
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After its publication the directory has another name.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
