//! Group `snapshots`: saved file systems and directories, and mounts.

use std::sync::Arc;
use std::time::Duration;

use sandbox_host::types::{ImageSpec, SandboxSpec, WriteOptions};
use sandbox_host::{FileFault, Kind, Sandbox, fresh_id};

use crate::check::{Outcome, ensure, failed, fault, refused, same};
use crate::table::checks;
use crate::world::{Case, altered};

checks! {
    "snapshots.filesystem" ["snapshot.filesystem", "files"] "snapshot-filesystem: a sandbox of the image has the files" => filesystem;
    "snapshots.later-changes" ["snapshot.filesystem", "files"] "snapshot-filesystem: later changes are not in the image" => later_changes;
    "snapshots.one-key" ["snapshot.filesystem"] "snapshot-filesystem: `key` makes the call idempotent" => one_key;
    "snapshots.ended-sandbox" ["snapshot.filesystem"] "snapshot-filesystem: fails with `sandbox-ended` if the sandbox has ended" => ended_sandbox;
    "snapshots.directory" ["snapshot.directory", "mount", "files"] "snapshot-directory: the image can be mounted and has the files" => directory;
    "snapshots.mount-empty" ["mount", "files", "directories"] "mount: an empty directory if `image` is none" => mount_empty;
    "snapshots.unmount" ["snapshot.directory", "mount", "files"] "unmount: removes a mount, and shows what was at the path" => unmount;
    "snapshots.bad-key" ["snapshot.filesystem"] "snapshot-filesystem: `key` is like an exec id: 1 to 64 characters of `[A-Za-z0-9_-]`" => bad_key;
    "snapshots.bad-mounts" ["snapshot.directory", "mount"] "mount: a path is absolute, and an image exists" => bad_mounts;
    "snapshots.unmount-nothing" ["mount"] "unmount: fails with `not-found` if nothing is mounted at the path" => unmount_nothing;
}

/// Time after which the images are deleted by the provider.
const TTL: Duration = Duration::from_secs(3600);

async fn put(sandbox: &Sandbox, path: &str, data: &str) -> Outcome {
    Ok(sandbox.write_file(path, data, WriteOptions::default()).await?)
}

async fn holds(sandbox: &Sandbox, path: &str, data: &str) -> Outcome {
    same(&format!("the file {path:?}"), &sandbox.read_file(path, 1000).await?, data.as_bytes())
}

/// Saves the file system of a sandbox, and creates a sandbox of the image.
async fn copy(case: &Case, sandbox: &Sandbox) -> Outcome<(String, Sandbox)> {
    let image = sandbox.snapshot_filesystem(Some(TTL)).await?;
    case.made_image(&image);
    let copy = case.create(SandboxSpec { image: ImageSpec::id(&image), ..case.spec() }).await?;
    Ok((image, copy))
}

async fn filesystem(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    put(&sandbox, "/conformance/kept", "kept").await?;
    let (_, copy) = copy(&case, &sandbox).await?;
    holds(&copy, "/conformance/kept", "kept").await?;
    // The first sandbox goes on.
    holds(&sandbox, "/conformance/kept", "kept").await
}

async fn later_changes(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    put(&sandbox, "/conformance/kept", "before").await?;
    let (image, _) = copy(&case, &sandbox).await?;
    put(&sandbox, "/conformance/kept", "after").await?;
    put(&sandbox, "/conformance/new", "new").await?;
    let copy = case.create(SandboxSpec { image: ImageSpec::id(image), ..case.spec() }).await?;
    holds(&copy, "/conformance/kept", "before").await?;
    fault("a file that is younger than the image", copy.read_file("/conformance/new", 10).await, FileFault::NotFound)?;
    Ok(())
}

async fn one_key(case: Arc<Case>) -> Outcome {
    let (sandbox, key) = (case.sandbox().await?, fresh_id());
    let first = sandbox.snapshot_filesystem_as(&key, Some(TTL)).await?;
    case.made_image(&first);
    let again = case.other().await?.sandbox(sandbox.id()).snapshot_filesystem_as(&key, Some(TTL)).await?;
    ensure!(first == again, "two snapshots with one key are {first} and {again}");
    let other = sandbox.snapshot_filesystem_as(&fresh_id(), Some(TTL)).await?;
    case.made_image(&other);
    ensure!(first != other, "two snapshots with different keys are both {first}");
    Ok(())
}

async fn ended_sandbox(case: Arc<Case>) -> Outcome {
    let ended = case.ended().await?;
    refused("a snapshot of an ended sandbox", ended.snapshot_filesystem(Some(TTL)).await, &Kind::SandboxEnded)?;
    Ok(())
}

async fn directory(case: Arc<Case>) -> Outcome {
    let (sandbox, other) = (case.sandbox().await?, case.sandbox().await?);
    put(&sandbox, "/conformance/sub/file", "content").await?;
    let image = sandbox.snapshot_directory("/conformance", Some(TTL)).await?;
    case.made_image(&image);
    other.mount("/mnt/conformance", Some(&image)).await?;
    holds(&other, "/mnt/conformance/sub/file", "content").await
}

async fn mount_empty(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    sandbox.mount("/mnt/conformance", None).await?;
    let entries = sandbox.list_directory("/mnt/conformance").await?;
    ensure!(entries.is_empty(), "an empty mount has the entries {entries:?}");
    put(&sandbox, "/mnt/conformance/file", "x").await?;
    holds(&sandbox, "/mnt/conformance/file", "x").await
}

async fn unmount(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    put(&sandbox, "/conformance/file", "of the image").await?;
    let image = sandbox.snapshot_directory("/conformance", Some(TTL)).await?;
    case.made_image(&image);
    put(&sandbox, "/mnt/conformance/file", "below").await?;
    sandbox.mount("/mnt/conformance", Some(&image)).await?;
    holds(&sandbox, "/mnt/conformance/file", "of the image").await?;
    sandbox.unmount("/mnt/conformance").await?;
    holds(&sandbox, "/mnt/conformance/file", "below").await
}

async fn bad_key(case: Arc<Case>) -> Outcome {
    let (sandbox, kind) = (case.sandbox().await?, &Kind::InvalidArgument);
    for key in ["a/b", "two words", ""] {
        let saved = sandbox.snapshot_filesystem_as(key, Some(TTL)).await;
        refused(&format!("the key {key:?}"), saved, kind)?;
    }
    Ok(())
}

async fn bad_mounts(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    put(&sandbox, "/conformance/file", "x").await?;
    let image = sandbox.snapshot_directory("/conformance", Some(TTL)).await?;
    case.made_image(&image);
    let kind = &Kind::InvalidArgument;
    refused("`mount` at a relative path", sandbox.mount("mnt", Some(&image)).await, kind)?;
    refused("`mount` at the root", sandbox.mount("/", Some(&image)).await, kind)?;
    let absent = sandbox.mount("/mnt/x", Some(&altered(&image))).await;
    refused("`mount` of an unknown image", absent, &Kind::NotFound)?;
    let Err(_) = sandbox.snapshot_directory("/conformance/no/such", Some(TTL)).await else {
        return failed("a directory that does not exist was saved");
    };
    Ok(())
}

async fn unmount_nothing(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    refused("`unmount` of nothing", sandbox.unmount("/mnt/conformance-none").await, &Kind::NotFound)?;
    Ok(())
}
