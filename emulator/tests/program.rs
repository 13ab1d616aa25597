//! The emulator as a program: how it ends, and what it leaves, whatever becomes of those that started it or read its log.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use modal_proto::client as proto;
use nix::sys::signal::{self, Signal, kill};
use nix::unistd::Pid;
use tonic::transport::Channel;

use crate::grpc::client::signed_in;

/// Longer than anything takes that will happen at all.
const PATIENCE: Duration = Duration::from_secs(120);

fn emulator(parent: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modal-emulator"));
    command.arg("--state-dir").arg(parent).env("RUST_LOG", "debug");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // A test run under `nohup` would have the emulator ignore SIGHUP, as it should then.
    // Safety: one system call, which takes nothing from memory.
    unsafe {
        command.pre_exec(|| Ok(signal::signal(Signal::SIGHUP, signal::SigHandler::SigDfl).map(drop)?));
    }
    command
}

/// Its address, once it has said it.
fn url(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().strip_prefix("MODAL_SERVER_URL=").unwrap_or_else(|| panic!("it says: {line}")).to_owned()
}

/// How it ends; it is killed when it does not.
fn end(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

fn left(parent: &Path) -> Vec<String> {
    fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Builds an image over gRPC; what the failure says.
async fn build(url: &str, lines: &[&str]) -> Result<(), String> {
    let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
    let (mut control, app_id) = signed_in(&channel).await;
    let image = proto::Image {
        dockerfile_commands: lines.iter().map(|line| (*line).to_owned()).collect(),
        ..Default::default()
    };
    let request = proto::ImageGetOrCreateRequest { app_id, image: Some(image), ..Default::default() };
    let image_id = control.image_get_or_create(request).await.unwrap().into_inner().image_id;
    let join = proto::ImageJoinStreamingRequest { image_id, timeout: 60.0, ..Default::default() };
    let mut stream = control.image_join_streaming(join).await.unwrap().into_inner();
    let mut result = None;
    while let Some(message) = stream.message().await.map_err(|status| status.to_string())? {
        result = result.or(message.result);
    }
    let result = result.ok_or("the build does not end")?;
    if result.exception.is_empty() { Ok(()) } else { Err(result.exception) }
}

/// Files of a container that are no files, or have no end, where the emulator looks for accounts and for what to copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipes_in_place_of_files_hold_nothing_up() {
    let parent = tempfile::tempdir().unwrap();
    let mut child = emulator(parent.path()).spawn().unwrap();
    let url = url(&mut child);
    // More of them than the emulator has threads for its work.
    let pipes = (0..8).map(|number| {
        let url = url.clone();
        tokio::spawn(async move {
            let pipe = format!("RUN rm -f /etc/passwd && mkfifo /etc/passwd # {number}");
            build(&url, &["FROM debian", &pipe, "COPY --from=debian --chown=daemon /etc/group /x"]).await
        })
    });
    let pipes: Vec<_> = pipes.collect();
    let all = async {
        for pipe in pipes {
            let refused = pipe.await.unwrap().unwrap_err();
            assert!(refused.contains("daemon is unknown in the image"), "{refused}");
        }
        let endless = "RUN rm -f /etc/passwd && truncate -s 1T /etc/passwd";
        let refused = build(&url, &["FROM debian", endless, "COPY --from=debian --chown=daemon /etc/group /x"]).await;
        assert!(refused.unwrap_err().contains("daemon is unknown in the image"));
        // Pipes are not copied.
        build(
            &url,
            &[
                "FROM debian AS from",
                "RUN mkdir /d && mkfifo /d/pipe && echo x >/d/file",
                "FROM debian",
                "COPY --from=from /d /d",
                "COPY --from=from /d/pipe /e",
                "RUN test \"$(ls /d)\" = file && test ! -e /e",
            ],
        )
        .await
        .unwrap();
    };
    let done = tokio::time::timeout(PATIENCE, all).await;
    send(&child, Signal::SIGTERM);
    let ended = tokio::task::spawn_blocking(move || end(&mut child)).await.unwrap();
    done.expect("builds end");
    assert!(ended.success(), "{ended}");
    assert_eq!(left(parent.path()), [""; 0]);
}

/// The log goes to a pipe that nothing reads any more, or to a full disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_is_no_failure() {
    for full in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let mut command = emulator(parent.path());
        if full {
            command.stderr(File::options().write(true).open("/dev/full").unwrap());
        } else {
            command.stderr(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        drop(child.stderr.take());
        let url = url(&mut child);
        build(&url, &["FROM debian", "RUN echo x"]).await.unwrap();
        send(&child, Signal::SIGTERM);
        let ended = tokio::task::spawn_blocking(move || end(&mut child)).await.unwrap();
        assert!(ended.success(), "{ended}");
        assert_eq!(left(parent.path()), [""; 0]);
    }
}

/// Also an error that ends it is no panic when it cannot be told.
#[test]
fn an_error_that_cannot_be_told_has_its_exit_code() {
    let parent = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = emulator(parent.path());
    command.args(["--listen", &taken.local_addr().unwrap().to_string()]);
    command.stderr(File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(end(&mut command.spawn().unwrap()).code(), Some(1));
}

/// Signals at every moment of the start; and the end of the input, with the readers of all that it says.
#[test]
fn an_early_end_leaves_nothing() {
    for how in [Some(Signal::SIGTERM), Some(Signal::SIGINT), Some(Signal::SIGHUP), None] {
        for step in 0..5 {
            let parent = tempfile::tempdir().unwrap();
            let mut command = emulator(parent.path());
            command.arg("--exit-with-stdin").stdin(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            // From the moment on at which there is something to be left, or a little later.
            let begun = Instant::now();
            while left(parent.path()).is_empty() && child.try_wait().unwrap().is_none() && begun.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(step * step * 15));
            match how {
                Some(how) => send(&child, how),
                None => {
                    drop(child.stdout.take());
                    drop(child.stderr.take());
                    drop(child.stdin.take());
                }
            }
            end(&mut child);
            assert_eq!(left(parent.path()), [""; 0], "{how:?} after step {step}");
        }
    }
}
