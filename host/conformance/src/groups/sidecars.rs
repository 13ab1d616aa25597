//! Group `sidecars`: further containers of a sandbox.

use std::sync::Arc;
use std::time::Duration;

use sandbox_host::types::{EndReason, ExecSpec, ImageSpec, ListFilter, SidecarSpec};
use sandbox_host::{Kind, fresh_id};

use crate::check::{Outcome, ensure, refused};
use crate::table::checks;
use crate::world::{Case, altered};

checks! {
    "sidecars.of-create" ["sidecars", "program:sleep"] "sandbox-spec: `sidecars` run beside the sandbox" => of_create;
    "sidecars.add" ["sidecars", "program:sleep"] "create-sidecar: adds a container to a running sandbox" => add;
    "sidecars.name-is-taken" ["sidecars", "program:sleep"] "create-sidecar: fails with `already-exists` if the name is in use" => taken;
    "sidecars.main-is-reserved" ["sidecars"] "sidecar-spec: `main` is reserved" => reserved;
    "sidecars.end" ["sidecars", "program:sh"] "wait-sidecar: returns the reason of the end" => end;
    "sidecars.env" ["sidecars", "program:sh"] "sidecar-spec: `env` are the variables of its main process" => env;
    "sidecars.failed-create" ["sidecars", "images", "image.commands", "create.tags"] "create: a sandbox whose sidecar has an unknown image is not left behind" => failed_create;
    "sidecars.wait-running" ["sidecars", "program:sleep"] "wait-sidecar: returns none if it is still running after `wait`" => wait_running;
    "sidecars.terminate" ["sidecars", "program:sleep"] "terminate-sidecar: idempotent" => terminate;
    "sidecars.unknown" ["sidecars"] "terminate-sidecar: fails with `not-found` for an unknown name" => unknown;
    "sidecars.commands" ["sidecars", "exec", "files", "program:sh"] "exec-spec: `container` names the sidecar, which has its own files" => commands;
    "sidecars.unknown-sandbox" ["sidecars"] "list-sidecars: fails with `not-found` if the provider does not know the sandbox" => unknown_sandbox;
}

const END: Duration = Duration::from_secs(60);

fn sleeping(case: &Case, name: &str) -> SidecarSpec {
    SidecarSpec::new(name, case.image()).command(["sleep", "600"])
}

async fn names(sandbox: &sandbox_host::Sandbox) -> Outcome<Vec<String>> {
    let mut names: Vec<_> = sandbox.sidecars().await?.into_iter().map(|sidecar| sidecar.name).collect();
    names.sort();
    Ok(names)
}

async fn of_create(case: Arc<Case>) -> Outcome {
    let spec = case.spec().sidecar(sleeping(&case, "first")).sidecar(sleeping(&case, "second"));
    let found = names(&case.create(spec).await?).await?;
    ensure!(found == ["first", "second"], "a sandbox with two sidecars has {found:?}");
    Ok(())
}

async fn add(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let made = sandbox.create_sidecar(sleeping(&case, "added")).await?;
    ensure!(made.name == "added" && !made.id.is_empty(), "the new sidecar is {made:?}");
    let found = names(&case.other().await?.sandbox(sandbox.id())).await?;
    ensure!(found == ["added"], "the sidecars are {found:?}");
    Ok(())
}

async fn taken(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().sidecar(sleeping(&case, "first"))).await?;
    let again = sandbox.create_sidecar(sleeping(&case, "first")).await;
    refused("`create-sidecar` with a name that is in use", again, &Kind::AlreadyExists)?;
    Ok(())
}

async fn reserved(case: Arc<Case>) -> Outcome {
    let made = case.try_create(case.spec().sidecar(sleeping(&case, "main"))).await;
    refused("`create` with a sidecar `main`", made.map(drop), &Kind::InvalidArgument)?;
    Ok(())
}

