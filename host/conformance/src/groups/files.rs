//! Group `files`: reading, writing and describing files and directories.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use sandbox_host::types::{FileKind, WriteMode, WriteOptions};
use sandbox_host::{FileFault, Kind, Sandbox};
use tokio::io::AsyncWriteExt as _;

use crate::check::{Outcome, ensure, failed, fault, pattern, refused, same};
use crate::table::checks;
use crate::world::{Case, OTHER_USER, altered};

checks! {
    "files.write-and-read" ["files"] "write-file: `read-file` returns what was written" => write_and_read;
    "files.replace" ["files"] "write-mode: `replace` replaces the whole file" => replace;
    "files.parents" ["files"] "write-mode: missing parents are created" => parents;
    "files.create-new" ["files", "files.create-new"] "write-mode: `create-new` fails if the file exists, and does not change it" => create_new;
    "files.append" ["files", "files.append"] "write-mode: `append` adds to the file, or creates it" => append;
    "files.read-missing" ["files"] "file-fault: `not-found` for a file that does not exist" => read_missing;
    "files.read-directory" ["files", "directories"] "file-fault: `is-a-directory` if the path of a file is a directory" => read_directory;
    "files.below-a-file" ["files", "directories"] "file-fault: `not-a-directory` if a parent of the path is a file" => below_a_file;
    "files.too-large" ["files"] "read-file: the caller limits the size" => too_large;
    "files.bad-paths" ["files", "directories"] "location: `path` is absolute, without NUL, and has at most 4096 bytes" => bad_paths;
    "files.unknown-extra" ["files"] "write-options: an unknown name in `extra` is `invalid-argument`" => unknown_extra;
    "files.stat" ["files", "directories"] "file-info: name, path, type and length of a file and a directory" => stat;
    "files.stat-missing" ["files", "directories"] "stat: fails with `not-found` for a path that does not exist" => stat_missing;
    "files.modified" ["files", "directories"] "file-info: `modified` is in milliseconds since the Unix epoch" => modified;
    "files.list" ["files", "directories"] "list-directory: returns the entries, sorted by name, without those of subdirectories" => list;
    "files.list-empty" ["files", "directories"] "list-directory: an empty directory has no entries" => list_empty;
    "files.list-missing" ["files", "directories"] "list-directory: fails with `not-found`, and with `not-a-directory` for a file" => list_missing;
    "files.list-many" ["files", "directories"] "list-directory: pages together contain each entry once" => list_many;
    "files.make-directory" ["files", "directories"] "make-directory: creates a directory, and fails if it exists" => make_directory;
    "files.make-parents" ["files", "directories"] "make-directory: with `parents` creates missing parents, and succeeds if the directory exists" => make_parents;
    "files.remove" ["files", "directories"] "remove: removes a file or an empty directory" => remove;
    "files.remove-missing" ["files", "directories"] "remove: fails with `not-found` for a path that does not exist" => remove_missing;
    "files.remove-full" ["files", "directories"] "remove: fails with `not-empty` without `recursive`, and removes the tree with it" => remove_full;
    "files.rename" ["files", "directories", "files.rename"] "rename: moves a file with its content" => rename;
    "files.rename-onto" ["files", "directories", "files.rename"] "rename: fails if `to` exists and `replace` is not set, and replaces it otherwise" => rename_onto;
    "files.rename-missing" ["files", "files.rename"] "rename: fails with `not-found` for a path that does not exist" => rename_missing;
    "files.mode" ["files", "directories", "files.mode"] "set-permissions: sets the low twelve mode bits" => mode;
    "files.mode-of-write" ["files", "directories", "files.mode"] "write-options: `permissions` are those of the file, or 0644, or those of the replaced file" => mode_of_write;
    "files.mode-of-directory" ["files", "directories", "files.mode"] "set-permissions: sets the bits of a directory" => mode_of_directory;
    "files.mode-of-link" ["files", "directories", "files.mode", "files.symlinks"] "set-permissions: follows symbolic links" => mode_of_link;
    "files.mode-missing" ["files", "files.mode"] "set-permissions: fails with `not-found`, and with `not-a-directory` below a file" => mode_missing;
    "files.mode-too-large" ["files", "files.mode"] "set-permissions: more than twelve bits are `invalid-argument`" => mode_too_large;
    "files.symlinks" ["files", "directories", "files.symlinks"] "make-symlink: creates a link that `stat` shows with its target" => symlinks;
    "files.symlink-where-something-is" ["files", "directories", "files.symlinks"] "make-symlink: fails if the path exists, also as a link to nothing" => symlink_exists;
    "files.symlink-without-parent" ["files", "files.symlinks"] "make-symlink: fails with `not-found`, and with `not-a-directory` below a file" => symlink_orphan;
    "files.follow" ["files", "directories", "files.symlinks"] "read-file: follows symbolic links, and so does `write-file`" => follow;
    "files.dangling" ["files", "directories", "files.symlinks"] "stat: with `follow` fails with `not-found` if the target does not exist" => dangling;
    "files.remove-link" ["files", "directories", "files.symlinks"] "remove: removes a symbolic link, not its target" => remove_link;
    "files.atomic" ["files", "files.atomic"] "write-mode: a reader of a replaced file sees either the old or the new content" => atomic;
    "files.aborted-write" ["files"] "write-file: the file changes only by the call with `eof`" => aborted_write;
    "files.of-a-command" ["files", "exec", "program:cat"] "write-file: a command of the sandbox sees the file" => of_a_command;
    "files.by-a-command" ["files", "exec", "program:sh"] "read-file: reads what a command has written" => by_a_command;
    "files.ended-sandbox" ["files"] "read-file: fails with `sandbox-ended` if the sandbox has ended" => ended_sandbox;
    "files.unknown-sandbox" ["files"] "read-file: fails with `not-found` if the provider does not know the sandbox" => unknown_sandbox;
    "files.another-instance" ["files"] "write-file: another instance reads what was written" => another_instance;
    "files.user" ["files", "files.user", "exec", "program:sh", "program:id", "program:mkdir", "program:chmod"] "location: the operation is done by the rights of `user`" => user;
    "files.watch" ["files", "files.watch"] "watch: returns events below the path" => watch;
}

