//! `restore`, `mount`, `unmount`, `network`, `token`, `stats`, `sidecar`, `image`: what changes a running sandbox, or is
//! beside it.

use std::time::Duration;

use anyhow::Result;
use sandbox_host::types::{ImageSpec, NetworkPolicy, SidecarInfo, SidecarSpec};
use serde_json::{Value, json};

use crate::args::{
    Id, ImageCommand, ImageId, Mount, Network, Restore, SidecarAdd, SidecarCommand, SidecarName, Token, Unmount,
};
use crate::commands::copy::remote;
use crate::commands::manage::{end_code, state_text};
use crate::commands::run::{build_image, end_text, places};
use crate::output;
use crate::session::Session;

/// How long one call waits for the end of a container.
const WAIT: Duration = Duration::from_secs(300);

/// `sandbox restore`
pub async fn restore(session: &Session, args: Restore) -> Result<i32> {
    let provider = session.provider().await?;
    let step = session.voice.step("restoring the snapshot");
    let sandbox = provider.restore(&args.snapshot, args.name.as_deref()).await?;
    drop(step);
    show(session, json!({ "sandbox": sandbox.id() }), [sandbox.id()])
}

/// `sandbox mount`
pub async fn mount(session: &Session, args: Mount) -> Result<i32> {
    let (sandbox, path) = remote(&session.provider().await?, &args.path)?;
    sandbox.mount(&path, args.image.as_deref()).await?;
    session.voice.result(json!({ "sandbox": sandbox.id(), "path": path, "image": args.image, "mounted": true }))?;
    Ok(0)
}

/// `sandbox unmount`
pub async fn unmount(session: &Session, args: Unmount) -> Result<i32> {
    let (sandbox, path) = remote(&session.provider().await?, &args.path)?;
    sandbox.unmount(&path).await?;
    session.voice.result(json!({ "sandbox": sandbox.id(), "path": path, "mounted": false }))?;
    Ok(0)
}

/// `sandbox network`
pub async fn network(session: &Session, args: Network) -> Result<i32> {
    let (policy, shown) = if args.open {
        (NetworkPolicy::open(), json!("open"))
    } else if args.block {
        (NetworkPolicy::blocked(), json!("blocked"))
    } else {
        let (cidrs, domains) = places(&args.allow);
        let shown = json!({ "cidrs": cidrs, "domains": domains });
        (NetworkPolicy::allowing(cidrs, domains), shown)
    };
    let sandbox = session.provider().await?.sandbox(args.id);
    sandbox.set_network(policy).await?;
    session.voice.result(json!({ "sandbox": sandbox.id(), "network": shown }))?;
    Ok(0)
}

/// `sandbox token`
pub async fn token(session: &Session, args: Token) -> Result<i32> {
    let made = session.provider().await?.sandbox(args.id).connect_token(args.port, &args.metadata).await?;
    show(session, json!({ "url": made.url, "token": made.token }), [&made.url, &made.token])
}

/// `sandbox stats`
pub async fn stats(session: &Session, args: Id) -> Result<i32> {
    let used = session.provider().await?.sandbox(args.id).stats().await?;
    let hours = |millis: u64| millis as f64 / 3_600_000.0;
    let lines = [
        format!("processor    {:.6} core hours", hours(used.cpu_core_millis)),
        format!("memory       {:.6} GiB hours", hours(used.memory_mib_millis) / 1024.0),
        format!("accelerator  {:.6} hours", hours(used.gpu_millis)),
    ];
    let value = json!({
        "cpu_core_ms": used.cpu_core_millis, "memory_mib_ms": used.memory_mib_millis, "gpu_ms": used.gpu_millis,
    });
    show(session, value, lines)
}

/// `sandbox sidecar …`
pub async fn sidecar(session: &Session, command: SidecarCommand) -> Result<i32> {
    match command {
        SidecarCommand::Add(args) => add_sidecar(session, *args).await,
        SidecarCommand::List(args) => {
            let found = session.provider().await?.sandbox(args.id).sidecars().await?;
            if session.voice.json {
                output::print_json(json!(found.iter().map(sidecar_json).collect::<Vec<_>>()))?;
                return Ok(0);
            }
            let mut rows = vec![["NAME", "STATE", "ID"].map(str::to_owned).to_vec()];
            rows.extend(found.iter().map(|one| vec![one.name.clone(), state_text(&one.state), one.id.clone()]));
            output::table(&rows)?;
            Ok(0)
        }
        SidecarCommand::Wait(SidecarName { id, name }) => {
            let sandbox = session.provider().await?.sandbox(id);
            let _step = session.voice.step(format!("waiting for {name}"));
            let end = loop {
                if let Some(reason) = sandbox.wait_sidecar(&name, WAIT).await? {
                    break reason;
                }
            };
            show(session, json!({ "sidecar": name, "end": end_text(&end) }), [end_text(&end)])?;
            Ok(end_code(&end))
        }
        SidecarCommand::Terminate(SidecarName { id, name }) => {
            session.provider().await?.sandbox(id).terminate_sidecar(&name).await?;
            show(session, json!({ "sidecar": name, "terminated": true }), [&name])
        }
    }
}

async fn add_sidecar(session: &Session, args: SidecarAdd) -> Result<i32> {
    let provider = session.provider().await?;
    let image = build_image(session, &provider, &args.image).await?;
    let mut spec = SidecarSpec::new(args.name, ImageSpec::id(image)).command(args.argv);
    spec.env = args.env;
    spec.workdir = args.workdir;
    let made = provider.sandbox(args.id).create_sidecar(spec).await?;
    show(session, sidecar_json(&made), [&made.id])
}

fn sidecar_json(sidecar: &SidecarInfo) -> Value {
    json!({ "id": sidecar.id, "name": sidecar.name, "state": state_text(&sidecar.state) })
}

/// `sandbox image …`
pub async fn image(session: &Session, command: ImageCommand) -> Result<i32> {
    let provider = session.provider().await?;
    match command {
        ImageCommand::Inspect(ImageId { image }) => {
            let found = provider.image(&image).await?;
            let workdir = found.workdir.as_deref().unwrap_or("-");
            let value = json!({ "image": found.id, "workdir": found.workdir });
            show(session, value, [format!("image    {}", found.id), format!("workdir  {workdir}")])
        }
        ImageCommand::Rm(ImageId { image }) => {
            provider.delete_image(&image).await?;
            show(session, json!({ "image": image, "removed": true }), [&image])
        }
    }
}

fn show<L: Into<output::Line>>(session: &Session, value: Value, lines: impl IntoIterator<Item = L>) -> Result<i32> {
    if session.voice.json {
        output::print_json(value)?;
    } else {
        output::print_lines(lines.into_iter())?;
    }
    Ok(0)
}
