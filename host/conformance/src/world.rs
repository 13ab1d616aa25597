//! What the checks work with: the provider and further instances of it, its declared capabilities, sandboxes, and the
//! programs that exist in them. Everything that a check makes is recorded here, and removed after the check.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandbox_host::types::{
    Description, ExecSpec, ImageSource, ImageSpec, ListFilter, SandboxSpec, SandboxState, Support, Verdict,
};
use sandbox_host::{
    Error, Kind, Provider, ProviderBuilder, Proxy, RUN_TAG, Sandbox, SandboxWithInfo, Secret, fresh_id,
};
use tokio::sync::OnceCell;

use crate::check::{Outcome, PROGRAM, State, Stop, exited, failed, told};
use crate::gate::{Gate, Sockets};
use crate::options::Options;

/// The parts of the interface that a provider may lack and that no capability of the interface names. A component has a
/// part if it exports the interface of this name and does not refuse its calls with `unsupported`. A component of the
/// interface 0.1 has one interface of all functions.
///
/// `directories` are the functions of `files` that describe paths and directories: a provider that keeps files by their
/// paths alone has only `read-file` and `write-file`.
pub const PARTS: [&str; 5] = ["exec", "processes", "files", "directories", "images"];

/// Capabilities that a provider of the interface 0.1 always has, because that version does not know them as capabilities.
pub(crate) const IMPLIED: [&str; 3] = ["exec.idempotent", "create.command", "volumes.delete"];

/// The maximum lifetime of the sandboxes, in case this program cannot terminate them. Longer than a run takes.
const LIFETIME: Duration = Duration::from_secs(3600);

/// How long the removal of a sandbox or an image may take.
const REMOVAL: Duration = Duration::from_secs(60);

/// The programs that checks use if the sandbox has them. Each is tried.
pub(crate) const PROGRAMS: [&str; 7] = ["sh", "echo", "cat", "sleep", "exit", "env", "python3"];

/// Further programs that checks use if the sandbox has them. The shell looks for them.
/// Some shells have them inside, so only command lines use them.
pub(crate) const TOOLS: [&str; 12] =
    ["chmod", "chown", "date", "head", "id", "ln", "mkdir", "mkfifo", "nc", "stty", "touch", "uname"];

/// The image that the checks build from if the chosen image has no name.
const BASE: &str = "debian";

/// The user other than root that checks use if the image has it.
pub(crate) const OTHER_USER: &str = "nobody";

/// How long a command may take from its start to its end before the time limits of the checks grow with it.
const USUAL_COMMAND: Duration = Duration::from_millis(250);

/// Is told what the run makes, so that the caller can remove it if the run is stopped.
pub trait Observer: Send + Sync {
    /// A sandbox with this tag is about to be created. Called once, before the first sandbox.
    fn tagged(&self, provider: &Provider, name: &str, value: &str) {
        let _ = (provider, name, value);
    }

    /// A sandbox was created.
    fn created(&self, sandbox: &Sandbox) {
        let _ = sandbox;
    }

    /// A sandbox was terminated.
    fn terminated(&self, sandbox: &Sandbox) {
        let _ = sandbox;
    }

    /// The check with this id has ended. `time` is how long it ran.
    fn finished(&self, id: &'static str, state: State, time: Duration) {
        let _ = (id, state, time);
    }
}

/// The provider under test.
pub(crate) struct World {
    pub(crate) provider: Provider,
    pub(crate) description: Description,
    pub(crate) seed: u64,
    alone: bool,
    another: Box<dyn Fn() -> ProviderBuilder + Send + Sync>,
    image: ImageSpec,
    run: String,
    parts: HashMap<&'static str, bool>,
    observer: Arc<dyn Observer>,
    shared: OnceCell<Result<Bench, String>>,
    current: tokio::sync::Mutex<Option<Current>>,
    slowness: AtomicU32,
    left: Mutex<Vec<String>>,
}

/// The number of checks that share a sandbox. An engine that keeps a record of each command for some minutes becomes slower
/// with each command in the same sandbox: with all checks in one, Podman 4.3 did not finish.
const CHECKS_PER_SANDBOX: usize = 30;