/// Most bytes that the checks read of a file.
const MAX: u64 = 16 << 20;

fn options(mode: WriteMode) -> WriteOptions {
    WriteOptions { mode, ..WriteOptions::default() }
}

/// Writes a file with default options.
async fn put(sandbox: &Sandbox, path: &str, data: impl AsRef<[u8]>) -> Outcome {
    Ok(sandbox.write_file(path, data, WriteOptions::default()).await?)
}

/// Checks the content of a file.
async fn holds(sandbox: &Sandbox, path: &str, expected: impl AsRef<[u8]>) -> Outcome {
    same(&format!("the file {path:?}"), &sandbox.read_file(path, MAX).await?, expected.as_ref())
}

async fn write_and_read(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "content").await?;
    holds(&sandbox, &path, "content").await
}

async fn replace(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    for content in ["a long content", "short", "", "another one"] {
        put(&sandbox, &path, content).await?;
        holds(&sandbox, &path, content).await?;
    }
    Ok(())
}

async fn parents(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("made/on/the/way"));
    put(&sandbox, &path, "deep").await?;
    holds(&sandbox, &path, "deep").await
}

async fn create_new(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    sandbox.write_file(&path, "first", options(WriteMode::CreateNew)).await?;
    let again = sandbox.write_file(&path, "second", options(WriteMode::CreateNew)).await;
    fault("`create-new` of a file that exists", again, FileFault::AlreadyExists)?;
    holds(&sandbox, &path, "first").await
}

async fn append(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    for (piece, content) in [("one ", "one "), ("", "one "), ("two", "one two")] {
        sandbox.write_file(&path, piece, options(WriteMode::Append)).await?;
        holds(&sandbox, &path, content).await?;
    }
    Ok(())
}

async fn read_missing(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    fault("a file that does not exist", sandbox.read_file(&case.path("file"), MAX).await, FileFault::NotFound)?;
    Ok(())
}

