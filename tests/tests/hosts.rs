//! Runs the unmodified component in stock hosts: wasmtime's Python package, and Node with jco. Both speak HTTP/1.1
//! only, so they connect through `sandbox gateway` and hold only the token of the gateway.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use system_tests::{Emulator, component, node, python};

/// A running gateway in front of an emulator, with the environment variables that it prints for a host.
struct Gateway {
    child: Child,
    /// Kept open, because the gateway prints more than is read here and would end when nothing reads its output.
    _output: BufReader<ChildStdout>,
    env: Vec<(String, String)>,
}

impl Gateway {
    fn start(emulator: &Emulator) -> Gateway {
        let mut command = emulator.sandbox();
        command.args(["--plugin".as_ref(), component().as_os_str()]).args(["gateway", "--exit-with-stdin"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cannot start the gateway");
        let mut output = BufReader::new(child.stdout.take().expect("the stream is not piped"));
        let lines = output.by_ref().lines().map(|line| line.expect("not UTF-8"));
        // The first four lines: the address, the wire format, and the two parts of the token.
        let env =
            lines.take(4).map(|line| line.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).expect(&line));
        Gateway { env: env.collect(), child, _output: output }
    }

    /// Runs a host with these variables and no other variables of Modal.
    fn check(&self, host: &mut Command) {
        let output = host.arg(component()).envs(self.env.iter().cloned()).output().expect("cannot start the host");
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
fn the_component_runs_in_python_with_wasmtime() {
    let emulator = Emulator::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hosts/host.py");
    Gateway::start(&emulator).check(Command::new(python()).arg(script));
}

#[test]
fn the_component_runs_in_node_with_jco() {
    let emulator = Emulator::start();
    let mut host = node("hosts", "host.mjs", &[]);
    // The translated component must be next to the npm packages, where Node finds the WASI implementation.
    let folder = system_tests::npm().join("translated");
    let gateway = Gateway::start(&emulator);
    gateway.check(host.env("TRANSLATED", folder));
}