/// The sandbox that checks share at present, the number of checks that have asked for it, and those of earlier checks.
struct Current {
    sandbox: Sandbox,
    checks: usize,
    earlier: Vec<Sandbox>,
}

/// The first sandbox that several checks share, and what is in it.
pub(crate) struct Bench {
    pub(crate) sandbox: Sandbox,
    programs: HashMap<&'static str, bool>,
    /// Whether there is a directory `/tmp` in which a command can make files. True if no command can tell.
    has_tmp: bool,
}

impl World {
    /// Reads the description of the provider, and finds out which parts of the interface it has.
    pub(crate) async fn new(
        provider: Provider,
        another: Box<dyn Fn() -> ProviderBuilder + Send + Sync>,
        options: &Options,
        observer: Arc<dyn Observer>,
    ) -> Result<World, Error> {
        let description = provider.describe().await?;
        let mut parts = HashMap::new();
        for part in PARTS {
            parts.insert(part, has_part(&provider, part).await);
        }
        // The host stops a transfer that failed. There is no sandbox in which it could, so the result means nothing.
        let _ = provider.signals_sent(REMOVAL).await;
        let world = World {
            provider,
            description,
            seed: options.seed,
            alone: options.alone,
            another,
            image: options.image.clone(),
            run: fresh_id(),
            parts,
            observer,
            shared: OnceCell::new(),
            current: tokio::sync::Mutex::default(),
            slowness: AtomicU32::new(1),
            left: Mutex::default(),
        };
        if world.declares("create.tags") {
            world.observer.tagged(&world.provider, RUN_TAG, &world.run);
        }
        Ok(world)
    }

    /// Returns whether the provider declares this capability, or has this part of the interface.
    pub(crate) fn declares(&self, name: &str) -> bool {
        if let Some(has) = self.parts.get(name) {
            return *has;
        }
        if IMPLIED.contains(&name) && is_first_version(&self.provider) {
            return true;
        }
        let named = self.description.capabilities.iter().find(|capability| capability.name == name);
        named.is_some_and(|capability| capability.support != Support::Absent)
    }

