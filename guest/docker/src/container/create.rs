//! Creates sandboxes.
//!
//! The steps are requests of their own: find the image and the helper program, create the container, start it. A
//! caller that repeats a create request with its key continues where the former one stopped, because the key is a label of
//! the container.

use sandbox_provider_kit::{
    Error, Result,
    api::{
        check, needs,
        wit::{EntryPoint, ErrorKind, Happened, Outbound, PortKind, Readiness, SandboxInfo, SandboxSpec},
    },
    call::json::Value,
};

use super::{KEY_LABEL, PROBE_LABEL, TAGS_LABEL, USER_LABEL, info, list, manage, tags_text};
use crate::{
    describe::describe,
    engine::{Call, Engine, failed, map, number, reason, texts},
    helper::{FOLDER, Helper, PROGRAM},
    image::{Images, Ready},
    inspect::{LABEL, NAME_PREFIX, remove, state},
    options::Options,
    program::Program,
};

/// The part of the processor time that a container without a reservation gets: the default of the engine.
const DEFAULT_SHARES: u64 = 1024;

/// Checks a specification. Sends nothing.
///
/// # Errors
///
/// `unsupported` for what this provider does not declare, `invalid-argument` for what is not valid.
pub fn check(spec: &SandboxSpec) -> Result<Options> {
    needs::check_request(&describe(), spec)?;
    crate::image::check(&spec.image)?;
    match &spec.network.outbound {
        Outbound::Open | Outbound::Blocked => {}
        Outbound::Allowed(_) => {
            return Err(Error::unsupported(
                "network.cidrs",
                "An engine has no allow-lists for connections: the network is open or blocked.",
            ));
        }
        Outbound::Other((name, _)) => return Err(check::unknown_case("network policy", name)),
    }
    for port in &spec.ports {
        if port.number == 0 || port.kind != PortKind::Tcp {
            return Err(Error::invalid("A port has a number of 1 to 65535.").about("ports"));
        }
    }
    if !spec.ports.is_empty() && matches!(spec.network.outbound, Outbound::Blocked) {
        return Err(
            Error::invalid("A sandbox whose network is blocked has no ports that can be reached.").about("ports")
        );
    }
    limits(spec)?;
    for volume in &spec.volumes {
        check::path(&volume.path)?;
        check::absent(volume.sub_path.is_some(), "create.volumes")?;
        let good =
            volume.volume.len() > 1
                && volume.volume.bytes().enumerate().all(|(index, byte)| {
                    byte.is_ascii_alphanumeric() || index > 0 && matches!(byte, b'_' | b'.' | b'-')
                });
        if !good {
            return Err(Error::invalid(format!(
                "`{}` is not the name of a volume: use at least two letters, digits, `_`, `.` and `-`.",
                sandbox_provider_kit::api::error::shown(&volume.volume)
            ))
            .about(&volume.volume));
        }
    }
    if let Some(probe) = &spec.readiness {
        match &probe.check {
            Readiness::Tcp(0) => return Err(Error::invalid("A port has a number of 1 to 65535.").about("readiness")),
            Readiness::Tcp(_) => {}
            Readiness::Exec(argv) => check::argv(argv)?,
            Readiness::Other((name, _)) => return Err(check::unknown_case("readiness", name)),
        }
    }
    if let EntryPoint::Command(argv) = &spec.entry_point {
        check::argv(argv)?;
    }
    for (what, time) in [("lifetime", spec.lifetime), ("idle-timeout", spec.idle_timeout)] {
        if time == Some(0) {
            return Err(Error::invalid(format!("The {what} is 0: give a positive time, or omit it.")).about(what));
        }
    }
    Options::read(&spec.options)
}

fn limits(spec: &SandboxSpec) -> Result<()> {
    let resources = &spec.resources;
    let pairs = [
        ("cpu", resources.cpu_request_millicores, resources.cpu_limit_millicores),
        ("memory", resources.memory_request_mib, resources.memory_limit_mib),
    ];
    for (what, request, limit) in pairs {
        if request == Some(0) || limit == Some(0) {
            return Err(Error::invalid(format!("The {what} is 0: give a positive number, or omit it.")).about(what));
        }
        if let (Some(request), Some(limit)) = (request, limit)
            && limit < request
        {
            return Err(Error::invalid(format!("The limit of the {what} is below its request.")).about(what));
        }
    }
    match &resources.gpu {
        Some(gpu) => check::gpu(gpu),
        None => Ok(()),
    }
}

/// Creates a sandbox.
///
/// # Errors
///
/// The errors of [`check()`], of the image, `already-exists` if the name is taken, otherwise those of the engine. `happened`
/// is `unknown` if a container may be left behind.
pub async fn create(helper: &Helper, program: &Program, images: &Images, spec: &SandboxSpec) -> Result<SandboxInfo> {
    let options = check(spec)?;
    let engine = helper.engine();
    if let Some(key) = &spec.key
        && let Some(id) = list::with_label(engine, KEY_LABEL, key).await?
    {
        return finish(helper, program, &id).await;
    }
    manage::remove_old(engine).await;
    let image = images.prepare(&spec.image).await?;
    check_volumes(engine, spec).await?;
    let body = body(engine, spec, &options, &image, program.mount().await?)?;
    let name = spec.name.as_ref().map(|name| format!("{NAME_PREFIX}{name}"));
    let name = name.or_else(|| spec.key.as_ref().map(|key| format!("sandbox-key.{key}")));
    let id = match new_container(helper, spec, name.as_deref(), &body).await? {
        Created::New(id) | Created::Same(id) => id,
    };
    finish(helper, program, &id).await
}