async fn read_directory(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("folder"));
    sandbox.make_directory(&path, true).await?;
    fault("`read-file` of a directory", sandbox.read_file(&path, MAX).await, FileFault::IsADirectory)?;
    let written = sandbox.write_file(&path, "x", WriteOptions::default()).await;
    fault("`write-file` to a directory", written, FileFault::IsADirectory)?;
    Ok(())
}

async fn below_a_file(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "x").await?;
    let below = format!("{path}/below");
    fault("`read-file` below a file", sandbox.read_file(&below, MAX).await, FileFault::NotADirectory)?;
    let written = sandbox.write_file(&below, "x", WriteOptions::default()).await;
    fault("`write-file` below a file", written, FileFault::NotADirectory)?;
    holds(&sandbox, &path, "x").await
}

async fn too_large(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "12345").await?;
    same("a file that is as large as the limit", &sandbox.read_file(&path, 5).await?, b"12345")?;
    fault("a file that is larger than the limit", sandbox.read_file(&path, 4).await, FileFault::TooLarge)?;
    Ok(())
}

async fn bad_paths(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    for (path, what) in [
        ("relative", "a relative path"),
        ("", "an empty path"),
        ("/a\0b", "a path with NUL"),
        (&"/x".repeat(3000), "a path of 6000 bytes"),
    ] {
        let kind = &Kind::InvalidArgument;
        refused(&format!("`read-file` of {what}"), sandbox.read_file(path, MAX).await, kind)?;
        let written = sandbox.write_file(path, "x", WriteOptions::default()).await;
        refused(&format!("`write-file` to {what}"), written, kind)?;
        refused(&format!("`stat` of {what}"), sandbox.stat(path, true).await, kind)?;
        refused(&format!("`remove` of {what}"), sandbox.remove(path, false).await, kind)?;
    }
    Ok(())
}

async fn unknown_extra(case: Arc<Case>) -> Outcome {
    let extra = vec![("conformance-unknown".to_owned(), "1".to_owned())];
    let options = WriteOptions { extra, ..WriteOptions::default() };
    let written = case.shared().await?.write_file(&case.path("file"), "x", options).await;
    refused("`write-file` with an unknown name in `extra`", written, &Kind::InvalidArgument)?;
    Ok(())
}

async fn stat(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "12345").await?;
    for follow in [true, false] {
        let info = sandbox.stat(&path, follow).await?;
        ensure!((info.name.as_str(), info.path.as_str()) == ("file", path.as_str()), "the file {path:?} is {info:?}");
        ensure!(matches!(info.kind, FileKind::File) && info.size == 5, "a file of 5 bytes is {info:?}");
    }
    let folder = path.trim_end_matches("/file");
    let info = sandbox.stat(folder, true).await?;
    ensure!(matches!(info.kind, FileKind::Directory), "the directory {folder:?} is {info:?}");
    Ok(())
}

async fn stat_missing(case: Arc<Case>) -> Outcome {
    for follow in [true, false] {
        let found = case.shared().await?.stat(&case.path("file"), follow).await;
        fault("`stat` of a missing file", found, FileFault::NotFound)?;
    }
    Ok(())
}

async fn modified(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "x").await?;
    let modified = sandbox.stat(&path, true).await?.modified;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_millis());
    let apart = now.abs_diff(u128::from(modified));
    ensure!(apart < 24 * 3600 * 1000, "`modified` of a new file is {modified}, and it is {now}");
    Ok(())
}

/// Returns the names in a directory.
async fn names(sandbox: &Sandbox, path: &str) -> Outcome<Vec<String>> {
    Ok(sandbox.list_directory(path).await?.into_iter().map(|entry| entry.name).collect())
}

async fn list(case: Arc<Case>) -> Outcome {
    let (sandbox, folder) = (case.shared().await?, case.path("folder"));
    for name in ["b", "a", "-c", "B", "sub/below", "ü", "two words"] {
        put(&sandbox, &format!("{folder}/{name}"), name).await?;
    }
    let found = names(&sandbox, &folder).await?;
    let mut expected = ["-c", "B", "a", "b", "sub", "two words", "ü"].map(str::to_owned);
    expected.sort();
    ensure!(found == expected, "the directory has the entries {found:?} instead of {expected:?}");
    let entries = sandbox.list_directory(&folder).await?;
    let of = |name: &str| entries.iter().find(|entry| entry.name == name).map(|entry| (entry.kind.clone(), entry.size));
    ensure!(matches!(of("two words"), Some((FileKind::File, 9))), "a file of 9 bytes is {:?}", of("two words"));
    ensure!(matches!(of("sub"), Some((FileKind::Directory, _))), "a directory is {:?}", of("sub"));
    Ok(())
}

