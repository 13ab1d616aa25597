//! The unmodified component under hosts that nobody here wrote: wasmtime's Python package, and Node by way of jco. Both speak
//! HTTP/1.1 alone, so they go through `sandbox gateway`, and hold nothing but the gateway's token.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use system_tests::{Emulator, component, node, python};

/// A gateway in front of an emulator, and what it says that a host has to set.
struct Gateway {
    child: Child,
    /// Kept open: it says more than is read here, and would end if nobody could hear it.
    _output: BufReader<ChildStdout>,
    env: Vec<(String, String)>,
}

impl Gateway {
    fn start(emulator: &Emulator) -> Gateway {
        let mut command = emulator.sandbox();
        command.args(["--plugin".as_ref(), component().as_os_str()]).args(["gateway", "--exit-with-stdin"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the gateway starts");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let lines = output.by_ref().lines().map(|line| line.expect("text"));
        // Address, wire form, and the two names of the token.
        let env =
            lines.take(4).map(|line| line.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).expect(&line));
        Gateway { env: env.collect(), child, _output: output }
    }

    /// Runs a host with these variables and no others of Modal's.
    fn check(&self, host: &mut Command) {
        let output = host.arg(component()).envs(self.env.iter().cloned()).output().expect("the host starts");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{text}");
        assert!(output.status.success() && text.contains("9 passed, 0 failed"), "{text}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn python_with_wasmtime() {
    let emulator = Emulator::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hosts/host.py");
    Gateway::start(&emulator).check(Command::new(python()).arg(script));
}

#[test]
fn node_with_jco() {
    let emulator = Emulator::start();
    let mut host = node("hosts", "host.mjs", &[]);
    // Beside the npm packages, where the translated component finds its WASI.
    let folder = system_tests::npm().join("translated");
    let gateway = Gateway::start(&emulator);
    gateway.check(host.env("TRANSLATED", folder));
}
