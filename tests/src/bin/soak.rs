//! Many random cases of [`system_tests::faults`]; `cargo xtask soak` starts it. A case that does not hold is printed with
//! its seed, and `--runs 1 --seed` runs it again. With `--proxy` the connections are spoiled instead of the calls.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
};

use system_tests::faults;

/// Cases at a time; more only makes them wait for the processor.
const BENCHES: u64 = 4;

static DONE: AtomicU64 = AtomicU64::new(0);

fn number(arguments: &[String], name: &str) -> Result<Option<u64>, String> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
    let text = arguments.get(at + 1).ok_or_else(|| format!("{name} needs a number"))?;
    text.parse().map(Some).map_err(|_| format!("{name} {text}: that is no number"))
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (runs, seed) = match (number(&arguments, "--runs"), number(&arguments, "--seed")) {
        (Ok(runs), Ok(seed)) => (runs.unwrap_or(1000), seed),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let proxy = arguments.iter().any(|argument| argument == "--proxy");
    // A new one each time, and small enough to be typed.
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 100_000);
    println!("{runs} runs from seed {seed}");
    let verbose = runs == 1;
    let ended = faults::soak(seed, runs, BENCHES.min(runs), proxy, move |case, outcome| {
        let done = DONE.fetch_add(1, Ordering::Relaxed) + 1;
        if verbose {
            println!("{case:?}\n{outcome:?}");
        } else if done.is_multiple_of(100) {
            println!("{done} done");
        }
    });
    match ended.await {
        Ok(counts) => {
            println!("all held: {counts:?}");
            ExitCode::SUCCESS
        }
        Err((case, why)) => {
            let how = if proxy { " --proxy" } else { "" };
            eprintln!("did not hold: {case:?}\n{why}\nagain: cargo xtask soak{how} --runs 1 --seed {}", case.seed);
            ExitCode::FAILURE
        }
    }
}
