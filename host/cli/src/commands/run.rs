//! `run`, `create`, `exec`, `build`: sandboxes and commands in them.

use std::time::Duration;

use anyhow::Result;
use sandbox_host::types::{self, ExecSpec, ImageSource, ImageSpec, SandboxSpec, SidecarSpec, Verdict};
use sandbox_host::{Happened, Keeper, Kind, LEASE_TAG, OWNER_TAG, Process, Provider, RUN_TAG, Sandbox, fresh_id};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::args::{Build, CommandArgs, Create, Exec, ImageArgs, Run, SandboxArgs};
use crate::output::{self, DEADLINE, FAILED, Failure};
use crate::session::{Owed, Session};

/// How long a sandbox of `run` outlives this program if it is killed; then `sweep` removes it.
const LEASE: Duration = Duration::from_secs(600);

/// Output that `--json` collects per stream.
const COLLECTED: u64 = 10 << 20;

/// What a read of ours asks for.
const PIECE: usize = 64 << 10;

/// The command of a sandbox that is there for other commands: that of the service's own default image, which lasts longer than
/// any sandbox. It takes the place of the image's CMD, which may end at any time.
const KEEP_ALIVE: [&str; 2] = ["sleep", "172800"];

/// The Dockerfile line for an image whose own program does not run the command that it is given.
const NO_ENTRYPOINT: &str = "ENTRYPOINT []";

/// How long the reason is waited for why a sandbox that has ended did so.
const PROGRAM_END: Duration = Duration::from_secs(5);

/// What to do about an image whose own program ends.
const STAY_HINT: &str = "give the sandbox a command that stays, such as `sandbox create … -- sleep infinity`; if the \
                             image has an ENTRYPOINT that does not run it, add --line 'ENTRYPOINT []'";

/// What the first process of a sandbox of `run` is.
#[derive(Clone, Copy, PartialEq)]
enum Life {
    /// The image's ENTRYPOINT with a command that stays.
    Kept,
    /// That command alone: the ENTRYPOINT does not run it.
    Alone,
    /// The image's own program: there may be no `sleep` in it.
    Own,
}

/// `sandbox run`
pub async fn run(session: &Session, args: Run) -> Result<i32> {
    require_argv(&args.argv)?;
    let provider = session.provider().await?;
    let spec = sandbox_spec(&args.sandbox, ImageSpec::default())?;
    refuse_early(&provider, &spec).await?;
    let built = build_for(session, &provider, &args.image, true).await?;
    let mut ended = String::new();
    for life in [Life::Kept, Life::Alone, Life::Own] {
        let mut spec = spec.clone();
        spec.image = match life {
            Life::Kept | Life::Own => ImageSpec::id(&built),
            Life::Alone => {
                let without = ImageSpec { commands: vec![NO_ENTRYPOINT.to_owned()], ..ImageSpec::id(&built) };
                ImageSpec::id(follow(session, provider.build(without).await?).await?)
            }
        };
        if life != Life::Own {
            spec = spec.command(KEEP_ALIVE);
        }
        match run_once(session, &provider, spec, &args).await? {
            Ran::Ended(code) => return Ok(code),
            Ran::NotBegun(reason) => ended = end_text(&reason),
        }
    }
    Err(Failure::new("run the command", format!("the sandbox ended first: {ended}")).hint(STAY_HINT).into())
}

/// What became of the command of `run`.
enum Ran {
    /// It ended with this code.
    Ended(i32),
    /// The sandbox's own program had ended before.
    NotBegun(types::EndReason),
}

