//! The step `evals` of the tests: evals of other packages, run with the built wheel in sandboxes of the emulator.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{
    inspect,
    test::Report,
    tools::{self, Version},
};

/// The packages that need a newer Python than the plugin, as `requirements-evals.txt` says too.
const NEWER: &[(&str, Version)] = &[("inspect_evals", Version(3, 11)), ("inspect_harbor", Version(3, 12))];

/// Runs what can be installed for the newest Python of this machine, and names what cannot.
///
/// # Errors
///
/// If a test failed twice, or a package cannot be installed.
pub fn test(report: &mut Report, filter: Option<&str>) -> Result<()> {
    let (interpreter, version) =
        tools::newest_python(Version(3, 10)).context("Python 3.10 or newer with its venv module is needed")?;
    for (package, least) in NEWER.iter().filter(|(_, least)| version < *least) {
        eprintln!("Not run: the evals of {package}, which needs Python {least}. The newest here is {version}.");
    }
    let requirements = inspect::tree().join("requirements-evals.txt");
    let python = tools::environment_of(&interpreter, "evals-venv", &requirements)?;
    inspect::install(&python)?;
    // The packages keep files there, and the plugin its compiled component.
    let cache: PathBuf = tools::target().join("evals-cache");
    inspect::pytest(report, filter, || {
        // The warnings are about the packages.
        let mut command = inspect::module(&python, &["pytest", "tests/outside", "--disable-warnings"]);
        command.env("XDG_CACHE_HOME", &cache);
        command
    })
}
