//! What must hold whatever goes wrong on the way: a flow gives exactly what it should or an error that says what happened,
//! commands run once, bytes arrive once, nothing hangs.
//!
//! A [`Case`] is a flow, what goes wrong with which of its calls, and how much data moves; it follows from a seed. The
//! tests run a fixed matrix of them, `cargo xtask soak` as many as one likes.

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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{World, proxy::Proxy, sh, told};

/// Nothing takes so long, even when every retry is used up: the longest are ten on a router, some ten seconds each for
/// the few calls of a flow.
const HANGS: Duration = Duration::from_secs(180);

/// What a caller wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// A sandbox, with its first command.
    Create,
    /// A command in one call.
    Run,
    /// A command whose output is read as it comes.
    Stream,
    /// A command that is fed.
    Stdin,
    /// A file into the sandbox.
    Upload,
    /// A file out of it.
    Download,
    /// A directory into it.
    TreeUp,
    /// A directory out of it.
    TreeDown,
    /// An image.
    Build,
    /// The file system as an image.
    Snapshot,
}

impl Flow {
    /// All of them.
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

    /// The calls that it makes.
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

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    /// The call is refused with this status.
    Status(i32),
    /// The call is done, and answered with this status.
    LostAnswer(i32),
    /// The token is refused, as when it has expired.
    Expired,
    /// The service asks to come back later.
    ComeBack,
    /// The answer breaks off.
    Cut(u64),
    /// The request breaks off.
    CutRequest(u64),
    /// The connection is closed.
    Close,
    /// The connection is given up in an orderly way.
    Goaway,
    /// The worker is lost after so many milliseconds.
    Lost(u64),
    /// Connections are spoiled on their way, as [`crate::proxy`] does it.
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

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it follows from.
    pub seed: u64,
    /// What is wanted.
    pub flow: Flow,
    /// What goes wrong.
    pub trouble: Trouble,
    /// With which call: a method, or the beginning of one and `*`.
    pub method: &'static str,
    /// How often; none for always.
    pub times: Option<u32>,
    /// How many such calls go well before.
    pub skip: u32,
    /// Bytes that move.
    pub size: usize,
}

impl Case {
    /// The case of a seed.
    #[must_use]
    pub fn random(seed: u64) -> Case {
        let mut random = StdRng::seed_from_u64(seed);
        let flow = *Flow::ALL.choose(&mut random).unwrap_or(&Flow::Run);
        // Mostly small, where borders are; sometimes more than a piece.
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
        // A service that asks to come back for ever is followed for ever, unless a limit is set.
        let always = random.random_range(0..40) == 0 && trouble != Trouble::ComeBack;
        let times = if always { None } else { Some(random.random_range(1..=2)) };
        let skip = random.random_range(0..3);
        Case { seed, flow, trouble, method, times, skip, size }
    }

    /// The case of a seed whose connections are spoiled; it needs a bench behind a proxy.
    #[must_use]
    pub fn through_a_proxy(seed: u64) -> Case {
        Case { trouble: Trouble::Wire, method: "*", times: None, skip: 0, ..Case::random(seed) }
    }

    /// Whether the flow must succeed all the same.
    #[must_use]
    pub fn is_survivable(&self) -> bool {
        match self.trouble {
            Trouble::Lost(_) | Trouble::Wire => false,
            // A connection that is given up in an orderly way takes nothing with it.
            Trouble::Goaway => true,
            // One refused token may be an old one; the one that signs in must be good.
            Trouble::Expired => self.times == Some(1) && self.method != "AuthTokenGet",
            _ => self.times.is_some(),
        }
    }
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With exactly what was wanted.
    Exact,
    /// With an error, or a verdict that the sandbox is over.
    Told(String),
}

/// A world for one case after the other.
pub struct Bench {
    world: World,
    proxy: Option<Proxy>,
    sandbox: Option<Sandbox>,
    /// A directory of this machine.
    local: PathBuf,
}

impl Bench {
    /// Makes one; `name` tells it from others of this process.
    ///
    /// # Panics
    ///
    /// When this machine cannot.
    pub async fn new(name: &str) -> Bench {
        Bench { world: World::start().await, proxy: None, sandbox: None, local: Bench::local(name) }
    }

    /// Makes one for cases through a proxy.
    ///
    /// # Panics
    ///
    /// When this machine cannot.
    pub async fn behind_a_proxy(name: &str) -> Bench {
        let proxy = Proxy::start().await;
        Bench { world: World::behind(&proxy).await, proxy: Some(proxy), sandbox: None, local: Bench::local(name) }
    }

