//! Group `trees`: directory trees as tar streams.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use sandbox_host::FileFault;
use sandbox_host::types::ExecSpec;

use crate::check::{Outcome, ensure, fault, pattern, same};
use crate::table::checks;
use crate::world::Case;

checks! {
    "trees.there-and-back" ["files", "files.trees"] "read-tree: returns the tree that `write-tree` has unpacked" => there_and_back;
    "trees.growing-file" ["files", "files.trees", "exec", "processes", "exec.signal", "program:sh"] "read-tree: a file that grows meanwhile does not damage the stream" => growing_file;
    "trees.into-existing" ["files", "files.trees"] "write-tree: other files of the directory stay" => into_existing;
    "trees.read-missing" ["files", "files.trees"] "read-tree: fails with `not-found` for a path that does not exist" => read_missing;
    "trees.read-file" ["files", "files.trees"] "read-tree: fails with `not-a-directory` for a file" => read_file;
    "trees.below-a-file" ["files", "files.trees"] "write-tree: fails with `not-a-directory` if the path is a file" => below_a_file;
}

/// Returns all entries below a local directory: the path, and the mode with the content, the target, or a word for a
/// directory.
fn entries(root: &Path) -> Outcome<BTreeMap<String, Vec<u8>>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let content = if path.is_symlink() {
                format!("-> {}", std::fs::read_link(&path)?.display()).into_bytes()
            } else if path.is_dir() {
                let mode = mode(&path)?;
                open.push(path);
                format!("directory {mode:o}").into_bytes()
            } else {
                [format!("{:o} ", mode(&path)?).into_bytes(), std::fs::read(&path)?].concat()
            };
            found.insert(name, content);
        }
    }
    Ok(found)
}

fn mode(path: &Path) -> Outcome<u32> {
    Ok(path.metadata()?.permissions().mode() & 0o7777)
}

/// Makes a local tree with files of several sizes, odd names, an empty directory and links.
fn tree(root: &Path) -> Outcome {
    let long = "n".repeat(150);
    std::fs::create_dir_all(root.join("a b/ü/empty"))?;
    std::fs::create_dir_all(root.join(&long).join(&long))?;
    std::fs::write(root.join("plain"), "x")?;
    std::fs::write(root.join("empty file"), "")?;
    std::fs::write(root.join("a b/ü/bytes"), pattern(1, 513))?;
    std::fs::write(root.join(&long).join(&long).join(&long), "deep")?;
    std::fs::write(root.join("large"), pattern(2, 3_000_001))?;
    std::fs::write(root.join("a b/run.sh"), "#!/bin/sh\n")?;
    for (name, mode) in [("plain", 0o644), ("a b/run.sh", 0o755), ("a b/ü/bytes", 0o600), ("a b/ü", 0o750)] {
        std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(mode))?;
    }
    std::os::unix::fs::symlink("../plain", root.join("a b/up"))?;
    std::os::unix::fs::symlink("plain", root.join("link"))?;
    std::os::unix::fs::symlink("no-such", root.join("dangling"))?;
    Ok(())
}

async fn there_and_back(case: Arc<Case>) -> Outcome {
    let (sandbox, path, local) = (case.shared().await?, case.path("tree"), tempfile::tempdir()?);
    let (from, back) = (local.path().join("from"), local.path().join("back"));
    tree(&from)?;
    sandbox.upload_directory(&from, &path, |_| ()).await?;
    sandbox.download_directory(&path, &back, |_| ()).await?;
    let (sent, received) = (entries(&from)?, entries(&back)?);
    let differing: Vec<_> =
        sent.keys().chain(received.keys()).filter(|name| sent.get(*name) != received.get(*name)).collect();
    ensure!(differing.is_empty(), "these entries are missing or differ: {differing:?}");
    Ok(())
}

async fn growing_file(case: Arc<Case>) -> Outcome {
    let (sandbox, path, local) = (case.shared().await?, case.path("tree"), tempfile::tempdir()?);
    let (first, last) = (pattern(3, 3_000_000), b"end");
    sandbox.write_file(&format!("{path}/a"), &first, Default::default()).await?;
    sandbox.write_file(&format!("{path}/z"), last, Default::default()).await?;
    let line = format!("while :; do echo more >>{path}/log; done");
    let mut writer = sandbox.spawn(ExecSpec::shell(format!("echo >{path}/log; echo ready; {line}"))).await?;
    super::processes::read_until(&mut super::processes::stdout(&mut writer)?, "ready\n").await?;
    sandbox.download_directory(&path, local.path(), |_| ()).await?;
    writer.kill().await?;
    same("a file before the one that grows", &std::fs::read(local.path().join("a"))?, &first)?;
    same("a file after the one that grows", &std::fs::read(local.path().join("z"))?, last)?;
    ensure!(local.path().join("log").exists(), "the file that grows is missing");
    Ok(())
}

async fn into_existing(case: Arc<Case>) -> Outcome {
    let (sandbox, path, local) = (case.shared().await?, case.path("tree"), tempfile::tempdir()?);
    sandbox.write_file(&format!("{path}/mine"), "stays", Default::default()).await?;
    sandbox.write_file(&format!("{path}/plain"), "is replaced", Default::default()).await?;
    std::fs::write(local.path().join("plain"), "new")?;
    sandbox.upload_directory(local.path(), &path, |_| ()).await?;
    for (name, content) in [("mine", "stays"), ("plain", "new")] {
        let found = sandbox.read_file(&format!("{path}/{name}"), 100).await?;
        crate::check::same(name, &found, content.as_bytes())?;
    }
    Ok(())
}

async fn read_missing(case: Arc<Case>) -> Outcome {
    let read = case.shared().await?.download_tree(&case.path("tree"), tokio::io::sink()).await;
    fault("`read-tree` of a missing directory", read, FileFault::NotFound)?;
    Ok(())
}

async fn read_file(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    sandbox.write_file(&path, "x", Default::default()).await?;
    let read = sandbox.download_tree(&path, tokio::io::sink()).await;
    fault("`read-tree` of a file", read, FileFault::NotADirectory)?;
    Ok(())
}

async fn below_a_file(case: Arc<Case>) -> Outcome {
    let (sandbox, path, local) = (case.shared().await?, case.path("file"), tempfile::tempdir()?);
    sandbox.write_file(&path, "x", Default::default()).await?;
    std::fs::write(local.path().join("plain"), "new")?;
    let written = sandbox.upload_directory(local.path(), &path, |_| ()).await;
    fault("`write-tree` to a file", written, FileFault::NotADirectory)?;
    Ok(())
}
