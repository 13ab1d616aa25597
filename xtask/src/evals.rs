//! The test step `evals`: runs evals of other packages with the built wheel, in sandboxes of the emulator.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{
    inspect, python,
    report::Report,
    tools::{self, Version},
};

/// Packages that need a newer Python than the plugin, with the oldest version of each. `requirements-evals.txt` has the
/// same limits.
const NEWER: &[(&str, Version)] = &[("inspect_evals", Version(3, 11)), ("inspect_harbor", Version(3, 12))];

/// Runs the evals that the newest Python of this machine can run, and names the others.
///
/// # Errors
///
/// Fails if a test failed twice, or a package cannot be installed.
pub fn test(report: &mut Report, filter: Option<&str>) -> Result<()> {
    let (interpreter, version) =
        tools::newest_python(Version(3, 10)).context("Python 3.10 or newer with its venv module is needed")?;
    for (package, least) in NEWER.iter().filter(|(_, least)| version < *least) {
        eprintln!("Skipped: the evals of {package}, which need Python {least}. The newest Python found is {version}.");
    }
    let requirements = inspect::tree().join("requirements-evals.txt");
    let python = tools::environment_of(&interpreter, "evals-venv", &requirements)?;
    inspect::install(&python)?;
    // The packages cache files in this folder, and the plugin its compiled component.
    let cache: PathBuf = tools::target().join("evals-cache");
    python::pytest(report, filter, || {
        // The suppressed warnings come from the packages under test.
        let mut command = inspect::module(&python, &["pytest", "tests/outside", "--disable-warnings"]);
        command.env("XDG_CACHE_HOME", &cache);
        command
    })
}
