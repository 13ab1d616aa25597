//! `cargo xtask demo`: runs the main workflow step by step, with the commands that a user would type, and checks the
//! outcome of each step.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build,
    emulator::Emulator,
    tools::{self, line},
};

struct Demo {
    program: PathBuf,
    url: String,
}

impl Demo {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--emulator-url", &self.url]).args(arguments);
        let shown: Vec<_> = arguments.iter().map(|word| quote(word)).collect();
        println!("\n$ sandbox {}", shown.join(" "));
        command
    }

    /// Runs a command with visible output.
    fn show(&self, arguments: &[&str]) -> Result<ExitStatus> {
        Ok(self.command(arguments).status()?)
    }

    /// Runs a command and returns its standard output, which is also printed as it arrives.
    fn output(&self, arguments: &[&str], stdin: &[u8]) -> Result<(ExitStatus, Vec<u8>)> {
        let mut child = self.command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut pipe = child.stdin.take().context("no stdin")?;
        let stdin = stdin.to_vec();
        let writer = std::thread::spawn(move || pipe.write_all(&stdin));
        let mut output = Vec::new();
        child.stdout.take().context("no stdout")?.read_to_end(&mut output)?;
        let status = child.wait()?;
        let _ = writer.join();
        std::io::stdout().write_all(&output)?;
        Ok((status, output))
    }
}

fn quote(word: &str) -> String {
    if word.is_empty() || word.contains([' ', '\'', '"', ';', '$', '&', '>']) {
        format!("'{word}'")
    } else {
        word.to_string()
    }
}

/// Builds the programs, starts an emulator, and runs the main workflow. Fails if a step has another outcome than
/// expected.
pub fn run() -> Result<()> {
    let dist = build::for_modal()?;
    tools::check_namespaces()?;
    let scratch = tools::target().join("demo");
    fs::create_dir_all(&scratch)?;
    println!();
    let command = Emulator::command(&dist.program);
    println!("$ {} &", line(&command));
    let emulator = Emulator::start(command)?;
    println!("MODAL_SERVER_URL={}", emulator.url());
    let demo = Demo { program: dist.program.clone(), url: emulator.url().to_owned() };

    heading("Build an image with a RUN line and create a sandbox from it");
    let dockerfile = scratch.join("Dockerfile");
    fs::write(&dockerfile, "FROM debian:12\nRUN echo 'greetings from the build' | tee /greeting\nWORKDIR /srv\n")?;
    println!("$ cat Dockerfile\n{}", fs::read_to_string(&dockerfile)?);
    let path = dockerfile.to_string_lossy().into_owned();
    let (status, output) = demo.output(&["create", "--name", "demo", "--dockerfile", &path], b"")?;
    ensure!(status.success(), "create failed");
    let id = String::from_utf8(output)?.trim().to_string();

    heading("Run a command: its output arrives on two streams while it runs");
    let status =
        demo.show(&["exec", &id, "--", "sh", "-c", "cat /greeting; echo to stderr >&2; pwd; sleep 0.3; echo later"])?;
    ensure!(status.success(), "exec failed");

    heading("Send standard input to a command");
    let (status, output) = demo.output(&["exec", "-i", &id, "--", "tr", "a-z", "A-Z"], b"fed through stdin\n")?;
    ensure!(status.success() && output == b"FED THROUGH STDIN\n", "the command did not receive its standard input");

    heading("Copy a file into the sandbox and back, unchanged");
    let file = scratch.join("bytes");
    let back = scratch.join("bytes.back");
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(&file, &bytes)?;
    let remote = format!("{id}:/data/bytes");
    ensure!(demo.show(&["cp", &file.to_string_lossy(), &remote])?.success(), "cp failed");
    ensure!(demo.show(&["cp", &remote, &back.to_string_lossy()])?.success(), "cp failed");
    ensure!(fs::read(&back)? == bytes, "the copied file differs from the original");
    println!("(compared: {} bytes, identical)", bytes.len());

    heading("The exit code of a command is passed through");
    let status = demo.show(&["exec", &id, "--", "sh", "-c", "exit 3"])?;
    println!("(exit code {:?})", status.code().unwrap_or(-1));
    ensure!(status.code() == Some(3), "the exit code should be 3, not {status}");

    heading("Terminate the sandbox");
    demo.show(&["list"])?;
    ensure!(demo.show(&["terminate", &id])?.success(), "terminate failed");
    let (status, output) = demo.output(&["list"], b"")?;
    ensure!(status.success() && !String::from_utf8_lossy(&output).contains(&id), "the sandbox is still listed");
    emulator.stop()?;

    println!(
        "
Done: everything went through {}, a component that can reach the emulator's address and nothing else.

The same on Modal, with an account (https://modal.com; `modal token new` writes ~/.modal.toml):

  export MODAL_TOKEN_ID=ak-… MODAL_TOKEN_SECRET=as-…
  {} run --image debian:12 -- sh -c 'echo hello from $(uname -r)'
",
        dist.program.with_file_name("modal-provider.wasm").display(),
        dist.program.display()
    );
    Ok(())
}

fn heading(text: &str) {
    println!("\n── {text} ──");
}
