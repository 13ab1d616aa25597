//! However an emulator ends, nothing of it remains: no process, no mount, no control group, no directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modal_proto::client as proto;
use modal_proto::task_command_router as tcr;
use modal_proto::task_command_router::task_command_router_client::TaskCommandRouterClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::transport::Channel;

use super::client::{Headers, LIMIT, signed_in};

/// An emulator as a program, with its state in a directory of the test.
struct Program {
    child: Child,
    url: String,
}

impl Program {
    fn start(parent: &Path) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_modal-emulator"))
            .args(["--exit-with-stdin", "--state-dir"])
            .arg(parent)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Errors are visible: the log names what could not be removed.
            .env("RUST_LOG", "warn")
            .spawn()
            .unwrap();
        let line = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        Program { child, url: line.strip_prefix("MODAL_SERVER_URL=").unwrap().to_owned() }
    }

    /// Creates everything that could remain: an image, a sandbox with processes, and an image that is mounted in it.
    async fn fill(&self) {
        let channel = Channel::from_shared(self.url.clone()).unwrap().connect().await.unwrap();
        let (mut control, app_id) = signed_in(&channel).await;
        let image = proto::Image {
            dockerfile_commands: vec!["FROM debian".into(), "RUN mkdir -m 0 /shut".into()],
            ..Default::default()
        };
        let build = proto::ImageGetOrCreateRequest { app_id: app_id.clone(), image: Some(image), ..Default::default() };
        let image_id = control.image_get_or_create(build).await.unwrap().into_inner().image_id;
        let join = proto::ImageJoinStreamingRequest { image_id: image_id.clone(), timeout: 30.0, ..Default::default() };
        let mut log = control.image_join_streaming(join).await.unwrap().into_inner();
        while log.message().await.unwrap().is_some() {}
        let definition = proto::Sandbox { image_id, timeout_secs: 1000, ..Default::default() };
        let create = proto::SandboxCreateV2Request { app_id, definition: Some(definition), ..Default::default() };
        let made = control.sandbox_create_v2(create).await.unwrap().into_inner();
        let bearer = format!("Bearer {}", made.command_router_access.unwrap().jwt);
        let headers = Headers(vec![("authorization", bearer)]);
        let mut router = TaskCommandRouterClient::with_interceptor(channel, headers);
        let mount = tcr::TaskMountDirectoryRequest {
            task_id: made.task_id.clone(),
            path: bytes::Bytes::from_static(b"/m"),
            ..Default::default()
        };
        router.task_mount_directory(mount).await.unwrap();
        let start = tcr::TaskExecStartRequest {
            task_id: made.task_id,
            exec_id: "x".into(),
            command_args: ["sh", "-c", "trap '' TERM INT HUP; echo x > /m/f; setsid sleep 1000 & sleep 1000"]
                .map(str::to_owned)
                .to_vec(),
            ..Default::default()
        };
        router.task_exec_start(start).await.unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

/// What exists of an emulator.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    /// Processes by id, with the time of their start, because process ids are reused.
    processes: BTreeMap<u32, String>,
    groups: Vec<PathBuf>,
    states: Vec<PathBuf>,
    mounts: Vec<String>,
}

impl Traces {
    fn of(program: &Program, parent: &Path) -> Traces {
        let mut processes = BTreeMap::new();
        descendants(program.child.id(), &mut processes);
        let states = states(parent);
        let recorded = states.iter().flat_map(|state| fs::read_to_string(state.join("cgroups")));
        let groups = recorded.flat_map(|text| text.lines().map(PathBuf::from).collect::<Vec<_>>());
        let groups = groups.filter(|group| group.exists()).collect();
        Traces { processes, groups, states, mounts: mounts(parent) }
    }

