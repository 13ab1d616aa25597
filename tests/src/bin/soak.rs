//! Runs many random cases of [`system_tests::faults`]; `cargo xtask soak` starts it. A case that violates a rule is
//! printed with its seed, and `--runs 1 --seed SEED` runs it again. With `--proxy` the connections are damaged instead
//! of single calls.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
};

use system_tests::faults;

/// Number of cases that run at the same time. More of them only wait for the processor.
const MAX_BENCHES: u64 = 4;

static DONE: AtomicU64 = AtomicU64::new(0);

fn number(arguments: &[String], name: &str) -> Result<Option<u64>, String> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
    let text = arguments.get(at + 1).ok_or_else(|| format!("{name} needs a number"))?;
    text.parse().map(Some).map_err(|_| format!("{name} {text}: not a number"))
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
    // A new seed for each start, short enough to be typed.
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 100_000);
    println!("{runs} runs from seed {seed}");
    let verbose = runs == 1;
    let ended = faults::soak(seed, runs, MAX_BENCHES.min(runs), proxy, move |case, outcome| {
        let done = DONE.fetch_add(1, Ordering::Relaxed) + 1;
        if verbose {
            println!("{case:?}\n{outcome:?}");
        } else if done.is_multiple_of(100) {
            println!("{done} done");
        }
    });
    match ended.await {
        Ok(counts) => {
            println!("all cases passed: {counts:?}");
            ExitCode::SUCCESS
        }
        Err((case, why)) => {
            let how = if proxy { " --proxy" } else { "" };
            eprintln!(
                "failed: {case:?}\n{why}\nrun it again with: cargo xtask soak{how} --runs 1 --seed {}",
                case.seed
            );
            ExitCode::FAILURE
        }
    }
}
