//! The command line as a whole: what it prints, how it behaves on a terminal, what an interruption leaves, what a killed
//! harness leaves, and where plugins come from. Simple uses are in `cli.rs`, wrong input in `bad_input.rs`.

mod care;
mod interrupt;
mod output;
mod pull;
mod sweep;
mod telemetry;
mod terminal;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, ExitStatus},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;
use system_tests::{Emulator, feed, stderr};

/// One emulator for all tests that do not mind each other. It ends with this process, as its standard input does.
fn shared() -> &'static Emulator {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    EMULATOR.get_or_init(|| {
        let emulator = Emulator::start();
        // Whoever is first would see the log of their build, and nobody else.
        printed(&emulator, &["build", "-q"]);
        printed(&emulator, &["build", "-q", "--image", "debian"]);
        emulator
    })
}

/// A request to the emulator's own endpoint; the answer's body.
fn request(emulator: &Emulator, method: &str, path: &str, body: &str) -> Value {
    let address = emulator.url().strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).expect("it listens");
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{method} {path} {body}: {answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
}

/// Orders faults.
fn order(emulator: &Emulator, rules: &Value) {
    request(emulator, "POST", "/emulator/faults", &rules.to_string());
}

/// How often the first fault was applied so far.
fn applied(emulator: &Emulator) -> u64 {
    request(emulator, "GET", "/emulator/faults", "")[0]["applied"].as_u64().expect("a number")
}

/// The sandboxes that have not ended.
fn alive(emulator: &Emulator) -> Vec<String> {
    let state = request(emulator, "GET", "/emulator/state", "");
    let sandboxes = state["sandboxes"].as_array().expect("a list");
    let lives = |sandbox: &&Value| !matches!(sandbox["phase"].as_str(), Some("ended" | "ending"));
    sandboxes.iter().filter(lives).map(|sandbox| sandbox["id"].as_str().expect("an id").to_owned()).collect()
}

/// Longer than anything takes that will happen at all; what is waited for is never a matter of time.
const NEVER: Duration = Duration::from_secs(120);

/// Looks again until it is so.
fn until(mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < NEVER, "it never becomes so");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the condition holds or the program has ended; how it ended, in that case.
fn until_or_end(child: &mut Child, mut so: impl FnMut() -> bool) -> Option<ExitStatus> {
    let mut ended = None;
    until(|| {
        // In this order: what happened before the end is seen.
        ended = child.try_wait().expect("a child");
        so() || ended.is_some()
    });
    if so() { None } else { ended }
}

/// Runs it, wants success, and gives what it printed, without white space around.
fn printed(emulator: &Emulator, arguments: &[&str]) -> String {
    let output = feed(emulator.sandbox().args(arguments), b"");
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}
