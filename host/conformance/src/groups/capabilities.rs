//! Group `capabilities`: one check for each capability of the interface. A capability that is not declared must be refused
//! with `unsupported` before anything is sent, and the subject of the error must name it. A capability that is declared
//! must not be refused in this way; the other groups test what it does.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sandbox_host::types::{
    BucketMount, Content, ExecSpec, ImageSpec, LogQuery, NetworkPolicy, PortKind, Pty, SandboxSpec, SidecarSpec,
    WriteMode, WriteOptions,
};
use sandbox_host::{Error, Kind, Provider, Result, Sandbox, Signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::check::{Outcome, Stop, ensure, refused, told};
use crate::table::Check;
use crate::world::Case;

/// An id that no sandbox, command, image or name has.
const NONE: &str = "conformance-none";

macro_rules! capabilities {
    ($($name:literal)*) => {
        /// The checks of this group.
        pub(crate) const CHECKS: &[Check] = &[$(Check {
            id: concat!("capabilities.", $name),
            needs: &[],
            clause: "support: a capability that is absent is refused with `unsupported` before any request is sent; one that is declared is not",
            run: |case| Box::pin(holds(case, $name)),
        }),*];
    };
}

capabilities! {
    "image.registry" "image.registry-credentials" "image.dockerfile" "image.context" "image.commands" "image.secrets"
    "image.gpu" "image.delete" "image.list" "create.user" "create.command" "create.workdir" "create.platform" "create.names" "create.tags" "create.env" "create.secrets" "create.cpu" "create.memory"
    "create.disk" "create.gpu" "create.lifetime" "create.idle-timeout" "create.regions" "create.volumes"
    "create.buckets" "create.proxy" "create.pty" "create.readiness" "network.blocked" "network.cidrs" "network.domains"
    "network.inbound" "network.update" "ports.tls" "ports.h2" "ports.tcp" "connect-token" "sidecars" "tags.update"
    "find" "wait-running" "pause" "stop" "lifetime.extend" "logs" "stats" "snapshot.filesystem" "snapshot.directory" "snapshot.memory" "snapshot.exit" "mount"
    "volumes.reload" "volumes.delete" "snapshot.memory.delete" "exec.list" "exec.user" "exec.signal" "exec.deadline" "exec.pty" "exec.resize" "exec.merge-stderr"
    "exec.secrets" "main.output" "main.input" "files.mode" "files.append" "files.create-new" "files.rename"
    "files.symlinks" "files.trees" "files.watch" "files.user" "exec" "files" "directories"
}

/// A use of a capability.
enum Use {
    /// As a setting of a new sandbox.
    Spec(Box<SandboxSpec>),
    /// By a call.
    Call(BoxFuture<'static, Result<()>>),
}

async fn holds(case: Arc<Case>, name: &'static str) -> Outcome {
    let part = name.split_once('.').map_or(name, |(part, _)| part);
    let part = match part {
        "main" => "exec",
        "directories" => "files",
        part => part,
    };
    if name != part && matches!(part, "exec" | "files") && !case.declares(part) {
        return Err(Stop::Skipped(format!("the provider has no `{part}`")));
    }
    let provider = case.other().await?;
    let before = provider.metrics().requests;
    if case.declares(name) {
        // No sandbox has this id, so the calls have no effect.
        let error = match using(name, &case, &provider, &provider.sandbox(NONE)) {
            Use::Spec(spec) => provider.check_spec(&spec).await.err(),
            Use::Call(call) => call.await.err(),
        };
        let Some(error) = error.filter(|error| *error.kind() == Kind::Unsupported) else { return Ok(()) };
        // Plugins of the first version of the interface have no `check-spec`.
        ensure!(error.subject() == Some("check-spec"), "`{name}` is declared, but a call failed with {}", told(&error));
        return Ok(());
    }
    // With a sandbox that exists, only the missing capability is a reason to refuse the call.
    let shared = case.shared().await?;
    match using(name, &case, &provider, &provider.sandbox(shared.id())) {
        Use::Spec(spec) => {
            let checked = provider.check_spec(&spec).await;
            if !checked.as_ref().is_err_and(|error| error.subject() == Some("check-spec")) {
                is_refused(name, "check-spec", checked)?;
            }
            is_refused(name, "create", case.try_create_by(&provider, *spec).await.map(drop))?;
        }
        Use::Call(call) => match call.await {
            // Without entry points there is no `main`.
            Err(error) if is_main(name) && error.is_not_found() && !case.declares("create.command") => {}
            result => is_refused(name, "the call", result)?,
        },
    }
    let sent = provider.metrics().requests - before;
    ensure!(sent == 0, "`{name}` was refused only after {sent} requests had been sent");
    Ok(())
}

fn is_main(name: &str) -> bool {
    name.starts_with("main.")
}

/// Checks that a call was refused because of this capability.
fn is_refused(name: &str, what: &str, result: Result<()>) -> Outcome {
    let error = refused(&format!("{what}, with `{name}` not declared"), result, &Kind::Unsupported)?;
    let subject = error.subject().unwrap_or_default();
    ensure!(
        subject == name || others(name).contains(&subject),
        "the error should name the capability `{name}` as its subject, and names {subject:?}"
    );
    ensure!(error.happened() == sandbox_host::Happened::No, "a refused call has happened: {:?}", error.happened());
    Ok(())
}

/// Returns the other names that an error may have as its subject: the part of the interface, or another capability that
/// the same call uses.
fn others(name: &str) -> &'static [&'static str] {
    match name {
        "image.secrets" | "image.gpu" | "image.commands" => &["image.commands", "images", "image"],
        "image.registry" | "image.registry-credentials" => &["image.registry", "images", "image"],
        "image.dockerfile" | "image.context" | "image.delete" => &["images", "image"],
        // For an old plugin the host names the function.
        "image.list" => &["inventory", "list-images"],
        "exec.list" => &["inventory", "list-execs"],
        "snapshot.memory.delete" => &["inventory", "delete-memory-snapshot"],
        "lifetime.extend" => &["lifecycle", "extend"],
        "wait-running" | "pause" | "stop" => &["lifecycle"],
        "create.names" => &["names"],
        "create.readiness" => &["readiness"],
        "ports.tls" | "ports.h2" | "ports.tcp" => &["tunnels"],
        "find" => &["names", "create.names"],
        "connect-token" => &["tunnels"],
        "stats" => &["usage"],
        "snapshot.filesystem" | "snapshot.directory" | "snapshot.exit" => &["snapshots"],
        "snapshot.memory" => &["memory-snapshots"],
        "mount" => &["mounts", "snapshots"],
        "network.update" => &["network"],
        "volumes.reload" | "volumes.delete" => &["volumes"],
        "exec.signal" | "exec.resize" | "main.output" | "main.input" => &["processes", "exec"],
        "files.trees" => &["trees", "files"],
        "files.watch" => &["watches", "files"],
        "directories" => &["files"],
        "files.mode" | "files.append" | "files.create-new" | "files.rename" | "files.symlinks" | "files.user" => {
            &["files"]
        }
        _ => &[],
    }
}

/// Returns a use of the capability. `sandbox` is the sandbox of a call.
fn using(name: &str, case: &Case, provider: &Provider, sandbox: &Sandbox) -> Use {
    let (sandbox, provider) = (sandbox.clone(), provider.clone());
    match name.split_once('.').map_or(name, |(part, _)| part) {
        "image" => of_image(name, case, provider),
        "create" | "ports" | "sidecars" => of_create(name, case),
        "network" if name != "network.update" => of_create(name, case),
        "exec" | "main" if name != "exec.list" => Use::Call(Box::pin(of_exec(name.to_owned(), sandbox))),
        "files" | "directories" => Use::Call(Box::pin(of_files(name.to_owned(), sandbox))),
        _ => Use::Call(Box::pin(of_sandbox(name.to_owned(), provider, sandbox))),
    }
}

fn of_image(name: &str, case: &Case, provider: Provider) -> Use {
    let image = match name {
        "image.registry" => ImageSpec::registry("debian"),
        "image.registry-credentials" => ImageSpec::registry("example.org/image").registry_secret(NONE),
        "image.dockerfile" => ImageSpec::dockerfile("FROM debian\n"),
        "image.secrets" => case.image().command("RUN true").secret(NONE),
        "image.gpu" => case.image().command("RUN true").gpu("T4", 1),
        "image.context" => {
            let content = Content { sha256: "0".repeat(64), size: 1, digests: vec![] };
            return Use::Call(Box::pin(async move { provider.missing_content(&[content]).await.map(drop) }));
        }
        "image.list" => return Use::Call(Box::pin(async move { provider.images(None, 10).await.map(drop) })),
        "image.delete" => return Use::Call(Box::pin(async move { provider.delete_image(NONE).await })),
        _ => case.image().command("RUN true"),
    };
    Use::Spec(Box::new(SandboxSpec { image, ..case.spec() }))
}

fn of_create(name: &str, case: &Case) -> Use {
    let spec = case.spec();
    let spec = match name {
        "create.user" => spec.user("root"),
        "create.command" => spec.command(["echo"]),
        "create.platform" => {
            let mut spec = spec;
            spec.image.platform = Some("linux/amd64".to_owned());
            spec
        }
        "create.names" => spec.name(NONE),
        "create.tags" => spec.tag("conformance", "1"),
        "create.env" => spec.env("CONFORMANCE", "1"),
        "create.workdir" => spec.workdir("/tmp"),
        "create.secrets" => spec.secret(NONE),
        "create.cpu" => spec.cpu(1.0),
        "create.memory" => spec.memory_mib(256),
        "create.disk" => {
            let mut spec = spec;
            spec.resources.disk_mib = Some(1024);
            spec
        }
        "create.gpu" => spec.gpu("T4", 1),
        "create.lifetime" => spec.lifetime(Duration::from_secs(600)),
        "create.idle-timeout" => spec.idle_timeout(Duration::from_secs(600)),
        "create.regions" => spec.region(NONE),
        "create.volumes" => spec.volume(NONE, "/mnt/conformance"),
        "create.buckets" => spec.bucket(BucketMount::new(NONE, "/mnt/conformance")),
        "create.proxy" => spec.proxy(NONE),
        "create.pty" => SandboxSpec { pty: Some(Pty { rows: 24, columns: 80, term: "xterm".into() }), ..spec },
        "create.readiness" => spec.ready_when(["echo"]),
        "network.blocked" => spec.block_network(),
        "network.cidrs" => spec.allow_only(["192.0.2.0/24"], [""; 0]),
        "network.domains" => spec.allow_only([""; 0], ["example.org"]),
        "network.inbound" => spec.inbound_from("192.0.2.0/24"),
        "ports.tls" => spec.port_of(PortKind::Tls, 8000),
        "ports.h2" => spec.port_of(PortKind::H2, 8000),
        "ports.tcp" => spec.port_of(PortKind::Tcp, 8000),
        _ => spec.sidecar(SidecarSpec::new("conformance", case.image())),
    };
    Use::Spec(Box::new(spec))
}

async fn of_exec(name: String, sandbox: Sandbox) -> Result<()> {
    let plain = || ExecSpec::new(["echo", "word"]);
    let stream = |error: std::io::Error| match error.downcast::<Error>() {
        Ok(error) => Err(error),
        // A closed input is no refusal.
        Err(_) => Ok(()),
    };
    let command = match name.as_str() {
        "exec.user" => plain().user("root"),
        "exec.deadline" => plain().timeout(Duration::from_secs(60)),
        "exec.pty" => plain().pty(24, 80, "xterm"),
        "exec.merge-stderr" => plain().merge_stderr(),
        "exec.secrets" => ExecSpec { secrets: vec![NONE.to_owned()], ..plain() },
        "exec.signal" => return sandbox.signal(NONE, Signal::TERM).await,
        "exec.resize" => return sandbox.attach(NONE).resize(24, 80).await,
        "main.output" => {
            let mut main = sandbox.attach("main");
            let Some(stdout) = &mut main.stdout else { return Ok(()) };
            // The entry point may print nothing for ever; a refusal comes at once.
            return match tokio::time::timeout(Duration::from_secs(5), stdout.read(&mut [0; 1])).await {
                Ok(Err(error)) => stream(error),
                _ => Ok(()),
            };
        }
        "main.input" => {
            let mut main = sandbox.attach("main");
            let Some(stdin) = &mut main.stdin else { return Ok(()) };
            let written = async {
                stdin.write_all(b"\n").await?;
                stdin.flush().await
            };
            return written.await.or_else(stream);
        }
        _ => plain(),
    };
    sandbox.run(command).await.map(drop)
}

async fn of_files(name: String, sandbox: Sandbox) -> Result<()> {
    let path = "/tmp/conformance-none";
    match name.as_str() {
        "files.mode" => sandbox.set_permissions(path, 0o600).await,
        "files.append" => {
            let options = WriteOptions { mode: WriteMode::Append, ..WriteOptions::default() };
            sandbox.write_file(path, "x", options).await
        }
        "files.create-new" => {
            let options = WriteOptions { mode: WriteMode::CreateNew, ..WriteOptions::default() };
            let path = format!("{path}-{}", sandbox_host::fresh_id());
            sandbox.write_file(&path, "x", options).await
        }
        "files.rename" => sandbox.rename(path, "/tmp/conformance-other", true).await,
        "files.symlinks" => sandbox.make_symlink(path, "target").await,
        "files.trees" => sandbox.download_tree(path, tokio::io::sink()).await.map(drop),
        "files.user" => sandbox.as_user("root").read_file(path, 1).await.map(drop),
        "files.watch" => sandbox.watch("/tmp", NONE, false, 0, Duration::ZERO).await.map(drop),
        "directories" => directories(&sandbox).await,
        _ => sandbox.read_file("/conformance-none", 1).await.map(drop),
    }
}

/// Calls all functions of the part. Returns an error that is not `unsupported`, or the last one.
async fn directories(sandbox: &Sandbox) -> Result<()> {
    let path = "/tmp/conformance-none";
    let results = [
        sandbox.stat(path, true).await.map(drop),
        sandbox.list_directory(path).await.map(drop),
        sandbox.make_directory(path, true).await,
        sandbox.remove(path, true).await,
    ];
    let mut last = Ok(());
    for result in results {
        match &result {
            Err(error) if *error.kind() == Kind::Unsupported => last = result,
            _ => return result,
        }
    }
    last
}

async fn of_sandbox(name: String, provider: Provider, sandbox: Sandbox) -> Result<()> {
    match name.as_str() {
        "network.update" => sandbox.set_network(NetworkPolicy::open()).await,
        "connect-token" => sandbox.connect_token(8000, "").await.map(drop),
        "tags.update" => sandbox.set_tags(vec![]).await,
        "find" => provider.find(NONE).await.map(drop),
        "logs" => sandbox.logs(LogQuery::default(), None, 1000).await.map(drop),
        "stats" => sandbox.usage_report().await.map(drop),
        "wait-running" => sandbox.wait_running(Duration::ZERO).await.map(drop),
        "pause" => sandbox.pause().await,
        "stop" => sandbox.stop().await,
        "lifetime.extend" => sandbox.extend(Duration::from_secs(3600)).await.map(drop),
        "exec.list" => sandbox.execs(None, 10).await.map(drop),
        "volumes.delete" => provider.delete_volume(NONE).await,
        "snapshot.memory.delete" => provider.delete_memory_snapshot(NONE).await,
        "snapshot.filesystem" => sandbox.snapshot_filesystem(None).await.map(drop),
        "snapshot.directory" => sandbox.snapshot_directory("/tmp", None).await.map(drop),
        "snapshot.memory" => sandbox.snapshot_memory().await.map(drop),
        "snapshot.exit" => sandbox.exit_snapshot(Duration::ZERO).await.map(drop),
        "mount" => sandbox.mount("/mnt/conformance", None).await,
        _ => sandbox.reload_volumes().await,
    }
}

/// The names of this group are those of the interface, apart from capabilities that no call can use by itself.
#[cfg(test)]
mod tests {
    use super::super::describe::NAMES;
    use super::*;

    #[test]
    fn every_capability_has_a_check() {
        // Without `exec.long-argv`, an unspecified length is accepted.
        let without_calls =
            ["exec.long-argv", "create.idempotent", "exec.idempotent", "stats.cost", "files.atomic", "cache"];
        for name in NAMES.iter().filter(|name| !without_calls.contains(name)) {
            let id = format!("capabilities.{name}");
            assert!(CHECKS.iter().any(|check| check.id == id), "{name}");
        }
        assert_eq!(CHECKS.len() + without_calls.len(), NAMES.len() + ["exec", "files", "directories"].len());
    }
}