/// Makes a sandbox, runs the command in it, and ends the sandbox.
async fn run_once(session: &Session, provider: &Provider, spec: SandboxSpec, args: &Run) -> Result<Ran> {
    let (sandbox, owed, keeper) = create_sandbox(session, provider, spec).await?;
    let mut command = ExecSpec::new(args.argv.clone());
    apply(&mut command, &args.how)?;
    let code = execute(session, &sandbox, command, &args.how).await;
    if let Err(error) = &code
        && let Some(reason) = not_begun(&sandbox, error).await
    {
        owed.paid();
        return Ok(Ran::NotBegun(reason));
    }
    if args.keep && code.is_ok() {
        // From here on nobody renews the lease, so nobody may take it for abandoned.
        let tags = sandbox.tags().await?.into_iter().filter(|(name, _)| name != LEASE_TAG).collect();
        keeper.release(&sandbox);
        sandbox.set_tags(tags).await?;
        session.voice.say(format_args!("kept: {}", sandbox.id()));
        owed.paid();
        return code.map(Ran::Ended);
    }
    // Waited for, so that the exit code comes when nothing is left; a failure of the command is reported, not hidden.
    let ended = {
        let _step = session.voice.step(format!("terminating {}", sandbox.id()));
        sandbox.terminate().await
    };
    match ended {
        Ok(()) => owed.paid(),
        Err(error) if error.is_not_found() || error.is_sandbox_ended() => owed.paid(),
        Err(error) if code.is_ok() => return Err(error.into()),
        Err(_) => {}
    }
    code.map(Ran::Ended)
}

/// How the sandbox's own program ended, if that is why a command could not begin.
async fn not_begun(sandbox: &Sandbox, error: &anyhow::Error) -> Option<types::EndReason> {
    let known = error.downcast_ref::<sandbox_host::Error>()?;
    if !known.is_sandbox_ended() || known.happened() != Happened::No {
        return None;
    }
    let reason = sandbox.wait_for(PROGRAM_END).await.ok()??;
    matches!(reason, types::EndReason::Finished(_) | types::EndReason::FailedToStart(_)).then_some(reason)
}

/// `sandbox create`
pub async fn create(session: &Session, args: Create) -> Result<i32> {
    let provider = session.provider().await?;
    let mut spec = sandbox_spec(&args.sandbox, ImageSpec::default())?.command(args.argv);
    spec.key = args.key;
    spec.pty = args.tty.then(terminal);
    if args.wait_ready.is_some() && spec.readiness.is_none() {
        return Err(Failure::new("wait until the sandbox is ready", "nothing says when it is")
            .hint("say so with --ready-port or --ready-command")
            .into());
    }
    refuse_early(&provider, &spec).await?;
    spec.image = ImageSpec::id(build_image(session, &provider, &args.image).await?);
    let tag = (RUN_TAG.to_owned(), fresh_id());
    let spec = spec.tag(OWNER_TAG, crate::commands::manage::default_owner()).tag(&tag.0, &tag.1);
    let step = session.voice.step("creating the sandbox");
    let creating = session.owe_creation(&provider, tag);
    let sandbox = match provider.create(spec).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            creating.unless_happened(&error);
            return Err(error.into());
        }
    };
    drop(step);
    if let Some(time) = args.wait_ready {
        let _step = session.voice.step("waiting until the sandbox is ready");
        if !sandbox.wait_ready(time).await? {
            return Err(Failure::new(format!("wait until {} is ready", sandbox.id()), "its time ran out")
                .hint("give it more with --wait-ready TIME, or look at what --ready-port or --ready-command waits for")
                .into());
        }
    }
    // Before it is let go: a sandbox whose id nobody has read would stay without anybody's knowledge.
    if session.voice.json {
        output::print_json(json!({ "sandbox": sandbox.id() }))?;
    } else {
        output::print(sandbox.id())?;
    }
    creating.paid();
    Ok(0)
}

/// `sandbox exec`
pub async fn exec(session: &Session, args: Exec) -> Result<i32> {
    require_argv(&args.argv)?;
    let sandbox = container(session.provider().await?.sandbox(&args.id), args.container.as_deref());
    let mut command = ExecSpec::new(args.argv);
    apply(&mut command, &args.how)?;
    command.env = args.env;
    if let Some(directory) = args.workdir.as_ref().filter(|directory| !directory.starts_with('/')) {
        return Err(Failure::new("run the command", format!("the directory {directory:?} is not absolute"))
            .hint("begin --workdir with a slash")
            .into());
    }
    command.cwd = args.workdir;
    if args.detach {
        let process = sandbox.spawn(command).await?;
        let id = process.detach();
        if session.voice.json {
            output::print_json(json!({ "sandbox": sandbox.id(), "exec": id }))?;
        } else {
            output::print(id)?;
        }
        return Ok(0);
    }
    let code = execute(session, &sandbox, command, &args.how).await;
    if let Err(error) = &code
        && let Some(reason) = not_begun(&sandbox, error).await
    {
        let why = format!("the sandbox's own program ended first: {}", end_text(&reason));
        return Err(Failure::new("run the command", why).hint(STAY_HINT).into());
    }
    code
}

