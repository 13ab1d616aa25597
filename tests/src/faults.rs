//! Runs operations of the host library while faults are injected, and checks the rules that must hold in every case: an
//! operation returns the exact result or an error that says what happened, a command runs once, bytes arrive once, and
//! nothing hangs.
//!
//! A [`Case`] says which operation runs, which of its calls fail and how, and how much data it moves. It is derived
//! from a seed. The tests run a fixed matrix of cases; `cargo xtask soak` runs as many random ones as requested.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use modal_emulator::model::faults::{Fault, Rule};
use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use sandbox_host::{
    Error, FileFault, Happened, Kind, Provider, Result, Sandbox, fresh_id,
    types::{
        ExecSpec, ImageSpec, Keep, ListFilter, OutputLimits, RunResult, SandboxSpec, SandboxState, Verdict, WriteMode,
        WriteOptions,
    },
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{World, proxy::Proxy, sh, told};

/// Time after which a case counts as hanging. The longest retries are ten attempts on a router: some ten seconds for
/// each of the few calls of an operation.
const CASE_TIMEOUT: Duration = Duration::from_secs(180);

/// The operation that a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Creates a sandbox and runs its first command.
    Create,
    /// Runs a command in one call.
    Run,
    /// Runs a command and reads its output as a stream.
    Stream,
    /// Runs a command with data on its standard input.
    Stdin,
    /// Writes a file into the sandbox.
    Upload,
    /// Reads a file from the sandbox.
    Download,
    /// Uploads a directory into the sandbox.
    TreeUp,
    /// Downloads a directory from the sandbox.
    TreeDown,
    /// Builds an image.
    Build,
    /// Saves the file system of a sandbox as an image.
    Snapshot,
}

impl Flow {
    /// All operations.
    pub const ALL: [Flow; 10] = [
        Flow::Create,
        Flow::Run,
        Flow::Stream,
        Flow::Stdin,
        Flow::Upload,
        Flow::Download,
        Flow::TreeUp,
        Flow::TreeDown,
        Flow::Build,
        Flow::Snapshot,
    ];

    /// Returns the RPC methods that this operation calls, as patterns for [`Case::method`].
    #[must_use]
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            Flow::Create => &["AuthTokenGet", "AppGetOrCreate", "ImageGetOrCreate", "SandboxCreateV2", "TaskExecStart"],
            Flow::Run | Flow::Stream => &["SandboxGet*", "TaskExecStart", "TaskExecStdioRead", "TaskExecWait"],
            Flow::Stdin => &["TaskExecStart", "TaskExecStdinWrite", "TaskExecStdioRead", "TaskExecWait"],
            Flow::Upload | Flow::TreeUp => {
                &["TaskExecStart", "TaskExecStdinWrite", "TaskExecStdinWriteStream", "TaskExecWait"]
            }
            Flow::Download | Flow::TreeDown => &["TaskExecStart", "TaskExecStdioRead", "TaskExecWait"],
            Flow::Build => &["ImageGetOrCreate", "ImageJoinStreaming"],
            Flow::Snapshot => &["TaskSnapshotFilesystem"],
        }
    }

    fn runs_in_a_sandbox(self) -> bool {
        !matches!(self, Flow::Create | Flow::Build)
    }
}

/// The fault that a case injects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    /// The call is not executed and fails with this gRPC status code.
    Status(i32),
    /// The call is executed, and its answer is replaced by this gRPC status code.
    LostAnswer(i32),
    /// The call fails as with an expired token.
    Expired,
    /// The call fails with a request to retry after 0.1 s.
    ComeBack,
    /// The response is cut off after this number of bytes.
    Cut(u64),
    /// The request is cut off after this number of bytes.
    CutRequest(u64),
    /// The connection is closed.
    Close,
    /// The server sends GOAWAY and lets open streams finish.
    Goaway,
    /// The worker of the sandbox is lost after this number of milliseconds.
    Lost(u64),
    /// The TCP connections are damaged by [`crate::proxy`].
    Wire,
}