    /// Returns the traces that still exist.
    fn left(&self, parent: &Path) -> Traces {
        let lives = |(pid, start): &(&u32, &String)| started(**pid).as_ref() == Some(*start);
        let own = |(pid, start): (&u32, &String)| (*pid, start.clone());
        Traces {
            processes: self.processes.iter().filter(lives).map(own).collect(),
            groups: self.groups.iter().filter(|group| group.exists()).cloned().collect(),
            states: self.states.iter().filter(|state| state.exists()).cloned().collect(),
            mounts: mounts(parent),
        }
    }

    const NONE: Traces =
        Traces { processes: BTreeMap::new(), groups: Vec::new(), states: Vec::new(), mounts: Vec::new() };
}

fn states(parent: &Path) -> Vec<PathBuf> {
    fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Returns the mounts of the machine below a directory.
fn mounts(parent: &Path) -> Vec<String> {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.lines().filter(|line| line.contains(parent.to_str().unwrap())).map(str::to_owned).collect()
}

/// Returns when a process was started, in clock ticks of the kernel; `None` if it does not exist.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    (fields.next()? != "Z").then(|| fields.nth(18).map(str::to_owned))?
}

fn descendants(pid: u32, found: &mut BTreeMap<u32, String>) {
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            found.extend(started(child).map(|start| (child, start)));
            descendants(child, found);
        }
    }
}

/// Waits until nothing is left.
fn until_nothing_is_left(traces: &Traces, parent: &Path) {
    let began = Instant::now();
    while traces.left(parent) != Traces::NONE {
        assert!(began.elapsed() < LIMIT, "{:#?}", traces.left(parent));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts an emulator, creates objects, and returns its traces.
async fn filled(parent: &Path) -> (Program, Traces) {
    let program = Program::start(parent);
    program.fill().await;
    let traces = Traces::of(&program, parent);
    // Init, the entry point, and at least the shell of the command.
    assert!(traces.processes.len() >= 3, "{traces:?}");
    assert_eq!((traces.states.len(), traces.mounts.len()), (1, 0));
    if nix::unistd::geteuid().is_root() {
        assert!(!traces.groups.is_empty());
    }
    (program, traces)
}

#[tokio::test]
async fn nothing_remains_after_an_end_that_was_asked_for() {
    for signal in [Some(Signal::SIGINT), Some(Signal::SIGTERM), None] {
        let parent = tempfile::tempdir().unwrap();
        let (mut program, traces) = filled(parent.path()).await;
        match signal {
            Some(signal) => kill(program.pid(), signal).unwrap(),
            None => drop(program.child.stdin.take()),
        }
        // `wait` also closes the input. Ctrl-C has the same effect when it ends the parent process too.
        assert!(program.child.wait().unwrap().success(), "{signal:?}");
        // Everything is gone when the emulator has exited, not only later.
        assert_eq!(traces.left(parent.path()), Traces::NONE, "{signal:?}");
        assert_eq!(states(parent.path()), Vec::<PathBuf>::new());
    }
}

#[tokio::test]
async fn nothing_remains_after_a_kill_once_another_one_starts() {
    let parent = tempfile::tempdir().unwrap();
    let (mut program, traces) = filled(parent.path()).await;
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    // The kernel ends the processes.
    let began = Instant::now();
    while !traces.left(parent.path()).processes.is_empty() {
        assert!(began.elapsed() < LIMIT, "{:?}", traces.left(parent.path()).processes);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(traces.left(parent.path()).states, traces.states);
    let (mut next, others) = filled_beside(parent.path(), &traces).await;
    until_nothing_is_left(&traces, parent.path());
    drop(next.child.stdin.take());
    assert!(next.child.wait().unwrap().success());
    assert_eq!(others.left(parent.path()), Traces::NONE);
    assert_eq!(states(parent.path()), Vec::<PathBuf>::new());
}

/// Starts another emulator after one that was killed.
async fn filled_beside(parent: &Path, gone: &Traces) -> (Program, Traces) {
    let (program, traces) = filled(parent).await;
    assert!(traces.states.iter().all(|state| !gone.states.contains(state)));
    (program, traces)
}