/// Checks that the volumes exist that are not to be created. The engine would create them.
async fn check_volumes(engine: &Engine, spec: &SandboxSpec) -> Result<()> {
    for volume in spec.volumes.iter().filter(|volume| !volume.create) {
        match engine.ask(Call::get(format!("/volumes/{}", volume.volume))).await? {
            Ok(_) => {}
            Err(refusal) if refusal.status() == Some(404) => return Err(Error::not_found("volume", &volume.volume)),
            Err(refusal) => return Err(failed(&refusal, "look for the volume").about(&volume.volume)),
        }
    }
    Ok(())
}

/// The container of a create request.
enum Created {
    New(String),
    /// An earlier request with the same key created it.
    Same(String),
}

async fn new_container(helper: &Helper, spec: &SandboxSpec, name: Option<&str>, body: &Value) -> Result<Created> {
    let engine = helper.engine();
    let mut freed = false;
    loop {
        let mut call = Call::post("/containers/create").json(body);
        if let Some(name) = name {
            call = call.with("name", name);
        }
        if let Some(platform) = &spec.image.platform {
            call = call.with("platform", platform);
        }
        let refusal = match engine.json(call).await? {
            Ok(created) => {
                let id = created.get("Id").text().unwrap_or_default().to_string();
                return Ok(Created::New(id));
            }
            Err(refusal) => refusal,
        };
        // The name is in use: by the container of this request, whose answer was lost, by one that has ended, or by
        // another.
        let taken = refusal.status() == Some(409) || reason(&refusal).contains("is already in use");
        let holder = match name.filter(|_| taken && !freed) {
            Some(name) => engine.json(Call::get(format!("/containers/{name}/json"))).await?.ok(),
            None => None,
        };
        let holder = holder.as_ref().and_then(|value| value.get("Id").text());
        if let Some(holder) = holder
            && let Ok(held) = state(engine, holder).await
        {
            if spec.key.is_some() && held.label(KEY_LABEL) == spec.key.as_deref() {
                return Ok(Created::Same(holder.to_string()));
            }
            if held.is_over() {
                manage::free_name(engine, holder).await?;
                freed = true;
                continue;
            }
        }
        if taken && let Some(name) = &spec.name {
            let message = format!("The name `{name}` is taken by another sandbox.");
            return Err(Error::new(ErrorKind::AlreadyExists, message).about(name));
        }
        return Err(explain(failed(&refusal, "create the sandbox")));
    }
}

/// Starts a new container. Does nothing to one that was started.
async fn finish(helper: &Helper, program: &Program, id: &str) -> Result<SandboxInfo> {
    let engine = helper.engine();
    let result = async {
        let mut repaired = false;
        let mut found = state(engine, id).await?;
        while found.is_new() {
            let Err(refusal) = engine.ask(Call::post(format!("/containers/{id}/start"))).await? else { break };
            // Engines do not tell by a code that the program is missing.
            if !repaired {
                repaired = true;
                program.repair().await?;
                continue;
            }
            // A container that cannot be started is of no use.
            let error = explain(failed(&refusal, "start the sandbox"));
            let _ = remove(engine, id).await;
            return Err(error.with_happened(Happened::No));
        }
        found = state(engine, id).await?;
        info(helper, id, &found).await
    };
    result.await.map_err(|mut error| {
        if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::TimedOut) {
            error.happened = Happened::Unknown;
        }
        error
    })
}

/// Adds what to do to errors that engines explain in their own terms.
fn explain(mut error: Error) -> Error {
    let said = error.provider_message.clone().unwrap_or_default();
    if said.contains("could not select device driver") {
        error.kind = ErrorKind::ResourceExhausted;
        error.message = format!("The engine has no accelerators: {said}.");
    } else if said.contains("port is already allocated") || said.contains("no space left") {
        error.kind = ErrorKind::ResourceExhausted;
    }
    error
}