impl Trouble {
    fn fault(self) -> Option<Fault> {
        let message = String::new();
        Some(match self {
            Trouble::Status(code) => Fault::Status { code, message, retry_after_secs: None },
            Trouble::LostAnswer(code) => Fault::LoseAnswer { code },
            Trouble::Expired => Fault::Status { code: 16, message, retry_after_secs: None },
            Trouble::ComeBack => Fault::Status { code: 8, message, retry_after_secs: Some(0.1) },
            Trouble::Cut(after_bytes) => Fault::Cut { after_bytes },
            Trouble::CutRequest(after_bytes) => Fault::CutRequest { after_bytes },
            Trouble::Close => Fault::Close,
            Trouble::Goaway => Fault::Goaway,
            Trouble::Lost(_) | Trouble::Wire => return None,
        })
    }
}

/// One operation with one fault. See the documentation of the module.
#[derive(Debug, Clone)]
pub struct Case {
    /// The seed that all other fields are derived from.
    pub seed: u64,
    /// The operation.
    pub flow: Flow,
    /// The injected fault.
    pub trouble: Trouble,
    /// The RPC method that the fault applies to: a full name, or a prefix and `*`.
    pub method: &'static str,
    /// The number of calls that the fault applies to, or `None` for all calls.
    pub times: Option<u32>,
    /// The number of matching calls that succeed before the fault applies.
    pub skip: u32,
    /// The size of the transferred data, in bytes.
    pub size: usize,
}

impl Case {
    /// Returns the case of a seed.
    #[must_use]
    pub fn random(seed: u64) -> Case {
        let mut random = StdRng::seed_from_u64(seed);
        let flow = *Flow::ALL.choose(&mut random).unwrap_or(&Flow::Run);
        // Most sizes are small, where the boundary cases are; some are larger than one chunk of a transfer.
        let size = match random.random_range(0..10) {
            0 => 0,
            1..=5 => random.random_range(1..100_000),
            _ => random.random_range(100_000..9_000_000),
        };
        let code = *[14, 13, 4, 2, 1].choose(&mut random).unwrap_or(&14);
        let after = random.random_range(0..size as u64 + 64);
        let trouble = match random.random_range(0..9) {
            0 => Trouble::Status(code),
            1 => Trouble::LostAnswer(code),
            2 => Trouble::Expired,
            3 => Trouble::ComeBack,
            4 => Trouble::Cut(after),
            5 => Trouble::CutRequest(after),
            6 => Trouble::Close,
            7 => Trouble::Goaway,
            _ => Trouble::Lost(random.random_range(0..120)),
        };
        let method = *flow.methods().choose(&mut random).unwrap_or(&"*");
        // Without a limit on the number of faults, a client would follow "retry later" answers for ever.
        let always = random.random_range(0..40) == 0 && trouble != Trouble::ComeBack;
        let times = if always { None } else { Some(random.random_range(1..=2)) };
        let skip = random.random_range(0..3);
        Case { seed, flow, trouble, method, times, skip, size }
    }

    /// Returns the case of a seed with damaged connections instead of a failing call. It needs
    /// [`Bench::behind_a_proxy`].
    #[must_use]
    pub fn through_a_proxy(seed: u64) -> Case {
        Case { trouble: Trouble::Wire, method: "*", times: None, skip: 0, ..Case::random(seed) }
    }

    /// Returns whether the operation must succeed in spite of the fault.
    #[must_use]
    pub fn is_survivable(&self) -> bool {
        match self.trouble {
            Trouble::Lost(_) | Trouble::Wire => false,
            // GOAWAY does not affect the streams that are open.
            Trouble::Goaway => true,
            // One refused token may only have expired and is renewed. A refusal by `AuthTokenGet` itself is final.
            Trouble::Expired => self.times == Some(1) && self.method != "AuthTokenGet",
            _ => self.times.is_some(),
        }
    }
}

/// How a case ended, if all rules held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The operation returned the exact result.
    Exact,
    /// The operation failed with an error, or its verdict says that the sandbox ended. The text describes it.
    Told(String),
}

/// An emulator and a sandbox that are reused by one case after another.
pub struct Bench {
    world: World,
    proxy: Option<Proxy>,
    sandbox: Option<Sandbox>,
    /// A directory on the local machine, for uploads and downloads.
    local: TempDir,
}