async fn list_empty(case: Arc<Case>) -> Outcome {
    let (sandbox, folder) = (case.shared().await?, case.path("folder"));
    sandbox.make_directory(&folder, true).await?;
    let found = names(&sandbox, &folder).await?;
    ensure!(found.is_empty(), "an empty directory has the entries {found:?}");
    Ok(())
}

async fn list_missing(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    fault("a directory that does not exist", sandbox.list_directory(&path).await, FileFault::NotFound)?;
    put(&sandbox, &path, "x").await?;
    fault("`list-directory` of a file", sandbox.list_directory(&path).await, FileFault::NotADirectory)?;
    Ok(())
}

async fn list_many(case: Arc<Case>) -> Outcome {
    const FILES: usize = 120;
    let (sandbox, folder) = (case.shared().await?, case.path("folder"));
    let mut expected: Vec<_> = (0..FILES).map(|number| format!("{number}-{}", "n".repeat(100))).collect();
    // One write may take most of a second, so several run at a time.
    let writes: Vec<_> = expected
        .iter()
        .map(|name| {
            let (sandbox, path) = (sandbox.clone(), format!("{folder}/{name}"));
            async move { put(&sandbox, &path, "").await }
        })
        .collect();
    futures_util::stream::iter(writes).buffer_unordered(8).try_collect::<Vec<_>>().await?;
    expected.sort();
    let (mut pages, mut found) = (sandbox.directory_pages(&folder), Vec::new());
    while let Some(page) = pages.next().await? {
        found.extend(page.into_iter().map(|entry| entry.name));
    }
    ensure!(found == expected, "{} entries instead of {FILES}, or in another order", found.len());
    Ok(())
}

async fn make_directory(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "x").await?;
    let folder = path.replace("/file", "/new");
    sandbox.make_directory(&folder, false).await?;
    ensure!(matches!(sandbox.stat(&folder, false).await?.kind, FileKind::Directory), "it is no directory");
    fault("a directory that exists", sandbox.make_directory(&folder, false).await, FileFault::AlreadyExists)?;
    fault("a file that exists", sandbox.make_directory(&path, false).await, FileFault::AlreadyExists)?;
    let orphan = sandbox.make_directory(&format!("{folder}/no/such"), false).await;
    fault("a directory without a parent", orphan, FileFault::NotFound)?;
    let below = sandbox.make_directory(&format!("{path}/below"), false).await;
    fault("a directory below a file", below, FileFault::NotADirectory)?;
    Ok(())
}

async fn make_parents(case: Arc<Case>) -> Outcome {
    let (sandbox, folder) = (case.shared().await?, case.path("a/b/c"));
    for _ in 0..2 {
        sandbox.make_directory(&folder, true).await?;
        ensure!(matches!(sandbox.stat(&folder, false).await?.kind, FileKind::Directory), "it is no directory");
    }
    let path = format!("{folder}/file");
    put(&sandbox, &path, "x").await?;
    fault("a file that exists", sandbox.make_directory(&path, true).await, FileFault::AlreadyExists)?;
    let below = sandbox.make_directory(&format!("{path}/below"), true).await;
    fault("a directory below a file, with `parents`", below, FileFault::NotADirectory)?;
    holds(&sandbox, &path, "x").await
}

async fn remove(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let folder = path.replace("/file", "/empty");
    put(&sandbox, &path, "x").await?;
    sandbox.make_directory(&folder, false).await?;
    for path in [&path, &folder] {
        sandbox.remove(path, false).await?;
        fault("`stat` of what was removed", sandbox.stat(path, false).await, FileFault::NotFound)?;
    }
    Ok(())
}

