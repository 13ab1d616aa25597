//! The official SDKs, unmodified, against the emulator.

use std::{path::Path, process::Command};

use system_tests::{Emulator, npm, python};

/// Runs a script of checks; it says itself what failed.
fn check(command: &mut Command) {
    let emulator = Emulator::start();
    let output = command
        .env("MODAL_SERVER_URL", emulator.url())
        .env("MODAL_TOKEN_ID", "ak-test")
        .env("MODAL_TOKEN_SECRET", "as-test")
        .env("MODAL_CONFIG_PATH", "/nonexistent/modal.toml")
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    assert!(output.status.success(), "{text}");
    assert!(text.contains(" passed, 0 failed"), "{text}");
}

#[test]
fn the_official_python_sdk() {
    check(Command::new(python()).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk-python/run.py")));
}

#[test]
fn the_official_javascript_sdk() {
    // Packages are found from where the script lies.
    let script = npm().join("run.mjs");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk-js/run.mjs"), &script).expect("a copy");
    check(Command::new(npm().join("node")).arg(&script));
}
