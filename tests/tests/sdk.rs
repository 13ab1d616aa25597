//! The official SDKs, unmodified, against the emulator.

use std::process::Command;

use system_tests::{Emulator, python};

#[test]
fn the_official_python_sdk() {
    let emulator = Emulator::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/sdk-python/run.py");
    let output = Command::new(python())
        .arg(script)
        .env("MODAL_SERVER_URL", emulator.url())
        .env("MODAL_TOKEN_ID", "ak-test")
        .env("MODAL_TOKEN_SECRET", "as-test")
        .env("MODAL_CONFIG_PATH", "/nonexistent/modal.toml")
        .output()
        .expect("python runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    assert!(output.status.success(), "{text}");
}