/// The container of a sandbox that is meant.
pub fn container(sandbox: Sandbox, name: Option<&str>) -> Sandbox {
    match name {
        Some(name) => sandbox.sidecar(name),
        None => sandbox,
    }
}

/// `sandbox build`
pub async fn build(session: &Session, args: Build) -> Result<i32> {
    let provider = session.provider().await?;
    let id = build_image(session, &provider, &args.image).await?;
    if args.image.image.as_deref() == Some(&id) {
        // An id of which nothing is to be built; whether there is such an image is all that can be found out.
        provider.image(&id).await?;
    }
    if session.voice.json {
        output::print_json(json!({ "image": id }))?;
    } else {
        output::print(id)?;
    }
    Ok(0)
}

fn require_argv(argv: &[String]) -> Result<()> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(Failure::new("run a command", "the command is empty")
            .hint("give a program and its arguments after `--`, such as `-- echo hello`")
            .into());
    }
    Ok(())
}

fn apply(command: &mut ExecSpec, how: &CommandArgs) -> Result<()> {
    command.user = how.user.clone();
    command.timeout = how.timeout.map(|time| time.as_millis() as u64);
    command.pty = how.tty.then(terminal);
    Ok(())
}

/// A terminal like ours.
fn terminal() -> types::Pty {
    let (rows, columns) = crate::commands::terminal::size().unwrap_or((24, 80));
    types::Pty { rows, columns, term: std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".into()) }
}

/// Builds the image with its log on stderr, and gives its id.
pub async fn build_image(session: &Session, provider: &Provider, args: &ImageArgs) -> Result<String> {
    build_for(session, provider, args, false).await
}

/// The same. `stays`: an image whose Dockerfile has an ENTRYPOINT is made one without, since what it runs may end before
/// the commands in its sandbox do.
async fn build_for(session: &Session, provider: &Provider, args: &ImageArgs, stays: bool) -> Result<String> {
    let mut spec = image_spec(session, provider, args).await?;
    if let (ImageSource::Id(id), true) = (&spec.source, spec.commands.is_empty()) {
        return Ok(id.clone());
    }
    if let ImageSource::Dockerfile(dockerfile) = &spec.source
        && stays
        && dockerfile_text::has_entry_point(&dockerfile.text, dockerfile.target.as_deref())
    {
        spec.commands.push(NO_ENTRYPOINT.to_owned());
    }
    let build = provider.build(spec).await.map_err(|error| {
        let from_stdin = args.dockerfile.as_deref() == Some(std::path::Path::new("-"));
        if !error.parts().1.contains("build context") || !from_stdin || args.context.is_some() {
            return anyhow::Error::from(error);
        }
        Failure::of(&error).hint("a Dockerfile from standard input has no files to copy but with --context DIR").into()
    })?;
    follow(session, build).await
}

/// Follows a build with its log on stderr, and gives the image's id.
async fn follow(session: &Session, build: sandbox_host::Build) -> Result<String> {
    let mut step = Some(session.voice.step("building the image"));
    let mut unfinished = false;
    let image = build
        .finish(|chunk| {
            step.take();
            unfinished = !chunk.text.ends_with('\n');
            session.voice.log(&chunk.text);
        })
        .await;
    if unfinished {
        session.voice.log("\n");
    }
    Ok(image?.id)
}

async fn image_spec(session: &Session, provider: &Provider, args: &ImageArgs) -> Result<ImageSpec> {
    let mut spec = match (&args.image, &args.dockerfile, &args.published) {
        (Some(reference), ..) if reference.starts_with("im-") => ImageSpec::id(reference),
        (Some(reference), ..) if reference.trim().is_empty() => {
            return Err(Failure::new("use the image", "its name is empty").hint("give a name such as debian").into());
        }
        (Some(reference), ..) => ImageSpec::registry(reference),
        (None, Some(path), _) => crate::session::context::dockerfile(session, provider, args, path).await?,
        (None, None, Some(name)) => ImageSpec::named(name),
        (None, None, None) => ImageSpec::default(),
    };
    if let Some(secret) = &args.registry_secret {
        if !matches!(spec.source, ImageSource::Registry(_) | ImageSource::Dockerfile(_)) {
            return Err(Failure::new("use --registry-secret", "this image comes from no registry")
                .hint("leave it away, or name a registry's image with --image")
                .into());
        }
        spec = spec.registry_secret(secret);
    }
    if let Some((model, count)) = &args.build_gpu {
        spec = spec.gpu(model, *count);
    }
    spec.secrets = args.build_secret.clone();
    spec.builder_version = args.builder_version.clone();
    spec.commands = args.lines.clone();
    spec.force = args.force_build;
    Ok(spec)
}

/// What the options say of a sandbox.
pub fn sandbox_spec(args: &SandboxArgs, image: ImageSpec) -> Result<SandboxSpec> {
    let mut spec = SandboxSpec::new(image);
    spec.env = args.env.clone();
    spec.secrets = args.secret.clone();
    spec.workdir = args.workdir.clone();
    for (name, cores) in [("--cpu", args.cpu), ("--cpu-limit", args.cpu_limit)] {
        if cores.is_some_and(|cores| !(cores.is_finite() && cores > 0.0)) {
            return Err(Failure::new("create the sandbox", format!("{name} must be a positive number")).into());
        }
    }
    if let Some(cores) = args.cpu {
        spec = spec.cpu(cores);
    }
    if let Some(cores) = args.cpu_limit {
        spec = spec.cpu_limit(cores);
    }
    spec.resources.memory_request_mib = args.memory;
    spec.resources.memory_limit_mib = args.memory_limit;
    if let Some((model, count)) = &args.gpu {
        spec = spec.gpu(model, *count);
    }
    spec.lifetime = args.lifetime.map(|time| time.as_millis() as u64);
    spec.idle_timeout = args.idle_timeout.map(|time| time.as_millis() as u64);
    if args.block_network {
        spec = spec.block_network();
    } else if !args.allow.is_empty() {
        let (cidrs, domains) = places(&args.allow);
        spec = spec.allow_only(cidrs, domains);
    }
    spec.network.inbound_cidrs = args.inbound.iter().map(|place| range(place)).collect();
    spec.proxy = args.proxy.clone();
    for (kind, number) in &args.port {
        spec = spec.port_of(*kind, *number);
    }
    spec.volumes = args.volume.clone();
    spec.buckets = args.bucket.clone();
    for (name, image) in &args.sidecar {
        let image = if image.starts_with("im-") { ImageSpec::id(image) } else { ImageSpec::registry(image) };
        spec = spec.sidecar(SidecarSpec::new(name, image));
    }
    if let Some(port) = args.ready_port {
        spec = spec.ready_when_listening(port);
    }
    if let Some(line) = &args.ready_command {
        spec = spec.ready_when(["/bin/sh", "-c", line]);
    }
    spec.regions = args.region.clone();
    spec.name = args.name.clone();
    spec.tags = args.tag.clone();
    spec.options = args
        .options
        .iter()
        .map(|(key, value)| {
            // What is no JSON is meant as text.
            let json = serde_json::from_str::<serde_json::Value>(value).unwrap_or_else(|_| json!(value));
            (key.clone(), json.to_string())
        })
        .collect();
    Ok(spec)
}

/// What may be connected to: address ranges, and names.
pub fn places(all: &[String]) -> (Vec<String>, Vec<String>) {
    all.iter().map(|place| range(place)).partition(|place| place.contains('/'))
}

/// An address alone is the range of that address.
fn range(place: &str) -> String {
    match place.parse::<std::net::IpAddr>() {
        Ok(address) => format!("{place}/{}", if address.is_ipv4() { 32 } else { 128 }),
        Err(_) => place.to_owned(),
    }
}

/// Settings that no create would take fail here, before an image is built for nothing.
async fn refuse_early(provider: &Provider, spec: &SandboxSpec) -> Result<()> {
    match provider.check_spec(spec).await {
        // A plugin of before that function; its create will tell.
        Err(error) if *error.kind() == Kind::Unsupported && error.subject() == Some("check-spec") => Ok(()),
        checked => Ok(checked?),
    }
}

/// Creates a sandbox for as long as this program runs: an interruption at any point leaves nothing, and being killed
/// leaves nothing that a sweep would not find.
pub async fn create_sandbox(
    session: &Session,
    provider: &Provider,
    spec: SandboxSpec,
) -> Result<(Sandbox, Owed, Keeper)> {
    let keeper = Keeper::new(provider, crate::commands::manage::default_owner(), LEASE)?;
    let _step = session.voice.step("creating the sandbox");
    let creating = session.owe_creation(provider, (RUN_TAG.to_owned(), keeper.run().to_owned()));
    let sandbox = match keeper.create(spec).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            creating.unless_happened(&error);
            return Err(error.into());
        }
    };
    let owed = session.owe_sandbox(&sandbox);
    creating.paid();
    tracing::debug!(sandbox = sandbox.id(), "created");
    Ok((sandbox, owed, keeper))
}

