//! Packages of the archive of a Debian machine, unpacked below `target/`. Nothing is installed on the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tools;

/// Packages that are fetched together.
pub struct Set {
    /// The name of the folder below `target/`.
    pub folder: &'static str,
    /// What they are, for messages.
    pub about: &'static str,
    pub packages: &'static [&'static str],
    /// Raised when the content of the unpacked folder changes for the same packages.
    pub layout: u32,
    /// Does what an installation would do after unpacking.
    pub arrange: fn(root: &Path) -> Result<()>,
}

impl Set {
    /// Returns the folder with the unpacked packages, `target/FOLDER/root`, and fetches them if they are missing. It
    /// contains only the packages that are not installed on this machine.
    ///
    /// # Errors
    ///
    /// Fails if a package is not in the archive, or cannot be fetched or unpacked.
    pub fn fetch(&self) -> Result<PathBuf> {
        let base = tools::target().join(self.folder);
        let (root, stamp) = (base.join("root"), base.join("packages.txt"));
        let wanted = format!("{}\n{}\n", self.layout, self.packages.join("\n"));
        if root.is_dir() && fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
            return Ok(root);
        }
        let missing = missing(self.packages)?;
        eprintln!("Fetching {} packages with {} into {}", missing.len(), self.about, base.display());
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
        (self.arrange)(&fresh)?;
        for folder in [&root, &debs] {
            let _ = fs::remove_dir_all(folder);
        }
        fs::rename(&fresh, &root)?;
        fs::write(&stamp, wanted)?;
        Ok(root)
    }
}

/// Returns the packages that an installation would add to this machine, with all that they depend on.
fn missing(packages: &[&str]) -> Result<Vec<String>> {
    let simulate = || {
        let mut command = Command::new("apt-get");
        command.args(["install", "--simulate", "--no-install-recommends"]).args(packages).env("LC_ALL", "C");
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
