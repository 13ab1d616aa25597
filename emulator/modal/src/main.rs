//! The program `modal-emulator`: parses the command line and runs `modal_emulator::cli`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

/// An offline Modal: the sandbox part of its API on a loopback port, over real processes in real isolation.
#[derive(Debug, Parser)]
#[command(name = "modal-emulator", version)]
struct Program {
    #[command(flatten)]
    args: modal_emulator::cli::Args,
}

fn main() -> ExitCode {
    modal_emulator::child_entry();
    match modal_emulator::cli::run(Program::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Does not use `eprintln!`, which panics if standard error cannot be written.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
