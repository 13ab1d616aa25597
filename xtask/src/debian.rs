//! Packages of a Debian machine's archive, unpacked below `target/`. Nothing is installed on the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tools;

/// Packages that are unpacked into one folder.
pub struct Packages {
    /// The folder below `target/`. Its folder `root` receives the files.
    pub folder: &'static str,
    /// What the packages contain, for messages.
    pub what: &'static str,
    /// The names of the packages. The packages that they depend on are unpacked too, if the machine lacks them.
    pub names: &'static [&'static str],
    /// Raised when [`Packages::finish`] changes, so that the folder is made again.
    pub layout: u32,
    /// Completes the unpacked files, as an installation would.
    pub finish: fn(&Path) -> Result<()>,
}

impl Packages {
    /// Returns the folder with the unpacked packages, and fetches them if they are missing.
    ///
    /// # Errors
    ///
    /// Fails if the machine has no Debian archive, or the archive lacks a package.
    pub fn unpack(&self) -> Result<PathBuf> {
        let base = tools::target().join(self.folder);
        let (root, stamp) = (base.join("root"), base.join("packages.txt"));
        let wanted = format!("{}\n{}\n", self.layout, self.names.join("\n"));
        if root.is_dir() && fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
            return Ok(root);
        }
        let missing = self.missing()?;
        eprintln!("Fetching {} packages with {} into {}", missing.len(), self.what, base.display());
        let (debs, fresh) = (base.join("debs"), base.join("root.new"));
        for folder in [&debs, &fresh] {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        }
        if !missing.is_empty() {
            // The archive's client would change to a user who cannot write into the folder.
            let mut download = Command::new("apt-get");
            download.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(&missing).current_dir(&debs);
            succeed(&mut download)?;
        }
        for package in fs::read_dir(&debs)? {
            tools::run(Command::new("dpkg-deb").arg("-x").arg(package?.path()).arg(&fresh))?;
        }
        fs::remove_dir_all(&debs)?;
        (self.finish)(&fresh)?;
        let _ = fs::remove_dir_all(&root);
        fs::rename(&fresh, &root)?;
        fs::write(&stamp, wanted)?;
        Ok(root)
    }

    /// Returns the packages that an installation would add to this machine, with all that they depend on.
    fn missing(&self) -> Result<Vec<String>> {
        let simulate = || {
            let mut command = Command::new("apt-get");
            command.args(["install", "--simulate", "--no-install-recommends"]).args(self.names).env("LC_ALL", "C");
            output(&mut command)
        };
        let mut simulated = simulate()?;
        if !simulated.status.success() {
            succeed(Command::new("apt-get").args(["-q", "update"]))?;
            simulated = simulate()?;
        }
        if !simulated.status.success() {
            let text = String::from_utf8_lossy(&simulated.stderr);
            bail!("the package archive of this machine lacks them: {}", text.trim().replace('\n', "; "));
        }
        Ok(additions(&String::from_utf8_lossy(&simulated.stdout)))
    }
}

/// Returns what was fetched. Without it, prints the reason and returns `None`.
///
/// # Errors
///
/// Fails under `CI` instead of returning `None`.
pub fn or_left_out<T>(what: &str, attempt: Result<T>) -> Result<Option<T>> {
    match attempt {
        Ok(found) => Ok(Some(found)),
        Err(error) if std::env::var_os("CI").is_some() => Err(error.context(format!("needed in CI: {what}"))),
        Err(error) => {
            eprintln!("Left out: {what}: {error:#}");
            Ok(None)
        }
    }
}

/// Reads the names of added packages from the output of a simulated installation. An upgrade has the old version in
/// brackets after the name; the version on the machine is used as it is.
fn additions(simulated: &str) -> Vec<String> {
    let added = simulated.lines().filter_map(|line| line.strip_prefix("Inst "));
    let added = added.filter_map(|rest| rest.split_once(' '));
    added.filter(|(_, rest)| !rest.starts_with('[')).map(|(name, _)| name.to_string()).collect()
}

/// Runs a command without input and returns its output. Fails if it cannot be started.
fn output(command: &mut Command) -> Result<Output> {
    let line = tools::line(command);
    command.stdin(Stdio::null()).output().with_context(|| format!("could not start `{line}`"))
}

/// Runs a command without input. Fails with the end of its error output if it does not succeed.
fn succeed(command: &mut Command) -> Result<()> {
    let line = tools::line(command);
    let output = output(command)?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{line}` failed: {}", text.lines().last().unwrap_or("no message"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrades_are_no_additions() {
        let simulated = "Reading package lists...\n\
            Inst bash [5.2.15-2+b8] (5.2.15-2+b13 Debian:12.15/oldstable [amd64])\n\
            Inst runc (1.1.5+ds1-1+deb12u1 Debian:12.15/oldstable [amd64])\n\
            Conf runc (1.1.5+ds1-1+deb12u1 Debian:12.15/oldstable [amd64])\n";
        assert_eq!(additions(simulated), ["runc"]);
    }
}
