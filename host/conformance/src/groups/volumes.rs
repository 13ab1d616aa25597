//! Group `volumes`: named volumes, whose files outlive a sandbox.

use std::sync::Arc;
use std::time::Duration;

use sandbox_host::types::{SandboxSpec, VolumeMount};
use sandbox_host::{FileFault, Kind, Sandbox, fresh_id};

use crate::check::{Outcome, ensure, failed, fault, same};
use crate::table::checks;
use crate::world::Case;

checks! {
    "volumes.outlives-a-sandbox" ["create.volumes", "volumes.delete", "files"] "volumes: the files of a volume outlive the sandbox that made them" => outlives;
    "volumes.shared" ["create.volumes", "volumes.delete", "volumes.reload", "files"] "reload-volumes: makes the changes of other sandboxes visible" => shared;
    "volumes.read-only" ["create.volumes", "volumes.delete", "files"] "volume-mount: nothing can be written to a read-only mount" => read_only;
    "volumes.delete" ["create.volumes", "volumes.delete", "files"] "delete-volume: deletes the files of the volume" => delete;
    "volumes.delete-unknown" ["volumes.delete"] "delete-volume: succeeds if the volume does not exist; idempotent" => delete_unknown;
}

/// Where the volumes are mounted.
const PATH: &str = "/conformance-volume";

/// The end of a sandbox must not take longer.
const END: Duration = Duration::from_secs(60);

/// Returns the name of a new volume, which is deleted after the check.
fn volume(case: &Case) -> String {
    let name = format!("conformance-{}", fresh_id());
    case.made_volume(&name);
    name
}

/// Creates a sandbox with this volume, which is created if it does not exist.
async fn mounted(case: &Case, volume: &str, read_only: bool) -> Outcome<Sandbox> {
    let (volume, path) = (volume.to_owned(), PATH.to_owned());
    let mount = VolumeMount { volume, path, read_only, sub_path: None, create: true };
    case.create(SandboxSpec { volumes: vec![mount], ..case.spec() }).await
}

/// Writes a file to a new volume in a sandbox that ends afterwards. Returns the name of the volume and the path.
async fn filled(case: &Case) -> Outcome<(String, String)> {
    let (name, path) = (volume(case), format!("{PATH}/folder/file"));
    let sandbox = mounted(case, &name, false).await?;
    sandbox.write_file(&path, "kept", Default::default()).await?;
    sandbox.terminate().await?;
    match sandbox.wait_for(END).await? {
        Some(_) => Ok((name, path)),
        None => failed(format!("a terminated sandbox had not ended after {END:?}")),
    }
}

async fn outlives(case: Arc<Case>) -> Outcome {
    let (name, path) = filled(&case).await?;
    let found = mounted(&case, &name, false).await?.read_file(&path, 100).await?;
    same("a file of a volume in a later sandbox", &found, b"kept")
}

async fn shared(case: Arc<Case>) -> Outcome {
    let (name, path) = (volume(&case), format!("{PATH}/file"));
    let (one, other) = (mounted(&case, &name, false).await?, mounted(&case, &name, false).await?);
    one.write_file(&path, "shared", Default::default()).await?;
    let begun = std::time::Instant::now();
    loop {
        other.reload_volumes().await?;
        let found = other.read_file(&path, 100).await;
        // A service may write back the changes of a sandbox with a delay.
        if found.is_ok() || begun.elapsed() > END {
            return same("a file of a volume in another sandbox", &found?, b"shared");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn read_only(case: Arc<Case>) -> Outcome {
    let (name, path) = filled(&case).await?;
    let sandbox = mounted(&case, &name, true).await?;
    for path in [path.as_str(), &format!("{PATH}/new")] {
        let written = sandbox.write_file(path, "new", Default::default()).await;
        let Err(error) = written else { return failed(format!("{path:?} of a read-only volume was written")) };
        let fits = matches!(error.kind(), Kind::File(FileFault::Other(_) | FileFault::PermissionDenied));
        ensure!(fits, "a write to a read-only volume failed with {}", crate::check::told(&error));
    }
    same("a file of a read-only volume", &sandbox.read_file(&path, 100).await?, b"kept")
}

async fn delete(case: Arc<Case>) -> Outcome {
    let (name, path) = filled(&case).await?;
    case.delete_volume(&name).await?;
    let found = mounted(&case, &name, false).await?.read_file(&path, 100).await;
    fault("a file of a volume that was deleted", found, FileFault::NotFound)?;
    Ok(())
}

async fn delete_unknown(case: Arc<Case>) -> Outcome {
    let name = format!("conformance-{}", fresh_id());
    for _ in 0..2 {
        case.provider.delete_volume(&name).await?;
    }
    Ok(())
}