async fn remove_missing(case: Arc<Case>) -> Outcome {
    for recursive in [false, true] {
        let removed = case.shared().await?.remove(&case.path("file"), recursive).await;
        fault("`remove` of a missing file", removed, FileFault::NotFound)?;
    }
    Ok(())
}

async fn remove_full(case: Arc<Case>) -> Outcome {
    let (sandbox, folder) = (case.shared().await?, case.path("folder"));
    let path = format!("{folder}/sub/file");
    put(&sandbox, &path, "x").await?;
    fault("`remove` of a directory with entries", sandbox.remove(&folder, false).await, FileFault::NotEmpty)?;
    holds(&sandbox, &path, "x").await?;
    sandbox.remove(&folder, true).await?;
    for path in [&path, &folder] {
        fault("`stat` of what was removed", sandbox.stat(path, false).await, FileFault::NotFound)?;
    }
    Ok(())
}

async fn rename(case: Arc<Case>) -> Outcome {
    let (sandbox, from) = (case.shared().await?, case.path("file"));
    let to = from.replace("/file", "/-new name\n");
    put(&sandbox, &from, "content").await?;
    sandbox.rename(&from, &to, false).await?;
    holds(&sandbox, &to, "content").await?;
    fault("`stat` of the old path", sandbox.stat(&from, false).await, FileFault::NotFound)?;
    Ok(())
}

async fn rename_onto(case: Arc<Case>) -> Outcome {
    let (sandbox, from) = (case.shared().await?, case.path("file"));
    let to = from.replace("/file", "/other");
    put(&sandbox, &from, "new").await?;
    put(&sandbox, &to, "old").await?;
    let refused = sandbox.rename(&from, &to, false).await;
    fault("`rename` onto a file without `replace`", refused, FileFault::AlreadyExists)?;
    holds(&sandbox, &to, "old").await?;
    holds(&sandbox, &from, "new").await?;
    sandbox.rename(&from, &to, true).await?;
    holds(&sandbox, &to, "new").await?;
    fault("`stat` of the old path", sandbox.stat(&from, false).await, FileFault::NotFound)?;
    Ok(())
}

async fn rename_missing(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let moved = sandbox.rename(&path, &format!("{path}-new"), true).await;
    fault("`rename` of a missing file", moved, FileFault::NotFound)?;
    Ok(())
}

async fn mode(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "x").await?;
    for mode in [0o644, 0o600, 0o4755, 0o000, 0o7777] {
        sandbox.set_permissions(&path, mode).await?;
        let found = sandbox.stat(&path, false).await?.mode;
        ensure!(found == mode, "the mode is {found:04o} instead of {mode:04o}");
    }
    Ok(())
}

async fn mode_of_directory(case: Arc<Case>) -> Outcome {
    let (sandbox, folder) = (case.shared().await?, case.path("folder"));
    sandbox.make_directory(&folder, true).await?;
    for mode in [0o2775, 0o1777, 0o755] {
        sandbox.set_permissions(&folder, mode).await?;
        let found = sandbox.stat(&folder, false).await?.mode;
        ensure!(found == mode, "the mode of a directory is {found:04o} instead of {mode:04o}");
    }
    Ok(())
}

async fn mode_of_link(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let link = format!("{path}-link");
    put(&sandbox, &path, "x").await?;
    sandbox.make_symlink(&link, "file").await?;
    sandbox.set_permissions(&link, 0o600).await?;
    let found = sandbox.stat(&path, false).await?.mode;
    ensure!(found == 0o600, "the mode of the target is {found:04o} after that of a link was set to 0600");
    Ok(())
}

async fn mode_missing(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    fault("the mode of a missing file", sandbox.set_permissions(&path, 0o600).await, FileFault::NotFound)?;
    put(&sandbox, &path, "x").await?;
    let below = sandbox.set_permissions(&format!("{path}/below"), 0o600).await;
    fault("the mode of a path below a file", below, FileFault::NotADirectory)?;
    Ok(())
}

