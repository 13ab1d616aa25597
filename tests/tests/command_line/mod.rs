//! The command-line program as a whole: its output, its behaviour on a terminal, what is left after an interruption and
//! after the end of a killed program, and how plugins are pulled. Simple uses are in `cli.rs`, wrong input in
//! `bad_input.rs`.

mod care;
mod docker;
mod interrupt;
mod output;
mod pull;
mod sweep;
mod telemetry;
mod terminal;

use std::{
    process::{Child, ExitStatus},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;
use system_tests::{Emulator, feed, http_client::text, stderr};

/// Returns an emulator that is shared by all tests which do not affect each other. It ends with this process, which
/// holds its standard input.
fn shared() -> &'static Emulator {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    EMULATOR.get_or_init(|| {
        let emulator = Emulator::start();
        // The first user of an image would otherwise see its build log, and later ones would not.
        printed(&emulator, &["build", "-q"]);
        printed(&emulator, &["build", "-q", "--image", "debian"]);
        emulator
    })
}

/// Sends a request to the control endpoint of the emulator and returns the body of the response.
fn request(emulator: &Emulator, method: &str, path: &str, body: &str) -> Value {
    let answer = emulator.request(method, path, body);
    assert_eq!(answer.status(), 200, "{method} {path} {body}: {}", text(&answer));
    serde_json::from_slice(answer.body()).expect("invalid JSON")
}

/// Adds fault rules to the emulator.
fn order(emulator: &Emulator, rules: &Value) {
    request(emulator, "POST", "/emulator/faults", &rules.to_string());
}

/// Returns how often the first fault was applied so far.
fn applied(emulator: &Emulator) -> u64 {
    request(emulator, "GET", "/emulator/faults", "")[0]["applied"].as_u64().expect("not a number")
}

/// Returns the ids of the sandboxes that have not ended.
fn alive(emulator: &Emulator) -> Vec<String> {
    let state = request(emulator, "GET", "/emulator/state", "");
    let sandboxes = state["sandboxes"].as_array().expect("not a list");
    let lives = |sandbox: &&Value| !matches!(sandbox["phase"].as_str(), Some("ended" | "ending"));
    sandboxes.iter().filter(lives).map(|sandbox| sandbox["id"].as_str().expect("no id").to_owned()).collect()
}

/// Time after which a wait counts as failed. It is much longer than any expected wait, so tests do not depend on
/// timing.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// Waits until the condition holds, by polling.
fn until(mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < WAIT_TIMEOUT, "the condition did not become true in {WAIT_TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the condition holds or the program has ended. Returns the exit status in the second case.
fn until_or_end(child: &mut Child, mut so: impl FnMut() -> bool) -> Option<ExitStatus> {
    let mut ended = None;
    until(|| {
        // The condition is evaluated after the end of the program, so that effects before the end are seen.
        ended = child.try_wait().expect("cannot wait for the process");
        so() || ended.is_some()
    });
    if so() { None } else { ended }
}

/// Runs the program, which must succeed, and returns its standard output without surrounding white space.
fn printed(emulator: &Emulator, arguments: &[&str]) -> String {
    let output = feed(emulator.sandbox().args(arguments), b"");
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).expect("not UTF-8").trim().to_owned()
}