    /// Returns the first capability or part of these needs that the provider does not declare.
    pub(crate) fn undeclared(&self, needs: &[&'static str]) -> Option<&'static str> {
        needs.iter().copied().find(|need| !need.starts_with(PROGRAM) && !self.declares(need))
    }

    /// Returns the first program of these needs that does not exist in the shared sandbox.
    pub(crate) async fn missing_program(&self, needs: &[&'static str]) -> Outcome<Option<&'static str>> {
        for need in needs.iter().filter_map(|need| need.strip_prefix(PROGRAM)) {
            if !self.bench().await?.has(need) {
                return Ok(Some(need));
            }
        }
        Ok(None)
    }

    /// Returns a new provider of the same service, with empty caches, as another process would have it.
    pub(crate) async fn fresh(&self) -> Outcome<Provider> {
        Ok((self.another)().build().await?)
    }

    /// Returns a provider as another caller has it: a new one, or the same one if the sandboxes exist in it alone.
    pub(crate) async fn other(&self) -> Outcome<Provider> {
        if self.alone { Ok(self.provider.clone()) } else { self.fresh().await }
    }

    /// Returns a new provider whose connections lead through `gate`.
    pub(crate) async fn through(&self, gate: &Gate) -> Outcome<Provider> {
        let proxy = Proxy::Always(Secret::new(gate.url()));
        Ok((self.another)().proxy(proxy).create_patience(Duration::ZERO).build().await?)
    }

    /// Returns the Unix sockets that the provider connects to, by the names that a proxy gets for them.
    pub(crate) fn sockets(&self) -> Sockets {
        let grants = self.provider.grants().into_iter();
        grants
            .filter_map(|grant| Some((format!("{}:{}", grant.origin.host, grant.origin.port), grant.socket?)))
            .collect()
    }

    /// Returns the specification of a sandbox of the chosen image, with the tag of this run if the provider has tags.
    pub(crate) fn spec(&self) -> SandboxSpec {
        let mut spec = SandboxSpec::new(self.image.clone());
        if self.declares("create.tags") {
            spec = spec.tag(RUN_TAG, &self.run);
        }
        if self.declares("create.lifetime") {
            spec = spec.lifetime(LIFETIME);
        }
        spec
    }

    /// Returns a filter for the sandboxes of this run, as far as the provider has tags.
    pub(crate) fn filter(&self) -> ListFilter {
        let filter = ListFilter::default();
        if self.declares("create.tags") { filter.tag(RUN_TAG, &self.run) } else { filter }
    }

    /// Returns the chosen image.
    pub(crate) fn image(&self) -> ImageSpec {
        self.image.clone()
    }

    pub(crate) async fn bench(&self) -> Outcome<&Bench> {
        let bench = self.shared.get_or_init(|| async {
            let sandbox = self.provider.create(self.spec()).await.map_err(|error| told(&error))?;
            self.observer.created(&sandbox);
            let mut bench = Bench { sandbox, programs: HashMap::new(), has_tmp: true };
            if self.declares("exec") {
                self.look_around(&mut bench).await;
            }
            Ok(bench)
        });
        match bench.await {
            Ok(bench) => Ok(bench),
            Err(why) => failed(format!("no sandbox could be created: {why}")),
        }
    }

    /// Returns the sandbox for the next check that shares one.
    async fn next_shared(&self) -> Outcome<Sandbox> {
        let first = &self.bench().await?.sandbox;
        let mut current = self.current.lock().await;
        let current = current.get_or_insert_with(|| Current { sandbox: first.clone(), checks: 0, earlier: Vec::new() });
        if current.checks == CHECKS_PER_SANDBOX {
            let fresh = self.provider.create(self.spec()).await?;
            self.observer.created(&fresh);
            current.earlier.push(std::mem::replace(&mut current.sandbox, fresh));
            current.checks = 0;
        }
        current.checks += 1;
        Ok(current.sandbox.clone())
    }

    /// Finds out what a new sandbox has, and how fast its commands are.
    async fn look_around(&self, bench: &mut Bench) {
        let begun = Instant::now();
        bench.programs = programs(&bench.sandbox).await;
        let each = begun.elapsed() / PROGRAMS.len() as u32;
        let slowness = each.as_millis() / USUAL_COMMAND.as_millis();
        self.slowness.store(slowness.clamp(1, 5) as u32, Ordering::Relaxed);
        if !bench.has("sh") {
            return;
        }
        let line = format!(
            "for one in {}; do command -v $one >/dev/null && echo $one; done; \
             : >/tmp/conformance-probe && echo /tmp",
            TOOLS.join(" ")
        );
        let found = bench.sandbox.run(ExecSpec::shell(line)).await;
        let text = found.map(|result| String::from_utf8_lossy(&result.stdout.data).into_owned()).unwrap_or_default();
        for tool in TOOLS {
            bench.programs.insert(tool, text.lines().any(|line| line == tool));
        }
        bench.has_tmp = text.lines().any(|line| line == "/tmp");
    }

    /// Returns the factor by which the time limits of checks grow, because commands of this provider take long: 1 to 5.
    pub(crate) fn slowness(&self) -> u32 {
        self.slowness.load(Ordering::Relaxed)
    }

    /// Terminates a sandbox. Records it if that fails.
    pub(crate) async fn remove(&self, sandbox: &Sandbox) {
        let why = match tokio::time::timeout(REMOVAL, sandbox.terminate()).await {
            Ok(Ok(())) => return self.observer.terminated(sandbox),
            Ok(Err(error)) if error.is_not_found() || error.is_sandbox_ended() => {
                return self.observer.terminated(sandbox);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer after {REMOVAL:?}"),
        };
        self.leave(format!("the sandbox {}: {why}", sandbox.id()));
    }

    fn leave(&self, text: String) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// Terminates the shared sandbox, and all others that still carry the tag of the run: a create that was cancelled may
    /// have made one. Returns what could not be removed.
    pub(crate) async fn end(&self) -> Vec<String> {
        if let Some(Ok(bench)) = self.shared.get() {
            self.remove(&bench.sandbox).await;
        }
        if let Some(current) = self.current.lock().await.take() {
            // The first one is that of `shared`.
            for sandbox in
                current.earlier.iter().skip(1).chain((!current.earlier.is_empty()).then_some(&current.sandbox))
            {
                self.remove(sandbox).await;
            }
        }
        if self.declares("create.tags") {
            match tokio::time::timeout(REMOVAL, self.provider.list(&self.filter(), 1000)).await {
                Ok(Ok(found)) => {
                    let running = found.into_iter().filter(|info| !matches!(info.state, SandboxState::Ended(_)));
                    let sandboxes: Vec<_> = running.map(|info| self.provider.sandbox(info.id)).collect();
                    futures_util::future::join_all(sandboxes.iter().map(|sandbox| self.remove(sandbox))).await;
                }
                Ok(Err(error)) => self.leave(format!("perhaps sandboxes with the tag {RUN_TAG}={}: {error}", self.run)),
                Err(_) => self.leave(format!("perhaps sandboxes with the tag {RUN_TAG}={}: no answer", self.run)),
            }
        }
        std::mem::take(&mut self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Bench {
    pub(crate) fn has(&self, program: &str) -> bool {
        self.programs.get(program).copied().unwrap_or(false)
    }
}

/// Returns whether the component has the interface 0.1, which is one interface of all functions.
pub(crate) fn is_first_version(provider: &Provider) -> bool {
    provider.plugin().interface_version().starts_with("0.1.")
}

/// Returns whether the component has a part of the interface.
async fn has_part(provider: &Provider, part: &str) -> bool {
    let name = format!("harness:sandbox/{part}@");
    let exported = provider.plugin().exports().iter().any(|export| export.starts_with(&name));
    if !exported && !is_first_version(provider) && part != "directories" {
        return false;
    }
    // No sandbox has this id, so the calls have no effect.
    let nowhere = provider.sandbox("conformance-none");
    let error = match part {
        "exec" => nowhere.run(ExecSpec::new(["echo"])).await.err(),
        "processes" => nowhere.attach("conformance-none").wait().await.err(),
        "files" => nowhere.read_file("/conformance-none", 1).await.err(),
        "directories" => nowhere.stat("/", true).await.err(),
        _ => provider.image("conformance-none").await.err(),
    };
    error.is_none_or(|error| *error.kind() != Kind::Unsupported)
}

/// Finds out which programs a sandbox has, by running each of them.
async fn programs(sandbox: &Sandbox) -> HashMap<&'static str, bool> {
    let mut found = HashMap::new();
    for program in PROGRAMS {
        let (argv, input): (&[&str], &[u8]) = match program {
            "sh" => (&["/bin/sh", "-c", "exit 3"], b""),
            "echo" => (&["echo", "word"], b""),
            "cat" => (&["cat"], b"word\n"),
            "sleep" => (&["sleep", "0"], b""),
            "exit" => (&["exit", "3"], b""),
            "env" => (&["env"], b""),
            _ => (&[program, "--version"], b""),
        };
        let ran = sandbox.run_with(ExecSpec::new(argv.iter().copied()), input, Default::default()).await;
        let works = ran.is_ok_and(|result| match program {
            "sh" | "exit" => matches!(result.verdict, Verdict::Exited(3)),
            "echo" | "cat" => matches!(result.verdict, Verdict::Exited(0)) && result.stdout.data == b"word\n",
            _ => matches!(result.verdict, Verdict::Exited(0)),
        });
        found.insert(program, works);
    }
    found
}

/// Deletes something. Repeats that for a while after a conflict, because a service may not delete what a sandbox used
/// until it has removed the sandbox.
async fn patiently<F: Future<Output = Result<(), Error>>>(delete: impl Fn() -> F) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        match delete().await {
            Err(error) if *error.kind() == Kind::Conflict && begun.elapsed() < REMOVAL / 2 => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            ended => return ended,
        }
    }
}

/// One run of a check: the world, and what this check has made.
pub(crate) struct Case {
    world: Arc<World>,
    shared: OnceCell<Sandbox>,
    sandboxes: Mutex<Vec<Sandbox>>,
    images: Mutex<Vec<String>>,
    volumes: Mutex<Vec<String>>,
}

impl std::ops::Deref for Case {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Case {
    pub(crate) fn new(world: Arc<World>) -> Case {
        Case {
            world,
            shared: OnceCell::new(),
            sandboxes: Mutex::default(),
            images: Mutex::default(),
            volumes: Mutex::default(),
        }
    }

    /// Returns the sandbox that several checks share. Checks that use it must not end or reconfigure it, and use files
    /// with names of their own only.
    pub(crate) async fn shared(&self) -> Outcome<Sandbox> {
        self.shared.get_or_try_init(|| self.world.next_shared()).await.cloned()
    }

    /// Creates a sandbox for this check alone. Its result is the caller's to judge.
    pub(crate) async fn try_create(&self, spec: SandboxSpec) -> Result<SandboxWithInfo, Error> {
        self.try_create_by(&self.provider.clone(), spec).await
    }

    /// Creates a sandbox by another provider.
    pub(crate) async fn try_create_by(&self, provider: &Provider, spec: SandboxSpec) -> Result<SandboxWithInfo, Error> {
        let made = provider.create_with_info(spec).await?;
        // Removed by the first provider, because the connections of the other one may be damaged.
        let sandbox = self.provider.sandbox(made.sandbox.id());
        self.observer.created(&sandbox);
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).push(sandbox);
        Ok(made)
    }

    /// Creates a sandbox for this check alone.
    pub(crate) async fn create(&self, spec: SandboxSpec) -> Outcome<Sandbox> {
        Ok(self.try_create(spec).await?.sandbox)
    }

    /// Creates a sandbox with default settings for this check alone.
    pub(crate) async fn sandbox(&self) -> Outcome<Sandbox> {
        self.create(self.spec()).await
    }

    /// Returns a sandbox that has ended because it was terminated.
    pub(crate) async fn ended(&self) -> Outcome<Sandbox> {
        let sandbox = self.sandbox().await?;
        sandbox.terminate().await?;
        match sandbox.wait_for(Duration::from_secs(60)).await? {
            Some(_) => Ok(sandbox),
            None => failed("a terminated sandbox had not ended after 60 s"),
        }
    }

    /// Records an image that the end of the check has to delete.
    pub(crate) fn made_image(&self, id: &str) {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).push(id.to_owned());
    }

    /// Records a volume that the end of the check has to delete.
    pub(crate) fn made_volume(&self, name: &str) {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    }

    /// Deletes a volume that was used by sandboxes which have ended.
    pub(crate) async fn delete_volume(&self, name: &str) -> Result<(), Error> {
        patiently(|| self.provider.delete_volume(name)).await
    }

    /// Removes what the check has made.
    pub(crate) async fn clean(&self) {
        let sandboxes = std::mem::take(&mut *self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner));
        futures_util::future::join_all(sandboxes.iter().map(|sandbox| self.remove(sandbox))).await;
        let images = std::mem::take(&mut *self.images.lock().unwrap_or_else(PoisonError::into_inner));
        // The latest first, because an image may be built on an earlier one.
        for image in images.iter().rev().filter(|_| self.declares("image.delete")) {
            match tokio::time::timeout(REMOVAL, patiently(|| self.provider.delete_image(image))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if error.is_not_found() => {}
                Ok(Err(error)) => self.leave(format!("the image {image}: {error}")),
                Err(_) => self.leave(format!("the image {image}: no answer after {REMOVAL:?}")),
            }
        }
        let volumes = std::mem::take(&mut *self.volumes.lock().unwrap_or_else(PoisonError::into_inner));
        for name in volumes {
            match tokio::time::timeout(REMOVAL, self.delete_volume(&name)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.leave(format!("the volume {name}: {error}")),
                Err(_) => self.leave(format!("the volume {name}: no answer after {REMOVAL:?}")),
            }
        }
    }

    /// Returns a command that exits with this code. Needs a shell or a program `exit`.
    pub(crate) async fn exit(&self, code: i32) -> Outcome<ExecSpec> {
        let bench = self.bench().await?;
        if bench.has("sh") {
            return Ok(ExecSpec::shell(format!("exit {code}")));
        }
        if bench.has("exit") {
            return Ok(ExecSpec::new(["exit".to_owned(), code.to_string()]));
        }
        Err(Stop::Skipped("the sandbox has neither `sh` nor a program `exit`".to_owned()))
    }

    /// Runs a shell command line that must exit with 0, and returns its standard output without the last line break.
    pub(crate) async fn sh(&self, sandbox: &Sandbox, line: &str) -> Outcome<String> {
        let result = sandbox.run(ExecSpec::shell(line)).await?;
        exited(&format!("`{line}`"), &result.verdict, 0)?;
        Ok(String::from_utf8_lossy(&result.stdout.data).trim_end_matches('\n').to_owned())
    }

    /// Counts the lines of a file by a command.
    pub(crate) async fn lines(&self, sandbox: &Sandbox, path: &str) -> Outcome<usize> {
        Ok(self.sh(sandbox, &format!("cat {path}")).await?.lines().count())
    }

    /// Returns the numeric id of [`OTHER_USER`]. Skips the check if the image does not have this user.
    pub(crate) async fn other_user(&self) -> Outcome<String> {
        let result = self.shared().await?.run(ExecSpec::shell(format!("id -u {OTHER_USER}"))).await?;
        if !matches!(result.verdict, Verdict::Exited(0)) {
            return Err(Stop::Skipped(format!("the image has no user `{OTHER_USER}`")));
        }
        Ok(String::from_utf8_lossy(&result.stdout.data).trim().to_owned())
    }

    /// Skips the check if nothing else can be done while a `run` waits for the end of its command: all calls run in one
    /// instance, and the provider cannot start a command and return. Such a `run` cannot be given up either.
    pub(crate) fn needs_calls_beside_run(&self) -> Outcome {
        if self.alone && !self.declares("processes") {
            let why = "all calls run in one instance, which a `run` occupies until its command has ended";
            return Err(Stop::Skipped(why.to_owned()));
        }
        Ok(())
    }

    /// Skips the check if the image has no directory `/tmp` in which commands can make files.
    pub(crate) async fn needs_tmp(&self) -> Outcome {
        if self.bench().await?.has_tmp {
            return Ok(());
        }
        Err(Stop::Skipped("the image has no directory /tmp in which commands can make files".to_owned()))
    }

    /// Returns the name of the image that Dockerfiles of the checks begin with: that of the chosen image, or [`BASE`].
    /// Skips the check if the provider cannot use [`BASE`], which need not exist where its engine looks for images.
    pub(crate) async fn base(&self) -> Outcome<String> {
        if let ImageSource::Registry(image) = self.image().source {
            return Ok(image.reference);
        }
        let spec = match self.declares("image.registry") {
            true => ImageSpec::registry(BASE),
            false => ImageSpec::dockerfile(format!("FROM {BASE}\n")),
        };
        match async { self.provider.build(spec).await?.finish(|_| ()).await }.await {
            Ok(_) => Ok(BASE.to_owned()),
            Err(error) => {
                let why = format!("the image `{BASE}` cannot be used, and no other one was named: {error}");
                Err(Stop::Skipped(why))
            }
        }
    }

    /// Returns a path that no other check uses, for a file that a command makes. Its directory exists, or the check is
    /// skipped.
    pub(crate) async fn file(&self) -> Outcome<String> {
        self.needs_tmp().await?;
        Ok(format!("/tmp/conformance-{}", fresh_id()))
    }

    /// Returns a path that no other check uses, in a directory that every check may use. The directory does not exist.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("/tmp/conformance-{}/{name}", fresh_id())
    }
}

/// Returns an id with the form of this one that no sandbox has.
pub(crate) fn altered(id: &str) -> String {
    let prefix = id.rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
    let (prefix, rest) = id.split_at(prefix);
    let other: String = rest
        .chars()
        .map(|c| match c {
            '0'..='9' => '0',
            'a'..='z' => 'e',
            'A'..='Z' => 'E',
            c => c,
        })
        .collect();
    if other == rest { format!("{prefix}{rest}0") } else { format!("{prefix}{other}") }
}

#[cfg(test)]
mod tests {
    use super::altered;

    #[test]
    fn an_altered_id_has_the_same_form() {
        assert_eq!(altered("sb-01JABcd"), "sb-00EEEee");
        assert_eq!(altered("7"), "0");
        assert_eq!(altered("0"), "00");
    }
}