async fn end(case: Arc<Case>) -> Outcome {
    let sidecar = SidecarSpec::new("ends", case.image()).command(["/bin/sh", "-c", "exit 5"]);
    let sandbox = case.create(case.spec().sidecar(sidecar)).await?;
    let ended = sandbox.wait_sidecar("ends", END).await?;
    ensure!(matches!(ended, Some(EndReason::Finished(5))), "a sidecar that exits with 5 ended with {ended:?}");
    Ok(())
}

async fn env(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let mut sidecar = SidecarSpec::new("ends", case.image()).command(["/bin/sh", "-c", "exit $CODE"]);
    sidecar.env.push(("CODE".to_owned(), "5".to_owned()));
    sandbox.create_sidecar(sidecar).await?;
    let ended = sandbox.wait_sidecar("ends", END).await?;
    ensure!(matches!(ended, Some(EndReason::Finished(5))), "a sidecar that exits with $CODE ended with {ended:?}");
    Ok(())
}

async fn failed_create(case: Arc<Case>) -> Outcome {
    let image = case.provider.build(case.image().command(format!("RUN echo {}", fresh_id()))).await?;
    let image = image.finish(|_| ()).await?.id;
    case.made_image(&image);
    let (mark, unknown) = (fresh_id(), ImageSpec::id(altered(&image)));
    let spec = case.spec().tag("conformance", &mark).sidecar(SidecarSpec::new("x", unknown));
    refused("`create` with a sidecar of an unknown image", case.try_create(spec).await.map(drop), &Kind::NotFound)?;
    let begun = std::time::Instant::now();
    loop {
        let found = case.provider.list(&ListFilter::default().tag("conformance", &mark), 10).await?;
        if found.is_empty() {
            return Ok(());
        }
        ensure!(begun.elapsed() < END, "a sandbox whose creation failed still runs: {found:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn wait_running(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().sidecar(sleeping(&case, "first"))).await?;
    let ended = sandbox.wait_sidecar("first", Duration::from_millis(200)).await?;
    ensure!(ended.is_none(), "a running sidecar ended with {ended:?}");
    Ok(())
}

async fn terminate(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().sidecar(sleeping(&case, "first"))).await?;
    for _ in 0..2 {
        sandbox.terminate_sidecar("first").await?;
        let ended = sandbox.wait_sidecar("first", END).await?;
        ensure!(matches!(ended, Some(EndReason::Terminated)), "a terminated sidecar ended with {ended:?}");
    }
    Ok(())
}

async fn unknown(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    refused("`terminate-sidecar` of an unknown name", sandbox.terminate_sidecar("none").await, &Kind::NotFound)?;
    let waited = sandbox.wait_sidecar("none", Duration::ZERO).await;
    refused("`wait-sidecar` of an unknown name", waited, &Kind::NotFound)?;
    let waited = sandbox.wait_sidecar("main", Duration::ZERO).await;
    refused("`wait-sidecar` of `main`", waited, &Kind::InvalidArgument)?;
    Ok(())
}

async fn commands(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().sidecar(sleeping(&case, "first"))).await?;
    let sidecar = sandbox.sidecar("first");
    let result = sidecar.run(ExecSpec::shell("printf inside >/conformance; cat /conformance")).await?;
    crate::check::printed("a command in a sidecar", &result, "inside")?;
    crate::check::same("a file of the sidecar", &sidecar.read_file("/conformance", 100).await?, b"inside")?;
    let found = sandbox.read_file("/conformance", 100).await;
    crate::check::fault("a file of the sidecar in the main container", found, sandbox_host::FileFault::NotFound)?;
    Ok(())
}

async fn unknown_sandbox(case: Arc<Case>) -> Outcome {
    let unknown = case.provider.sandbox(altered(case.shared().await?.id()));
    refused("`list-sidecars` of an unknown sandbox", unknown.sidecars().await, &Kind::NotFound)?;
    Ok(())
}