impl Bench {
    /// Starts an emulator and creates a temporary directory.
    ///
    /// # Panics
    ///
    /// Panics if the emulator or the directory cannot be created.
    pub async fn new() -> Bench {
        Bench { world: World::start().await, proxy: None, sandbox: None, local: Bench::local() }
    }

    /// Starts an emulator behind a [`Proxy`], for cases from [`Case::through_a_proxy`].
    ///
    /// # Panics
    ///
    /// Panics if the emulator or the directory cannot be created.
    pub async fn behind_a_proxy() -> Bench {
        let proxy = Proxy::start().await;
        Bench { world: World::behind(&proxy).await, proxy: Some(proxy), sandbox: None, local: Bench::local() }
    }

    fn local() -> TempDir {
        tempfile::tempdir().expect("cannot create the directory")
    }

    /// Shuts the emulator down and removes the directory.
    pub async fn end(self) {
        drop(self.local);
        self.world.end().await;
    }

    /// Runs a case and checks the rules.
    ///
    /// # Errors
    ///
    /// Returns a description of the rule that was violated.
    pub async fn run(&mut self, case: &Case) -> Result<Outcome, String> {
        let sandbox = match self.sandbox.take() {
            Some(sandbox) => sandbox,
            None => self.world.sandbox().await,
        };
        let job = Job::new(case, &sandbox, self.local.path());
        job.prepare().await.map_err(|error| format!("the preparation failed: {error}"))?;
        // A new provider has cached nothing, so that it makes all the calls.
        let provider = World::provider(&self.world.emulator.url()).await.map_err(|error| error.to_string())?;
        if let Some(fault) = case.trouble.fault() {
            let method = case.method.to_string();
            let rule = Rule { method, times: case.times, skip: case.skip, probability: 1.0, fault };
            self.world.emulator.chaos().add(rule);
        }
        if let (Trouble::Wire, Some(proxy)) = (case.trouble, &self.proxy) {
            proxy.spoil(case.seed, case.size);
        }
        let losing = async {
            if let Trouble::Lost(millis) = case.trouble {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                let lost = self.world.emulator.state().tables.lock().sandboxes.get(sandbox.id()).cloned();
                if let Some(lost) = lost {
                    lost.lose();
                }
            }
        };
        let (done, ()) = tokio::join!(tokio::time::timeout(CASE_TIMEOUT, job.run(&provider)), losing);
        self.world.emulator.chaos().clear();
        if let Some(proxy) = &self.proxy {
            proxy.calm();
        }
        let done = done.map_err(|_| format!("the operation did not end within {CASE_TIMEOUT:?}"))?;
        let lost = matches!(case.trouble, Trouble::Lost(_));
        let outcome = job.check(case, done, lost).await?;
        if lost {
            return Ok(outcome);
        }
        job.clean().await.map_err(|error| format!("the cleanup failed: {error}"))?;
        self.sandbox = Some(sandbox);
        Ok(outcome)
    }
}

/// The result of an operation that returned no error.
enum Done {
    /// The result is the expected one, as far as the caller can see.
    Well,
    /// The result differs from the expected one.
    Wrong(String),
    /// The sandbox ended before the operation did.
    Ended(Verdict),
}

struct Job {
    flow: Flow,
    id: String,
    sandbox: Sandbox,
    data: Vec<u8>,
    local: PathBuf,
    mode: WriteMode,
    /// Set once the counted step of an operation with several calls has succeeded. Errors after that belong to later
    /// steps.
    started: AtomicBool,
}

impl Job {
    fn new(case: &Case, sandbox: &Sandbox, local: &Path) -> Job {
        let mut random = StdRng::seed_from_u64(case.seed);
        let mut data = vec![0; case.size];
        random.fill_bytes(&mut data);
        let mode = *[WriteMode::Replace, WriteMode::Append, WriteMode::CreateNew]
            .choose(&mut random)
            .unwrap_or(&WriteMode::Replace);
        let id = fresh_id();
        Job {
            flow: case.flow,
            local: local.join(&id),
            id,
            sandbox: sandbox.clone(),
            data,
            mode,
            started: AtomicBool::new(false),
        }
    }

    fn path(&self, name: &str) -> String {
        format!("/tmp/{name}-{}", self.id)
    }