/// Returns the body of the create request.
fn body(engine: &Engine, spec: &SandboxSpec, options: &Options, image: &Ready, program: Value) -> Result<Value> {
    let mut labels = vec![(LABEL.to_string(), Value::from("1"))];
    let mut label = |name: &str, value: String| labels.push((name.to_string(), Value::Text(value)));
    label(TAGS_LABEL, tags_text(&spec.tags));
    if let Some(key) = &spec.key {
        label(KEY_LABEL, key.clone());
    }
    let user = spec.user.clone().unwrap_or_else(|| image.user.clone());
    if !user.is_empty() {
        label(USER_LABEL, user.clone());
    }
    if let Some(probe) = &spec.readiness {
        let check = match &probe.check {
            Readiness::Tcp(port) => ("port", number(port)),
            Readiness::Exec(argv) => ("argv", texts(argv)),
            Readiness::Other((name, _)) => return Err(check::unknown_case("readiness", name)),
        };
        let probe = map([check, ("interval", number(probe.interval.unwrap_or(DEFAULT_INTERVAL_MS)))]);
        label(PROBE_LABEL, probe.to_string());
    }

    let mut words = vec!["init".to_string()];
    let mut setting = |name: &str, value: String| words.push(format!("{name}={value}"));
    if let Some(lifetime) = spec.lifetime {
        setting("lifetime", lifetime.to_string());
    }
    if let Some(idle) = spec.idle_timeout {
        setting("idle", idle.to_string());
    }
    if !user.is_empty() {
        setting("user", user);
    }
    if image.env.iter().chain(&spec.env).any(|(name, _)| name == "HOME") {
        setting("home", "keep".to_string());
    }
    if let Some(pty) = &spec.pty {
        setting("pty", format!("{}x{}", pty.rows, pty.columns));
        setting("term", pty.term.clone());
    }
    let main = match &spec.entry_point {
        EntryPoint::KeepAlive => Vec::new(),
        EntryPoint::Image => image.entry_point.iter().chain(&image.command).cloned().collect(),
        EntryPoint::Command(argv) => image.entry_point.iter().chain(argv).cloned().collect(),
    };
    if !main.is_empty() {
        words.push("--".to_string());
        words.extend(main);
    }

    let env = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
    let mut members = vec![
        ("Image", Value::Text(image.id.clone())),
        ("User", "0:0".into()),
        ("Entrypoint", texts([PROGRAM])),
        ("Cmd", texts(&words)),
        ("Env", texts(env)),
        ("Labels", Value::Map(labels)),
        ("HostConfig", host_config(engine, spec, options, program)),
    ];
    if let Some(workdir) = &spec.workdir {
        members.push(("WorkingDir", workdir.as_str().into()));
    }
    if let Some(hostname) = &options.hostname {
        members.push(("Hostname", hostname.as_str().into()));
    }
    if !spec.ports.is_empty() {
        let empty = || Value::Map(Vec::new());
        members.push(("ExposedPorts", map(spec.ports.iter().map(|port| (format!("{}/tcp", port.number), empty())))));
    }
    Ok(map(members))
}

/// The time between two checks of a readiness probe, in milliseconds.
pub const DEFAULT_INTERVAL_MS: u64 = 200;

fn host_config(engine: &Engine, spec: &SandboxSpec, options: &Options, program: Value) -> Value {
    let resources = &spec.resources;
    let mut members: Vec<(&str, Value)> = Vec::new();
    let network = options.network.clone().or_else(|| engine.transport().env("DOCKER_NETWORK"));
    match spec.network.outbound {
        Outbound::Blocked => members.push(("NetworkMode", "none".into())),
        _ => members.extend(network.map(|network| ("NetworkMode", Value::Text(network)))),
    }
    if let Some(limit) = resources.cpu_limit_millicores {
        members.push(("NanoCpus", number(u64::from(limit) * 1_000_000)));
    }
    if let Some(request) = resources.cpu_request_millicores {
        members.push(("CpuShares", number((u64::from(request) * DEFAULT_SHARES / 1000).max(2))));
    }
    let mib = |amount: u32| number(u64::from(amount) << 20);
    if let Some(limit) = resources.memory_limit_mib {
        // Without swap, so that the limit is one.
        members.extend([("Memory", mib(limit)), ("MemorySwap", mib(limit))]);
    }
    if let Some(request) = resources.memory_request_mib {
        members.push(("MemoryReservation", mib(request)));
    }
    if let Some(gpu) = &resources.gpu {
        let capabilities = Value::List(vec![texts(["gpu"])]);
        let request = map([("Count", number(gpu.count)), ("Capabilities", capabilities)]);
        members.push(("DeviceRequests", Value::List(vec![request])));
    }
    let mut mounts = vec![map([("Type", "volume".into()), ("Target", FOLDER.into())]), program];
    for volume in &spec.volumes {
        mounts.push(map([
            ("Type", "volume".into()),
            ("Source", volume.volume.as_str().into()),
            ("Target", volume.path.as_str().into()),
            ("ReadOnly", volume.read_only.into()),
        ]));
    }
    members.push(("Mounts", Value::List(mounts)));
    if !spec.ports.is_empty() {
        let address = options.publish.clone().unwrap_or_else(|| "127.0.0.1".to_string());
        let bindings = spec.ports.iter().map(|port| {
            let binding = map([("HostIp", Value::Text(address.clone())), ("HostPort", "".into())]);
            (format!("{}/tcp", port.number), Value::List(vec![binding]))
        });
        members.push(("PortBindings", map(bindings)));
    }
    members.extend(options.host_config.iter().map(|(name, value)| (*name, value.clone())));
    map(members)
}
