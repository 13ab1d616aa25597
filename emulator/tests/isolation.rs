//! Containers as the rest of the emulator uses them: real processes of real programs, seen from both sides.

use std::{
    ffi::OsString,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use modal_emulator::isolation::{Container, ContainerSpec, Engine, Exit, Process, ProcessSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Nothing here takes longer on a busy machine; without a bound a hang would look like a slow test.
const PATIENCE: Duration = Duration::from_secs(60);

const PROGRAM: &str = env!("CARGO_BIN_EXE_modal-emulator");

struct Machine {
    engine: Engine,
    state: PathBuf,
    _parent: tempfile::TempDir,
}

fn machine() -> Machine {
    let parent = tempfile::tempdir().unwrap();
    let state = parent.path().join("modal-emulator-1-test");
    let engine = Engine::new(&state, Path::new(PROGRAM)).unwrap();
    Machine { engine, state, _parent: parent }
}

fn spec(id: &str) -> ContainerSpec {
    ContainerSpec { id: id.into(), hostname: format!("{id}-host"), ..Default::default() }
}

fn command(argv: &[&str]) -> ProcessSpec {
    ProcessSpec { argv: argv.iter().map(OsString::from).collect(), ..Default::default() }
}

fn shell(script: &str) -> ProcessSpec {
    command(&["/bin/sh", "-c", script])
}

async fn read_all(fd: OwnedFd) -> String {
    let mut reader = tokio::net::unix::pipe::Receiver::from_owned_fd(fd).unwrap();
    let mut text = Vec::new();
    reader.read_to_end(&mut text).await.unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// What came of a process: its end, its output, its errors.
async fn finish(process: Process) -> (Exit, String, String) {
    let Process { stdin, stdout, stderr, exit, .. } = process;
    drop(stdin);
    let all = async {
        let errors = async {
            match stderr {
                Some(stderr) => read_all(stderr).await,
                None => String::new(),
            }
        };
        let (output, errors, exit) = tokio::join!(read_all(stdout), errors, exit);
        (exit.unwrap(), output, errors)
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap()
}

async fn run(container: &Container, spec: ProcessSpec) -> (Exit, String, String) {
    finish(container.spawn(spec).await.unwrap()).await
}

/// Output of a script that has to succeed.
async fn output(container: &Container, script: &str) -> String {
    let (exit, output, errors) = run(container, shell(script)).await;
    assert_eq!(exit, Exit::Code(0), "{script}: {output}{errors}");
    output.trim_end().to_owned()
}

#[tokio::test]
async fn processes_end_as_they_end() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    assert_eq!(run(&container, command(&["true"])).await.0, Exit::Code(0));
    assert_eq!(run(&container, shell("exit 7")).await.0, Exit::Code(7));
    assert_eq!(run(&container, shell("kill -TERM $$")).await.0, Exit::Signal(libc::SIGTERM));
    // A real-time signal, for which few libraries have a name.
    assert_eq!(run(&container, shell("kill -40 $$")).await.0, Exit::Signal(40));
    let (exit, out, err) = run(&container, shell("echo out; echo err >&2")).await;
    assert_eq!((exit, out.as_str(), err.as_str()), (Exit::Code(0), "out\n", "err\n"));
    let merged = ProcessSpec { merge_stderr: true, ..shell("echo out; echo err >&2") };
    assert_eq!(run(&container, merged).await, (Exit::Code(0), "out\nerr\n".into(), String::new()));
}

#[tokio::test]
async fn what_cannot_be_run_says_so() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let (exit, _, err) = run(&container, command(&["no-such-program"])).await;
    assert_eq!((exit, err.as_str()), (Exit::Code(127), "no-such-program: not found\n"));
    assert_eq!(run(&container, command(&["/no/such/program"])).await.0, Exit::Code(127));
    assert_eq!(run(&container, command(&[""])).await.0, Exit::Code(127));
    assert_eq!(run(&container, command(&["/etc/passwd"])).await.0, Exit::Code(126));
    output(&container, "printf x > /tmp/garbage; chmod +x /tmp/garbage").await;
    assert_eq!(run(&container, command(&["/tmp/garbage"])).await.0, Exit::Code(126));
    let lost = ProcessSpec { cwd: "/no/such/place".into(), ..command(&["true"]) };
    let (exit, _, err) = run(&container, lost).await;
    assert_eq!(exit, Exit::Code(127));
    assert!(err.starts_with("cannot change to /no/such/place"), "{err}");
    let stranger = ProcessSpec { user: Some("nobody-knows".into()), ..command(&["true"]) };
    let (exit, _, err) = run(&container, stranger).await;
    assert_eq!(exit, Exit::Code(126));
    assert!(err.contains("nobody-knows"), "{err}");
    assert!(container.spawn(command(&[])).await.is_err());
    assert!(container.spawn(command(&["a\0b"])).await.is_err());
}

#[tokio::test]
async fn input_arrives_and_ends() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let Process { stdin, stdout, exit, .. } = container.spawn(command(&["cat"])).await.unwrap();
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let mut stdin = tokio::net::unix::pipe::Sender::from_owned_fd(stdin).unwrap();
    let mut stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout).unwrap();
    let write = async {
        stdin.write_all(&sent).await.unwrap();
        drop(stdin);
    };
    let mut received = Vec::new();
    let both = async { tokio::join!(write, stdout.read_to_end(&mut received)) };
    tokio::time::timeout(PATIENCE, both).await.unwrap().1.unwrap();
    assert!(received == sent);
    assert_eq!(exit.await.unwrap(), Exit::Code(0));
}