    /// Returns a command that appends a line to the count file and then runs `line`.
    fn command(&self, line: &str) -> ExecSpec {
        ExecSpec::shell(format!("echo x >>{}; {line}", self.path("count")))
    }

    async fn prepare(&self) -> Result<()> {
        match self.flow {
            Flow::Run | Flow::Stream | Flow::Download => {
                self.sandbox.write_file(&self.path("data"), &self.data, WriteOptions::default()).await
            }
            Flow::TreeDown => {
                sh(&self.sandbox, &format!("mkdir -p {}/a/b", self.path("tree"))).await;
                let file = format!("{}/a/b/data", self.path("tree"));
                self.sandbox.write_file(&file, &self.data, WriteOptions::default()).await
            }
            Flow::TreeUp => {
                let files = std::fs::create_dir_all(self.local.join("a/b"))
                    .and_then(|()| std::fs::write(self.local.join("a/b/data"), &self.data));
                files.expect("cannot write the files");
                Ok(())
            }
            Flow::Snapshot => self.sandbox.write_file(&self.path("data"), &self.data, WriteOptions::default()).await,
            Flow::Create | Flow::Stdin | Flow::Upload | Flow::Build => Ok(()),
        }
    }

    async fn run(&self, provider: &Provider) -> Result<Done> {
        let sandbox = provider.sandbox(self.sandbox.id());
        let limits = OutputLimits { stdout_max: 32 << 20, stderr_max: 1000, keep: Keep::Head };
        match self.flow {
            Flow::Create => {
                let spec = SandboxSpec::new(ImageSpec::registry("debian")).tag("job", &self.id);
                let made = provider.create(spec).await?;
                self.started.store(true, Ordering::Relaxed);
                let result = made.run(ExecSpec::shell("echo x >>/tmp/count; wc -l </tmp/count")).await?;
                Ok(expect(result, b"1\n", b"", 0))
            }
            Flow::Run => {
                let command = self.command(&format!("cat {}; echo err >&2; exit 7", self.path("data")));
                Ok(expect(sandbox.run_with(command, Vec::new(), limits).await?, &self.data, b"err\n", 7))
            }
            Flow::Stdin => {
                let result = sandbox.run_with(self.command("cat; exit 3"), self.data.clone(), limits).await?;
                Ok(expect(result, &self.data, b"", 3))
            }
            Flow::Stream => {
                let command = self.command(&format!("cat {}; echo err >&2; cat; exit 7", self.path("data")));
                let mut process = sandbox.spawn(command).await?;
                self.started.store(true, Ordering::Relaxed);
                let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) =
                    (process.stdin.take(), process.stdout.take(), process.stderr.take())
                else {
                    return Ok(Done::Wrong("a stream is missing".into()));
                };
                let (mut out, mut err) = (Vec::new(), Vec::new());
                let feeding = async {
                    stdin.write_all(b"fed").await?;
                    stdin.shutdown().await
                };
                let reading = tokio::join!(feeding, stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
                let verdict = process.wait().await?;
                if !matches!(verdict, Verdict::SandboxEnded(_) | Verdict::Lost(_) | Verdict::Other(_)) {
                    for read in [reading.0.map(|()| 0), reading.1, reading.2] {
                        if let Err(error) = read {
                            return match error.downcast::<Error>() {
                                Ok(error) => Err(error),
                                Err(error) => Ok(Done::Wrong(error.to_string())),
                            };
                        }
                    }
                }
                let captured = |data: Vec<u8>| sandbox_host::types::Captured { total: data.len() as u64, data };
                let result = RunResult { verdict, stdout: captured(out), stderr: captured(err), duration: 0 };
                Ok(expect(result, &[&self.data[..], b"fed"].concat(), b"err\n", 7))
            }
            Flow::Upload => {
                let options = WriteOptions { mode: self.mode, ..WriteOptions::default() };
                sandbox.write_file(&self.path("data"), &self.data, options).await?;
                Ok(Done::Well)
            }
            Flow::Download => {
                let data = sandbox.read_file(&self.path("data"), u64::MAX).await?;
                Ok(same(&data, &self.data))
            }
            Flow::TreeUp => {
                sandbox.upload_directory(&self.local, &self.path("tree"), |_| ()).await?;
                Ok(Done::Well)
            }
            Flow::TreeDown => {
                sandbox.download_directory(&self.path("tree"), &self.local, |_| ()).await?;
                Ok(same(&std::fs::read(self.local.join("a/b/data")).unwrap_or_default(), &self.data))
            }
            Flow::Build => {
                let lines = format!("FROM debian\nRUN echo one-{0}; seq 20000; echo two-{0}", self.id);
                let mut log = String::new();
                provider.build(ImageSpec::dockerfile(lines)).await?.finish(|chunk| log.push_str(&chunk.text)).await?;
                let count = |what: &str| log.lines().filter(|line| line.trim_end() == what).count();
                let counts = [count(&format!("one-{}", self.id)), count("12345"), count(&format!("two-{}", self.id))];
                Ok(if counts == [1, 1, 1] { Done::Well } else { Done::Wrong(format!("the log has {counts:?}")) })
            }
            Flow::Snapshot => {
                let image = sandbox.snapshot_filesystem(None).await?;
                let copy = self.sandbox.provider().create(SandboxSpec::new(ImageSpec::id(image))).await?;
                let data = copy.read_file(&self.path("data"), u64::MAX).await?;
                copy.terminate().await?;
                Ok(same(&data, &self.data))
            }
        }
    }

