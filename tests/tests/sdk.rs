//! Runs the checks of the official SDKs, which are not modified, with the emulator.

use std::process::Command;

use system_tests::internet::{HERE, MACHINE, Powers, THERE, on_the_internet};
use system_tests::{Emulator, javascript_checks, javascript_checks_passed, python_checks};

/// Runs checks with `pytest` or `node --test`, whose output names the failed ones. The checks run on the simulated
/// internet, whose names and addresses the network checks know, with an emulator whose sandboxes may use it. A second
/// emulator gives its sandboxes no network and permits four streams per connection.
fn check(command: &mut Command, passed: impl Fn(&str) -> bool) {
    on_the_internet(Powers::Own, || {
        let names = [("api.example.com", HERE), ("other.example.org", THERE), ("home.example.com", MACHINE)];
        let resolve = names.map(|(name, address)| format!("--resolve={name}={address}"));
        let emulator = Emulator::with(&[&["--network".to_owned()], &resolve[..]].concat());
        let without = Emulator::with(&["--max-streams=4"]);
        let output = command
            .env("MODAL_SERVER_URL", emulator.url())
            .env("SERVER_URL_WITHOUT_NETWORK", without.url())
            // The checks of the emulator's memory use read its process information.
            .env("EMULATOR_PID", emulator.pid().to_string())
            .env("MODAL_TOKEN_ID", "ak-test")
            .env("MODAL_TOKEN_SECRET", "as-test")
            .env("MODAL_CONFIG_PATH", "/nonexistent/modal.toml")
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{text}");
        assert!(output.status.success() && passed(&text), "{text}");
    });
}

/// Files of the checks of the Python SDK, in two of three groups that take about the same time. The third has all others.
const LIFECYCLE: &str = "checks_lifecycle or checks_chaos or checks_snapshots or checks_persistent";
const CLIENTS: &str = "checks_cli or checks_files or checks_network or checks_async";

/// Runs the checks of the Python SDK in the files that this expression of pytest selects.
fn python_files(files: &str) {
    // pytest fails if it finds no check.
    check(&mut python_checks(files), |_| true);
}

#[test]
fn the_checks_of_the_official_python_sdk_pass_for_lifecycles() {
    python_files(LIFECYCLE);
}

#[test]
fn the_checks_of_the_official_python_sdk_pass_for_clients() {
    python_files(CLIENTS);
}

#[test]
fn the_other_checks_of_the_official_python_sdk_pass() {
    python_files(&format!("not ({LIFECYCLE} or {CLIENTS})"));
}

#[test]
fn the_checks_of_the_official_javascript_sdk_pass() {
    check(&mut javascript_checks(""), javascript_checks_passed);
}