/// Runs a command with our streams, and gives its exit code.
pub async fn execute(session: &Session, sandbox: &Sandbox, command: ExecSpec, how: &CommandArgs) -> Result<i32> {
    if how.tty {
        return crate::commands::terminal::run(session, sandbox, command).await;
    }
    if session.voice.json {
        return collect(session, sandbox, command, how).await;
    }
    let started = session.voice.step("starting the command");
    let owed = session.owe_exec(sandbox, &command.id);
    let mut process = match sandbox.spawn(command).await {
        Ok(process) => process,
        Err(error) => {
            owed.unless_happened(&error);
            return Err(error.into());
        }
    };
    drop(started);
    let feeding = feed(&mut process, how.interactive);
    let stdout = process.stdout.take();
    let stderr = process.stderr.take();
    let streams = async { tokio::try_join!(pass(stdout, tokio::io::stdout()), pass(stderr, tokio::io::stderr())) };
    let passed = streams.await;
    if let Err(error) = passed {
        if output::is_broken_pipe(&error) {
            // Our output is not read any more. The command ends with us, and with the code of a program that SIGPIPE ends: it
            // was not successful, since it was not finished.
            process.kill().await?;
            owed.paid();
            return Ok(output::UNREAD);
        }
        return Err(error);
    }
    let verdict = process.wait().await?;
    feeding.abort();
    owed.paid();
    exit_code(session, verdict)
}