    /// Checks the result of an operation. No fault is active any more when this runs.
    async fn check(&self, case: &Case, done: Result<Done>, lost: bool) -> Result<Outcome, String> {
        let outcome = match &done {
            Ok(Done::Wrong(why)) => return Err(format!("the result is wrong: {why}")),
            Ok(Done::Well) => Outcome::Exact,
            Ok(Done::Ended(verdict)) if lost => Outcome::Told(format!("{verdict:?}")),
            Ok(Done::Ended(verdict)) => {
                return Err(format!("the sandbox is still running, but the verdict is {verdict:?}"));
            }
            Err(error) => Outcome::Told(format!("{:?} {:?}: {error}", error.kind(), error.happened())),
        };
        if case.is_survivable() && outcome != Outcome::Exact {
            return Err(format!("the operation should have survived the fault: {outcome:?}"));
        }
        if let Err(error) = &done {
            let typed = matches!(
                error.kind(),
                Kind::Unavailable
                    | Kind::Internal
                    | Kind::TimedOut
                    | Kind::Unauthenticated
                    | Kind::ResourceExhausted
                    | Kind::SandboxEnded
                    | Kind::NotFound
            );
            // A transfer that is cut off within a tree ends with this kind.
            let broken = matches!(error.kind(), Kind::File(FileFault::Other(_)));
            if !typed && !broken {
                return Err(format!("the error has an unexpected kind: {error:?}"));
            }
            if error.is_trap() {
                return Err(format!("the plugin trapped: {error:?}"));
            }
            if lost && !matches!(error.kind(), Kind::SandboxEnded | Kind::NotFound) {
                return Err(format!("the sandbox ended, but the error does not say so: {error:?}"));
            }
        }
        if lost && self.flow.runs_in_a_sandbox() {
            return Ok(outcome);
        }
        let happened = done.as_ref().err().map(Error::happened);
        let (count, most) = self.count().await.map_err(|error| format!("counting the effects failed: {error}"))?;
        match happened {
            None if count != most => {
                Err(format!("the operation succeeded, but took effect {count} times instead of {most}"))
            }
            Some(Happened::No) if count != 0 && !self.started.load(Ordering::Relaxed) => {
                Err(format!("the error says that the operation had no effect, but it had one: {outcome:?}"))
            }
            Some(Happened::Yes) if count == 0 => {
                Err(format!("the error says that the operation took effect, but it did not: {outcome:?}"))
            }
            _ if count > most => Err(format!("the operation took effect {count} times: {outcome:?}")),
            _ => Ok(outcome),
        }
    }