async fn mode_of_write(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let mode = async |expected: u32, what: &str| {
        let found = sandbox.stat(&path, false).await?.mode;
        ensure!(found == expected, "{what} has the mode {found:04o} instead of {expected:04o}");
        Ok(())
    };
    put(&sandbox, &path, "x").await?;
    mode(0o644, "a new file").await?;
    sandbox.write_file(&path, "y", WriteOptions::default().permissions(0o750)).await?;
    mode(0o750, "a file written with 0750").await?;
    put(&sandbox, &path, "z").await?;
    mode(0o750, "a file that was replaced without a mode").await
}

async fn mode_too_large(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "x").await?;
    refused("the mode 010000", sandbox.set_permissions(&path, 0o10000).await, &Kind::InvalidArgument)?;
    let written = sandbox.write_file(&path, "y", WriteOptions::default().permissions(0o10000)).await;
    refused("a write with the mode 010000", written, &Kind::InvalidArgument)?;
    Ok(())
}

async fn symlinks(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "x").await?;
    for (number, target) in ["file", "../no/such", "/absolute", "-odd \n'x'"].into_iter().enumerate() {
        let link = format!("{path}-{number}");
        sandbox.make_symlink(&link, target).await?;
        let kind = sandbox.stat(&link, false).await?.kind;
        ensure!(matches!(&kind, FileKind::Symlink(found) if found == target), "a link to {target:?} is {kind:?}");
    }
    Ok(())
}

async fn symlink_exists(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "x").await?;
    let (link, dangling) = (format!("{path}-link"), format!("{path}-dangling"));
    sandbox.make_symlink(&link, "file").await?;
    sandbox.make_symlink(&dangling, "no-such").await?;
    for path in [path.as_str(), path.trim_end_matches("/file"), &link, &dangling] {
        let made = sandbox.make_symlink(path, "x").await;
        fault("a link at a path that exists", made, FileFault::AlreadyExists)?;
    }
    holds(&sandbox, &path, "x").await
}

async fn symlink_orphan(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let made = sandbox.make_symlink(&format!("{path}/no/such"), "x").await;
    fault("a link without a parent", made, FileFault::NotFound)?;
    put(&sandbox, &path, "x").await?;
    let made = sandbox.make_symlink(&format!("{path}/below"), "x").await;
    fault("a link below a file", made, FileFault::NotADirectory)?;
    Ok(())
}

async fn follow(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let link = format!("{path}-link");
    put(&sandbox, &path, "first").await?;
    sandbox.make_symlink(&link, "file").await?;
    holds(&sandbox, &link, "first").await?;
    put(&sandbox, &link, "second").await?;
    holds(&sandbox, &path, "second").await?;
    ensure!(matches!(sandbox.stat(&link, false).await?.kind, FileKind::Symlink(_)), "the link was replaced");
    ensure!(matches!(sandbox.stat(&link, true).await?.kind, FileKind::File), "`stat` did not follow the link");
    Ok(())
}

async fn dangling(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "x").await?;
    let link = format!("{path}-link");
    sandbox.make_symlink(&link, "no-such").await?;
    fault("`stat` of a link to nothing", sandbox.stat(&link, true).await, FileFault::NotFound)?;
    fault("`read-file` of a link to nothing", sandbox.read_file(&link, MAX).await, FileFault::NotFound)?;
    sandbox.stat(&link, false).await?;
    Ok(())
}

async fn remove_link(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("folder/file"));
    put(&sandbox, &path, "x").await?;
    let folder = path.trim_end_matches("/file");
    let link = format!("{folder}-link");
    sandbox.make_symlink(&link, "folder").await?;
    sandbox.remove(&link, true).await?;
    fault("`stat` of a link that was removed", sandbox.stat(&link, false).await, FileFault::NotFound)?;
    holds(&sandbox, &path, "x").await
}

async fn atomic(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let contents = [pattern(1, 300_000), pattern(2, 200_000)];
    put(&sandbox, &path, &contents[0]).await?;
    let writer = tokio::spawn({
        let (sandbox, path, contents) = (sandbox.clone(), path.clone(), contents.clone());
        async move {
            for round in 0..10 {
                put(&sandbox, &path, &contents[round % 2]).await?;
            }
            Outcome::Ok(())
        }
    });
    while !writer.is_finished() {
        let seen = sandbox.read_file(&path, MAX).await?;
        ensure!(
            contents.contains(&seen),
            "a reader saw {} bytes that are neither the old nor the new content",
            seen.len()
        );
    }
    writer.await.unwrap_or_else(|_| failed("the writer ended with a panic"))
}