    fn local(name: &str) -> PathBuf {
        let local = std::env::temp_dir().join(format!("sandbox-faults-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&local).expect("a directory");
        local
    }

    /// Ends it.
    pub async fn end(self) {
        let _ = std::fs::remove_dir_all(&self.local);
        self.world.end().await;
    }

    /// Runs a case and checks all that must hold.
    ///
    /// # Errors
    ///
    /// What did not hold.
    pub async fn run(&mut self, case: &Case) -> Result<Outcome, String> {
        let sandbox = match self.sandbox.take() {
            Some(sandbox) => sandbox,
            None => self.world.sandbox().await,
        };
        let job = Job::new(case, &sandbox, &self.local);
        job.prepare().await.map_err(|error| format!("the preparation failed: {error}"))?;
        // Knows nothing yet, so that all calls are made.
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
        let (done, ()) = tokio::join!(tokio::time::timeout(HANGS, job.run(&provider)), losing);
        self.world.emulator.chaos().clear();
        if let Some(proxy) = &self.proxy {
            proxy.calm();
        }
        let done = done.map_err(|_| format!("it hangs: nothing after {HANGS:?}"))?;
        let lost = matches!(case.trouble, Trouble::Lost(_));
        let outcome = job.check(case, done, lost).await?;
        if lost {
            return Ok(outcome);
        }
        job.clean().await.map_err(|error| format!("the cleaning failed: {error}"))?;
        self.sandbox = Some(sandbox);
        Ok(outcome)
    }
}

/// What a flow gave.
enum Done {
    /// What was wanted, as far as it can be seen from here.
    Well,
    /// Something else than what was wanted.
    Wrong(String),
    /// The sandbox ended first.
    Ended(Verdict),
}

struct Job {
    flow: Flow,
    id: String,
    sandbox: Sandbox,
    data: Vec<u8>,
    local: PathBuf,
    mode: WriteMode,
    /// What is counted has been done, in a flow of more than one call: what fails from then on is something else.
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

    /// Counts itself, then does `line`.
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
                files.expect("files");
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
                if !matches!(verdict, Verdict::SandboxEnded(_) | Verdict::Lost(_)) {
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

    /// Holds a result against what must be, without any fault.
    async fn check(&self, case: &Case, done: Result<Done>, lost: bool) -> Result<Outcome, String> {
        let outcome = match &done {
            Ok(Done::Wrong(why)) => return Err(format!("it gave something else: {why}")),
            Ok(Done::Well) => Outcome::Exact,
            Ok(Done::Ended(verdict)) if lost => Outcome::Told(format!("{verdict:?}")),
            Ok(Done::Ended(verdict)) => return Err(format!("the sandbox lives, and the verdict is {verdict:?}")),
            Err(error) => Outcome::Told(format!("{:?} {:?}: {error}", error.kind(), error.happened())),
        };
        if case.is_survivable() && outcome != Outcome::Exact {
            return Err(format!("it should have got through: {outcome:?}"));
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
            // A transfer that breaks off in the middle of a tree.
            let broken = matches!(error.kind(), Kind::File(FileFault::Other(_)));
            if !typed && !broken {
                return Err(format!("an error of a kind that says nothing: {error:?}"));
            }
            if error.is_trap() {
                return Err(format!("the plugin was stopped: {error:?}"));
            }
            if lost && !matches!(error.kind(), Kind::SandboxEnded | Kind::NotFound) {
                return Err(format!("the sandbox is gone, and the error does not say so: {error:?}"));
            }
        }
        if lost && self.flow.runs_in_a_sandbox() {
            return Ok(outcome);
        }
        let happened = done.as_ref().err().map(Error::happened);
        let (count, most) = self.count().await.map_err(|error| format!("it cannot be counted: {error}"))?;
        match happened {
            None if count != most => Err(format!("it ended well, and happened {count} times of {most}")),
            Some(Happened::No) if count != 0 && !self.started.load(Ordering::Relaxed) => {
                Err(format!("it says that it did not happen, and it did: {outcome:?}"))
            }
            Some(Happened::Yes) if count == 0 => Err(format!("it says that it happened, and it did not: {outcome:?}")),
            _ if count > most => Err(format!("it happened {count} times: {outcome:?}")),
            _ => Ok(outcome),
        }
    }

    /// How often it happened, and how often it should.
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
                // A tree appears file by file.
                _ => Ok((0, 1)),
            },
            Flow::Download | Flow::TreeDown | Flow::Build | Flow::Snapshot => Ok((0, 0)),
        }
    }

    async fn clean(&self) -> Result<()> {
        let _ = std::fs::remove_dir_all(&self.local);
        // Whatever an earlier attempt left running would change what the next case sees.
        sh(&self.sandbox, &format!("rm -rf /tmp/*-{}", self.id)).await;
        Ok(())
    }
}

fn expect(result: RunResult, stdout: &[u8], stderr: &[u8], code: i32) -> Done {
    match &result.verdict {
        Verdict::SandboxEnded(_) | Verdict::Lost(_) => Done::Ended(result.verdict),
        Verdict::Exited(found) if *found == code => {
            match (same(&result.stdout.data, stdout), &result.stderr.data[..]) {
                (Done::Well, found) if found == stderr => Done::Well,
                (Done::Wrong(why), _) => Done::Wrong(why),
                _ => Done::Wrong(format!("on stderr: {}", told(&result))),
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
    Done::Wrong(format!("{} bytes instead of {}, different from byte {at} on", found.len(), expected.len()))
}

/// Runs the cases of the seeds from `first` on, `runs` of them, on `benches` at a time, `through_a_proxy` or with faults of
/// the emulator. `told` of each as it ends.
///
/// # Errors
///
/// The first case that did not hold, with what did not.
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
            let name = format!("{first}-{number}");
            let mut bench = if through_a_proxy { Bench::behind_a_proxy(&name).await } else { Bench::new(&name).await };
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
