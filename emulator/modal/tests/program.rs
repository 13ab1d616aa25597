//! The emulator as a program: how it exits and what it leaves behind, even if its parent or the reader of its log is gone.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use modal_proto::client as proto;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::transport::Channel;

use crate::grpc::client::signed_in;

/// Longer than anything in these tests takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the command of an emulator. It ends with its standard input, which also closes when a test panics and drops it.
fn emulator(parent: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modal-emulator"));
    command.arg("--exit-with-stdin").arg("--state-dir").arg(parent).env("RUST_LOG", "debug");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    crate::sys::default_sighup(&mut command);
    command
}

/// Waits for the address that the emulator prints.
fn url(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().strip_prefix("MODAL_SERVER_URL=").unwrap_or_else(|| panic!("it says: {line}")).to_owned()
}

/// Waits for the emulator's exit. Kills it if it does not exit.
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

/// Builds an image over gRPC. The error is the text of the failure.
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

/// The emulator reads account files and copies files in containers. In place of them are pipes, and files without an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipes_in_place_of_files_hold_nothing_up() {
    let parent = tempfile::tempdir().unwrap();
    let mut child = emulator(parent.path()).spawn().unwrap();
    let url = url(&mut child);
    // More pipes than the emulator has worker threads.
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

/// The log goes to a pipe without a reader, or to a full disk.
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

/// A fatal error that cannot be printed must not cause a panic.
#[test]
fn an_error_that_cannot_be_told_has_its_exit_code() {
    let parent = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = emulator(parent.path());
    command.args(["--listen", &taken.local_addr().unwrap().to_string()]);
    command.stderr(File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(end(&mut command.spawn().unwrap()).code(), Some(1));
}

/// Ends the emulator with signals at different moments of its start, or by closing its input and the pipes of its output.
#[test]
fn an_early_end_leaves_nothing() {
    for how in [Some(Signal::SIGTERM), Some(Signal::SIGINT), Some(Signal::SIGHUP), None] {
        for step in 0..5 {
            let parent = tempfile::tempdir().unwrap();
            let mut command = emulator(parent.path());
            command.stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            // Waits until the emulator has created something that it could leave behind, and in some steps a little longer.
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

/// What a process and its cgroups hold: descriptors, threads, resident memory in KiB, children, mounts, groups.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    threads: usize,
    memory: usize,
    children: usize,
    mounts: usize,
    groups: usize,
    files: usize,
}

impl Held {
    /// Counts what the emulator with this process id and state directory holds.
    fn by(pid: u32, state: &Path) -> Held {
        let count = |path: &str| fs::read_dir(format!("/proc/{pid}/{path}")).unwrap().count();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let children = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().map(|task| {
            let of_task = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            of_task.split_whitespace().count()
        });
        let groups = fs::read_to_string(state.join("cgroups")).unwrap_or_default();
        let groups = groups
            .lines()
            .flat_map(fs::read_dir)
            .map(|group| group.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count());
        let files = ["containers", "spools", "volumes"].map(|part| fs::read_dir(state.join(part)).unwrap().count());
        Held {
            descriptors: count("fd"),
            threads: count("task"),
            memory: memory.trim().trim_end_matches("kB").trim().parse().unwrap(),
            children: children.sum(),
            mounts: fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap().lines().count(),
            groups: groups.sum(),
            files: files.iter().sum(),
        }
    }
}

/// Each ended sandbox left a file descriptor of its first process open, so that no sandbox could start after some hundreds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_two_thousand_ended_sandboxes_is_left() {
    const WARM_UP: usize = 100;
    const ALL: usize = 2000;
    /// Number of sandboxes that run at the same time.
    const TOGETHER: usize = 8;
    let parent = tempfile::tempdir().unwrap();
    let mut child = emulator(parent.path()).env("RUST_LOG", "error").spawn().unwrap();
    let url = url(&mut child);
    let state = parent.path().join(left(parent.path()).pop().unwrap());
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    let (mut control, app_id) = signed_in(&channel).await;
    let image = proto::Image { dockerfile_commands: vec!["FROM debian".into()], ..Default::default() };
    let request = proto::ImageGetOrCreateRequest { app_id: app_id.clone(), image: Some(image), ..Default::default() };
    let image_id = control.image_get_or_create(request).await.unwrap().into_inner().image_id;
    let join = proto::ImageJoinStreamingRequest { image_id: image_id.clone(), timeout: 60.0, ..Default::default() };
    let mut stream = control.image_join_streaming(join).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    let make = |number: usize| {
        let mut control = control.clone();
        // Some sandboxes write more output than fits into memory.
        let argv: &[&str] = if number.is_multiple_of(20) { &["head", "-c", "50000", "/dev/zero"] } else { &["true"] };
        let request = proto::SandboxCreateV2Request {
            app_id: app_id.clone(),
            definition: Some(proto::Sandbox {
                image_id: image_id.clone(),
                timeout_secs: 600,
                entrypoint_args: argv.iter().map(|arg| (*arg).to_owned()).collect(),
                ..Default::default()
            }),
            ..Default::default()
        };
        async move {
            let sandbox_id = control.sandbox_create_v2(request).await.unwrap().into_inner().sandbox_id;
            let wait = proto::SandboxWaitRequest { sandbox_id, timeout: 60.0 };
            let result = control.sandbox_wait_v2(wait).await.unwrap().into_inner().result.expect("it ends");
            assert_eq!(result.status(), proto::generic_result::GenericStatus::Success, "{result:?}");
        }
    };
    let many = async |range: std::ops::Range<usize>| {
        futures_util::stream::iter(range.map(make)).buffer_unordered(TOGETHER).collect::<()>().await;
    };
    many(0..WARM_UP).await;
    let before = held_when(child.id(), &state, |_| true);
    many(WARM_UP..WARM_UP + ALL).await;
    let kept = |now: &Held| {
        now.descriptors <= before.descriptors + 2
            && now.threads <= before.threads + 2
            && now.children <= before.children
            && now.mounts <= before.mounts
            && now.groups <= before.groups
            // The files of long output: one for every twentieth sandbox.
            && now.files <= before.files + ALL / 20
            // The records of ended sandboxes: some kilobytes each.
            && now.memory <= before.memory + ALL * 16
    };
    let after = held_when(child.id(), &state, kept);
    assert!(kept(&after), "before: {before:?}, after: {after:?}");
    send(&child, Signal::SIGTERM);
    assert!(end(&mut child).success());
    assert!(left(parent.path()).is_empty());
}

/// Waits until no container is left and `good` is true, at most for `PATIENCE`. Returns what is held then.
fn held_when(pid: u32, state: &Path, good: impl Fn(&Held) -> bool) -> Held {
    let begun = Instant::now();
    loop {
        let held = Held::by(pid, state);
        let gone = fs::read_dir(state.join("containers")).unwrap().count() == 0;
        if (gone && good(&held)) || begun.elapsed() > PATIENCE {
            return held;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
