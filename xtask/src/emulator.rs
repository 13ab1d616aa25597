//! An emulator of the service for tasks.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Result, bail, ensure};

/// An emulator in a process of its own. Dropping it ends the process.
pub struct Emulator {
    child: Child,
    url: String,
}

impl Emulator {
    /// Returns the command that starts an emulator, for [`start`](Emulator::start).
    pub fn command(program: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(["emulator", "--listen", "127.0.0.1:0", "--exit-with-stdin"]);
        command
    }

    /// Starts an emulator and returns when it is ready.
    ///
    /// # Errors
    ///
    /// Fails if it does not start.
    pub fn start(mut command: Command) -> Result<Emulator> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut first = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut first)?;
        }
        let Some(url) = first.trim().strip_prefix("MODAL_SERVER_URL=").map(str::to_string) else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the emulator did not start: see its log above");
        };
        Ok(Emulator { child, url })
    }

    /// Returns the address, for the variable `MODAL_SERVER_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Closes the standard input of the emulator, as a user would, and waits until it has cleaned up.
    ///
    /// # Errors
    ///
    /// Fails if the emulator fails.
    pub fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the emulator ended with {status}");
        Ok(())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