async fn aborted_write(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "old").await?;
    let (mut writer, reader) = tokio::io::duplex(64 << 10);
    let upload = tokio::spawn({
        let (sandbox, path) = (sandbox.clone(), path.clone());
        async move { sandbox.upload(&path, reader, WriteOptions::default()).await }
    });
    // More than one piece, so that some data has been sent.
    let sent = tokio::time::timeout(Duration::from_secs(60), writer.write_all(&vec![b'n'; 5 << 20])).await;
    ensure!(sent.is_ok(), "5 MiB were not accepted within 60 s");
    holds(&sandbox, &path, "old").await?;
    upload.abort();
    let _ = upload.await;
    holds(&sandbox, &path, "old").await
}

async fn of_a_command(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "content\n").await?;
    let result = sandbox.run(sandbox_host::types::ExecSpec::new(["cat", &path])).await?;
    crate::check::printed("`cat` of a file that was written", &result, "content\n")
}

async fn by_a_command(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.file().await?);
    case.sh(&sandbox, &format!("printf content >{path}")).await?;
    holds(&sandbox, &path, "content").await
}

async fn ended_sandbox(case: Arc<Case>) -> Outcome {
    let ended = case.ended().await?;
    let kind = &Kind::SandboxEnded;
    refused("`read-file` in an ended sandbox", ended.read_file("/tmp/x", MAX).await, kind)?;
    let written = ended.write_file("/tmp/x", "x", WriteOptions::default()).await;
    refused("`write-file` in an ended sandbox", written, kind)?;
    Ok(())
}

async fn unknown_sandbox(case: Arc<Case>) -> Outcome {
    let unknown = case.provider.sandbox(altered(case.shared().await?.id()));
    refused("`read-file` in an unknown sandbox", unknown.read_file("/tmp/x", MAX).await, &Kind::NotFound)?;
    if case.declares("directories") {
        refused("`stat` in an unknown sandbox", unknown.stat("/tmp", true).await, &Kind::NotFound)?;
    }
    Ok(())
}

async fn another_instance(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "content").await?;
    let other = case.other().await?.sandbox(sandbox.id());
    holds(&other, &path, "content").await?;
    put(&other, &path, "of the other").await?;
    holds(&sandbox, &path, "of the other").await
}

async fn watch(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("folder/first"));
    put(&sandbox, &path, "x").await?;
    let (folder, id) = (path.trim_end_matches("/first"), sandbox_host::fresh_id());
    let (mut position, mut number) = (0, 0);
    let begun = std::time::Instant::now();
    // What happens before the watch has begun need not be reported, so files are made until one is.
    while begun.elapsed() < Duration::from_secs(60) {
        let page = sandbox.watch(folder, &id, true, position, Duration::from_millis(500)).await?;
        position = page.next;
        if let Some(event) = page.events.iter().find(|event| event.paths.iter().any(|path| path.contains("/made-"))) {
            let inside = event.paths.iter().all(|path| path.starts_with(folder));
            ensure!(inside, "an event below {folder:?} has the paths {:?}", event.paths);
            return Ok(());
        }
        number += 1;
        put(&sandbox, &format!("{folder}/made-{number}"), "x").await?;
    }
    failed(format!("no event after {number} files were made"))
}

async fn user(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let folder = path.trim_end_matches("/file");
    case.sh(&sandbox, &format!("mkdir -p {folder} && chmod 700 {folder} && printf secret >{path}")).await?;
    case.other_user().await?;
    let other = sandbox.as_user(OTHER_USER);
    let denied = FileFault::PermissionDenied;
    fault("a file of another user", other.read_file(&path, MAX).await, denied.clone())?;
    let written = other.write_file(&path, "x", WriteOptions::default()).await;
    fault("a write to a file of another user", written, denied)?;
    holds(&sandbox, &path, "secret").await
}