/// Passes standard input on until it or the program ends.
fn feed(process: &mut Process, interactive: bool) -> tokio::task::JoinHandle<()> {
    let stdin = process.stdin.take();
    tokio::spawn(async move {
        let Some(mut stdin) = stdin else { return };
        if interactive {
            let mut source = tokio::io::stdin();
            let mut piece = vec![0; PIECE];
            loop {
                match source.read(&mut piece).await {
                    Ok(0) | Err(_) => break,
                    // A program that has had enough closes its input; its output says the rest.
                    Ok(size) => {
                        if stdin.write_all(&piece[..size]).await.is_err() {
                            break;
                        }
                    }
                }
            }
        }
        if let Err(error) = stdin.shutdown().await {
            tracing::debug!(%error, "input not closed");
        }
    })
}

/// Passes a stream on as it arrives.
async fn pass(from: Option<impl AsyncRead + Unpin>, mut to: impl AsyncWrite + Unpin) -> Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut piece = vec![0; PIECE];
    loop {
        let size = match from.read(&mut piece).await {
            Ok(0) => return Ok(()),
            Ok(size) => size,
            Err(error) => return Err(unwrap(error)),
        };
        to.write_all(&piece[..size]).await?;
        to.flush().await?;
    }
}

/// The error of this crate inside an I/O error, if that is what it is.
pub fn unwrap(error: std::io::Error) -> anyhow::Error {
    match error.downcast::<sandbox_host::Error>() {
        Ok(error) => error.into(),
        Err(error) => error.into(),
    }
}