    /// Returns how often the operation took effect, and how often it should have.
    async fn count(&self) -> Result<(usize, usize)> {
        match self.flow {
            Flow::Create => {
                let filter = ListFilter { include_ended: true, ..ListFilter::default() }.tag("job", &self.id);
                let found = self.sandbox.provider().list(&filter, 10).await?;
                for info in &found {
                    if !matches!(info.state, SandboxState::Ended(_)) {
                        self.sandbox.provider().sandbox(info.id.clone()).terminate().await?;
                    }
                }
                Ok((found.len(), 1))
            }
            Flow::Run | Flow::Stream | Flow::Stdin => {
                let line = format!("cat {} 2>/dev/null | wc -l", self.path("count"));
                Ok((sh(&self.sandbox, &line).await.trim().parse().unwrap_or(usize::MAX), 1))
            }
            Flow::Upload => match self.sandbox.read_file(&self.path("data"), 1 << 30).await {
                Ok(data) if data == self.data => Ok((1, 1)),
                Ok(_) => Ok((usize::MAX, 1)),
                Err(error) if error.is_not_found() => Ok((0, 1)),
                Err(error) => Err(error),
            },
            Flow::TreeUp => match self.sandbox.read_file(&format!("{}/a/b/data", self.path("tree")), 1 << 30).await {
                Ok(data) if data == self.data => Ok((1, 1)),
                // The files of a tree appear one by one, so an incomplete tree does not count.
                _ => Ok((0, 1)),
            },
            Flow::Download | Flow::TreeDown | Flow::Build | Flow::Snapshot => Ok((0, 0)),
        }
    }

    async fn clean(&self) -> Result<()> {
        let _ = std::fs::remove_dir_all(&self.local);
        // Files that an earlier attempt left would change what the next case sees.
        sh(&self.sandbox, &format!("rm -rf /tmp/*-{}", self.id)).await;
        Ok(())
    }
}

fn expect(result: RunResult, stdout: &[u8], stderr: &[u8], code: i32) -> Done {
    match &result.verdict {
        Verdict::SandboxEnded(_) | Verdict::Lost(_) | Verdict::Other(_) => Done::Ended(result.verdict),
        Verdict::Exited(found) if *found == code => {
            match (same(&result.stdout.data, stdout), &result.stderr.data[..]) {
                (Done::Well, found) if found == stderr => Done::Well,
                (Done::Wrong(why), _) => Done::Wrong(why),
                _ => Done::Wrong(format!("wrong standard error: {}", told(&result))),
            }
        }
        _ => Done::Wrong(told(&result)),
    }
}

fn same(found: &[u8], expected: &[u8]) -> Done {
    if found == expected {
        return Done::Well;
    }
    let at = found.iter().zip(expected).position(|(have, want)| have != want);
    let at = at.unwrap_or(found.len().min(expected.len()));
    Done::Wrong(format!("{} bytes instead of {}; the first difference is at offset {at}", found.len(), expected.len()))
}

/// Runs `runs` cases with the seeds from `first` on, on `benches` emulators at a time, with a proxy if
/// `through_a_proxy` is set and with faults of the emulator otherwise. Calls `told` after each case. Returns the number
/// of cases by outcome.
///
/// # Errors
///
/// Returns the first case that violated a rule, with the description of the rule.
pub async fn soak(
    first: u64,
    runs: u64,
    benches: u64,
    through_a_proxy: bool,
    told: impl Fn(&Case, &Outcome) + Clone + Send + 'static,
) -> Result<BTreeMap<&'static str, u64>, (Case, String)> {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..benches {
        let told = told.clone();
        tasks.spawn(async move {
            let mut bench = if through_a_proxy { Bench::behind_a_proxy().await } else { Bench::new().await };
            let mut counts = BTreeMap::new();
            for seed in (first..first + runs).skip(number as usize).step_by(benches as usize) {
                let case = if through_a_proxy { Case::through_a_proxy(seed) } else { Case::random(seed) };
                let outcome = bench.run(&case).await.map_err(|why| (case.clone(), why))?;
                *counts.entry(if outcome == Outcome::Exact { "exact" } else { "told" }).or_insert(0) += 1;
                told(&case, &outcome);
            }
            bench.end().await;
            Ok(counts)
        });
    }
    let mut all = BTreeMap::new();
    while let Some(ended) = tasks.join_next().await {
        let counts = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        for (name, count) in counts {
            *all.entry(name).or_insert(0) += count;
        }
    }
    Ok(all)
}