/// Runs to the end and prints one object.
async fn collect(session: &Session, sandbox: &Sandbox, command: ExecSpec, how: &CommandArgs) -> Result<i32> {
    let mut stdin = Vec::new();
    if how.interactive {
        tokio::io::stdin().read_to_end(&mut stdin).await?;
    }
    let exec = command.id.clone();
    let owed = session.owe_exec(sandbox, &exec);
    let limits = types::OutputLimits { stdout_max: COLLECTED, stderr_max: COLLECTED, keep: types::Keep::Tail };
    let result = match sandbox.run_with(command, stdin, limits).await {
        Ok(result) => result,
        Err(error) => {
            owed.unless_happened(&error);
            return Err(error.into());
        }
    };
    owed.paid();
    let mut value = json!({
        "sandbox": sandbox.id(),
        "exec": exec,
        "verdict": verdict_name(&result.verdict),
        "exit_code": code_of(&result.verdict),
        "duration_ms": result.duration,
        "stdout_bytes": result.stdout.total,
        "stderr_bytes": result.stderr.total,
    });
    for (name, captured) in [("stdout", result.stdout), ("stderr", result.stderr)] {
        let kept = captured.data.len() as u64;
        if kept < captured.total {
            session.voice.warn(format_args!("{name}: only the last {kept} of {} bytes are shown", captured.total));
        }
        // Not all output is text.
        match String::from_utf8(captured.data) {
            Ok(text) => value[name] = json!(text),
            Err(error) => {
                use base64::Engine as _;
                let text = base64::engine::general_purpose::STANDARD.encode(error.as_bytes());
                value[format!("{name}_base64")] = json!(text);
            }
        }
    }
    output::print_json(value)?;
    Ok(code_of(&result.verdict))
}

fn code_of(verdict: &Verdict) -> i32 {
    match verdict {
        Verdict::Exited(code) => *code & 0xff,
        Verdict::Signaled(signal) => 128 + (*signal as i32 & 0x7f),
        Verdict::Deadline => DEADLINE,
        Verdict::SandboxEnded(_) | Verdict::Lost(_) => FAILED,
    }
}

/// The exit code, and a word on stderr where the code alone does not say what happened.
pub fn exit_code(session: &Session, verdict: Verdict) -> Result<i32> {
    match &verdict {
        Verdict::SandboxEnded(reason) => {
            let hint = match reason {
                types::EndReason::Finished(_) => STAY_HINT,
                _ => "create a new sandbox",
            };
            return Err(Failure::new("finish the command", format!("the sandbox ended first: {}", end_text(reason)))
                .hint(hint)
                .into());
        }
        Verdict::Lost(why) => {
            return Err(Failure::new("learn how the command ended", why.clone()).into());
        }
        Verdict::Deadline => session.voice.say("the command's time limit ran out and it was killed"),
        Verdict::Signaled(signal) => session.voice.say(format_args!("the command was killed by signal {signal}")),
        Verdict::Exited(_) => {}
    }
    Ok(code_of(&verdict))
}

/// A verdict as one word for JSON.
fn verdict_name(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Exited(_) => "exited".into(),
        Verdict::Signaled(signal) => format!("signaled {signal}"),
        Verdict::Deadline => "deadline".into(),
        Verdict::SandboxEnded(reason) => format!("sandbox ended: {}", end_text(reason)),
        Verdict::Lost(why) => format!("lost: {why}"),
    }
}

/// Why a sandbox is over, in words.
pub fn end_text(reason: &types::EndReason) -> String {
    match reason {
        types::EndReason::Finished(code) => format!("finished with {code}"),
        types::EndReason::Terminated => "terminated".into(),
        types::EndReason::Lifetime => "lifetime over".into(),
        types::EndReason::Idle => "idle for too long".into(),
        types::EndReason::OutOfMemory => "out of memory".into(),
        types::EndReason::FailedToStart(why) => format!("failed to start: {why}"),
        types::EndReason::Lost(why) => format!("lost: {why}"),
        types::EndReason::Other(why) => why.clone(),
    }
}
