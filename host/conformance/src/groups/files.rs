//! Group `files`: reading, writing and describing files and directories.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _};
use sandbox_host::types::{FileEventKind, FileKind, SandboxSpec, WriteMode, WriteOptions};
use sandbox_host::{Error, FileFault, Kind, Provider, Sandbox, Signal, fresh_id};
use tokio::io::AsyncWriteExt as _;

use crate::check::{Outcome, Stop, ensure, failed, fault, pattern, refused, same, told};
use crate::table::checks;
use crate::world::{Case, OTHER_USER, altered};

checks! {
    "files.write-and-read" ["files"] "write-file: `read-file` returns what was written" => write_and_read;
    "files.replace" ["files"] "write-mode: `replace` replaces the whole file" => replace;
    "files.parents" ["files"] "write-mode: missing parents are created" => parents;
    "files.create-new" ["files", "files.create-new"] "write-mode: `create-new` fails if the file exists, and does not change it" => create_new;
    "files.create-new-where-something-is" ["files", "directories", "files.create-new", "files.symlinks"] "write-mode: `create-new` fails if the path exists, also as a directory or a link to nothing" => create_new_exists;
    "files.append" ["files", "files.append"] "write-mode: `append` adds to the file, or creates it" => append;
    "files.append-follows" ["files", "directories", "files.append", "files.symlinks"] "write-mode: `append` to a symbolic link adds to its target" => append_follows;
    "files.read-missing" ["files"] "file-fault: `not-found` for a file that does not exist" => read_missing;
    "files.read-directory" ["files", "directories"] "file-fault: `is-a-directory` if the path of a file is a directory" => read_directory;
    "files.below-a-file" ["files", "directories"] "file-fault: `not-a-directory` if a parent of the path is a file" => below_a_file;
    "files.too-large" ["files"] "read-file: the caller limits the size" => too_large;
    "files.bad-paths" ["files", "directories"] "location: `path` is absolute, without NUL, and has at most 4096 bytes" => bad_paths;
    "files.unknown-extra" ["files"] "write-options: an unknown name in `extra` is `invalid-argument`" => unknown_extra;
    "files.stat" ["files", "directories"] "file-info: name, path, type and length of a file and a directory" => stat;
    "files.stat-attributes" ["files", "directories", "exec", "program:sh", "program:chmod", "program:chown", "program:touch"] "file-info: mode bits, owner, group and time of the last change" => stat_attributes;
    "files.stat-through-links" ["files", "directories", "files.symlinks"] "stat: with `follow` describes the target, also through several links, by the given path" => stat_through;
    "files.stat-missing" ["files", "directories"] "stat: fails with `not-found` for a path that does not exist" => stat_missing;
    "files.modified" ["files", "directories"] "file-info: `modified` is in milliseconds since the Unix epoch" => modified;
    "files.list" ["files", "directories"] "list-directory: returns the entries, sorted by name, without those of subdirectories" => list;
    "files.list-of-link" ["files", "directories", "files.symlinks"] "list-directory: follows a link to a directory; entries that are links are not followed" => list_of_link;
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
    "files.rename-directories" ["files", "directories", "files.rename", "files.symlinks"] "rename: moves and replaces directories and symbolic links, which are not followed" => rename_directories;
    "files.rename-refused" ["files", "directories", "files.rename"] "rename: with `replace` fails if the two are of different types, or the directory has entries, and changes nothing" => rename_refused;
    "files.rename-same" ["files", "directories", "files.rename", "exec", "program:sh", "program:ln"] "rename: onto itself or another name of the same file changes nothing" => rename_same;
    "files.rename-missing" ["files", "files.rename"] "rename: fails with `not-found`, and with `not-a-directory` below a file" => rename_missing;
    "files.mode" ["files", "directories", "files.mode"] "set-permissions: sets the low twelve mode bits" => mode;
    "files.mode-of-write" ["files", "directories", "files.mode"] "write-options: `permissions` are those of the file, or 0644, or those of the replaced file" => mode_of_write;
    "files.mode-of-append" ["files", "directories", "files.mode", "files.append"] "write-options: `permissions` of `append`: those of a new file, or a change of the old ones" => mode_of_append;
    "files.mode-of-create-new" ["files", "directories", "files.mode", "files.create-new"] "write-options: `permissions` of `create-new`" => mode_of_create_new;
    "files.mode-of-directory" ["files", "directories", "files.mode"] "set-permissions: sets the bits of a directory" => mode_of_directory;
    "files.mode-of-link" ["files", "directories", "files.mode", "files.symlinks"] "set-permissions: follows symbolic links" => mode_of_link;
    "files.mode-missing" ["files", "files.mode"] "set-permissions: fails with `not-found`, and with `not-a-directory` below a file" => mode_missing;
    "files.mode-too-large" ["files", "files.mode"] "set-permissions: more than twelve bits are `invalid-argument`" => mode_too_large;
    "files.symlinks" ["files", "directories", "files.symlinks"] "make-symlink: creates a link that `stat` shows with its target" => symlinks;
    "files.symlink-where-something-is" ["files", "directories", "files.symlinks"] "make-symlink: fails if the path exists, also as a link to nothing" => symlink_exists;
    "files.symlink-without-parent" ["files", "files.symlinks"] "make-symlink: fails with `not-found`, and with `not-a-directory` below a file" => symlink_orphan;
    "files.follow" ["files", "directories", "files.symlinks"] "read-file: follows symbolic links, and so does `write-file`" => follow;
    "files.dangling" ["files", "directories", "files.symlinks"] "stat: with `follow` fails with `not-found` if the target does not exist" => dangling;
    "files.link-loop" ["files", "directories", "files.symlinks"] "file-fault: another cause if links lead in a circle" => link_loop;
    "files.remove-link" ["files", "directories", "files.symlinks"] "remove: removes a symbolic link, not its target" => remove_link;
    "files.atomic" ["files", "files.atomic"] "write-mode: a reader of a replaced file sees either the old or the new content" => atomic;
    "files.aborted-write" ["files"] "write-file: the file changes only by the call with `eof`" => aborted_write;
    "files.nothing-left" ["files", "directories"] "write-file: no other files are left, also by an aborted write" => nothing_left;
    "files.device" ["files", "exec", "program:sh"] "write-file: a device is written to, and stays a device" => device;
    "files.pipe" ["files", "directories", "exec", "program:sh", "program:mkfifo"] "read-file: returns at once for a pipe without a writer; a write fails with another cause" => pipe;
    "files.socket" ["files", "directories", "exec", "program:python3"] "file-fault: another cause for a socket, at once" => socket;
    "files.no-space" ["files", "exec", "program:sh"] "file-fault: `no-space` if the device is full" => no_space;
    "files.permission-denied" ["files", "images", "image.commands", "exec", "program:sh", "program:id", "program:mkdir", "program:chmod"] "file-fault: `permission-denied` if the user of the sandbox may not do it" => denied;
    "files.of-a-command" ["files", "exec", "program:cat"] "write-file: a command of the sandbox sees the file" => of_a_command;
    "files.by-a-command" ["files", "exec", "program:sh"] "read-file: reads what a command has written" => by_a_command;
    "files.ended-sandbox" ["files"] "read-file: fails with `sandbox-ended` if the sandbox has ended" => ended_sandbox;
    "files.unknown-sandbox" ["files"] "read-file: fails with `not-found` if the provider does not know the sandbox" => unknown_sandbox;
    "files.another-instance" ["files"] "write-file: another instance reads what was written" => another_instance;
    "files.user" ["files", "files.user", "exec", "program:sh", "program:id", "program:mkdir", "program:chmod"] "location: the operation is done by the rights of `user`" => user;
    "files.watch" ["files", "files.watch"] "watch: returns events below the path" => watch;
    "files.watch-kinds" ["files", "directories", "files.watch"] "file-event: files that are created, changed and removed, also for another instance" => watch_kinds;
    "files.watch-ends" ["files", "files.watch", "exec.signal"] "watch: ends by `signal` with its id" => watch_ends;
    "files.watch-missing" ["files", "files.watch"] "watch: fails with `not-found` for a path that does not exist" => watch_missing;
    "files.watch-id" ["files", "files.watch"] "exec-id: the id of a watch has 1 to 64 characters of `[A-Za-z0-9_-]`, and is not `main`" => watch_id;
}

/// Most bytes that the checks read of a file.
const MAX: u64 = 16 << 20;

fn options(mode: WriteMode) -> WriteOptions {
    WriteOptions { mode, ..WriteOptions::default() }
}

/// Returns the ways to write a file that the provider has: each mode, without and with permissions.
fn writes(case: &Case) -> Vec<WriteOptions> {
    let optional = [("files.append", WriteMode::Append), ("files.create-new", WriteMode::CreateNew)];
    let declared = optional.into_iter().filter(|(name, _)| case.declares(name)).map(|(_, mode)| mode);
    let plain: Vec<_> = std::iter::once(WriteMode::Replace).chain(declared).map(options).collect();
    let restricted = plain.iter().filter(|_| case.declares("files.mode")).map(|plain| plain.clone().permissions(0o600));
    plain.iter().cloned().chain(restricted).collect()
}

/// The same without `create-new`, for files that exist.
fn rewrites(case: &Case) -> Vec<WriteOptions> {
    writes(case).into_iter().filter(|options| options.mode != WriteMode::CreateNew).collect()
}

/// Describes a way to write.
fn way(options: &WriteOptions) -> String {
    let permissions = options.permissions.map(|bits| format!(" with {bits:04o}")).unwrap_or_default();
    format!("{:?}{permissions}", options.mode)
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
    let sandbox = case.shared().await?;
    for options in writes(&case) {
        let path = case.path("made/on/the/way");
        sandbox.write_file(&path, "deep", options).await?;
        holds(&sandbox, &path, "deep").await?;
    }
    Ok(())
}

async fn create_new(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    sandbox.write_file(&path, "first", options(WriteMode::CreateNew)).await?;
    let again = sandbox.write_file(&path, "second", options(WriteMode::CreateNew)).await;
    fault("`create-new` of a file that exists", again, FileFault::AlreadyExists)?;
    holds(&sandbox, &path, "first").await
}

async fn create_new_exists(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("folder/file"));
    put(&sandbox, &path, "x").await?;
    let (folder, link) = (path.trim_end_matches("/file"), format!("{path}-link"));
    sandbox.make_symlink(&link, "no-such").await?;
    for (path, what) in [(folder, "a directory"), (&link, "a link to nothing")] {
        let written = sandbox.write_file(path, "new", options(WriteMode::CreateNew)).await;
        fault(&format!("`create-new` of {what}"), written, FileFault::AlreadyExists)?;
    }
    ensure!(matches!(sandbox.stat(&link, false).await?.kind, FileKind::Symlink(_)), "the link was replaced");
    let target = sandbox.stat(&format!("{folder}/no-such"), false).await;
    fault("the target of the link", target, FileFault::NotFound)?;
    Ok(())
}

async fn append_follows(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let link = format!("{path}-link");
    put(&sandbox, &path, "1").await?;
    sandbox.make_symlink(&link, "file").await?;
    sandbox.write_file(&link, "2", options(WriteMode::Append)).await?;
    holds(&sandbox, &path, "12").await?;
    if case.declares("files.mode") {
        sandbox.write_file(&link, "3", options(WriteMode::Append).permissions(0o640)).await?;
        holds(&sandbox, &path, "123").await?;
        let found = sandbox.stat(&path, false).await?.mode;
        ensure!(found == 0o640, "the mode of the target is {found:04o} instead of 0640");
    }
    ensure!(matches!(sandbox.stat(&link, false).await?.kind, FileKind::Symlink(_)), "the link was replaced");
    Ok(())
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
    for options in rewrites(&case) {
        let way = way(&options);
        let written = sandbox.write_file(&path, "x", options).await;
        fault(&format!("`write-file` to a directory, {way}"), written, FileFault::IsADirectory)?;
    }
    Ok(())
}

async fn below_a_file(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    put(&sandbox, &path, "x").await?;
    let below = format!("{path}/below");
    fault("`read-file` below a file", sandbox.read_file(&below, MAX).await, FileFault::NotADirectory)?;
    for options in writes(&case) {
        let way = way(&options);
        let written = sandbox.write_file(&below, "x", options).await;
        fault(&format!("`write-file` below a file, {way}"), written, FileFault::NotADirectory)?;
    }
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
        if case.declares("files.rename") {
            let moved = sandbox.rename("/tmp/conformance-none", path, true).await;
            refused(&format!("`rename` to {what}"), moved, kind)?;
        }
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
    let info = sandbox.stat("/", false).await?;
    ensure!(matches!(info.kind, FileKind::Directory), "the root directory is {info:?}");
    Ok(())
}

async fn stat_attributes(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let number = case.other_user().await?;
    put(&sandbox, &path, "12345").await?;
    // In this order, because a change of the owner may clear the upper mode bits.
    let line = format!("chown {OTHER_USER} {path} && chmod 2640 {path} && touch -d @1000000000 {path}");
    case.sh(&sandbox, &line).await?;
    let group = case.sh(&sandbox, &format!("ls -ld {path} | {{ read -r _ _ _ group _; echo $group; }}")).await?;
    for follow in [false, true] {
        let info = sandbox.stat(&path, follow).await?;
        ensure!(info.mode == 0o2640, "the mode is {:04o} instead of 2640", info.mode);
        ensure!([OTHER_USER, &number].contains(&info.owner.as_str()), "the owner is {:?}", info.owner);
        let right = info.group == group || info.group.parse::<u32>().is_ok();
        ensure!(right, "the group is {:?} instead of {group:?}", info.group);
        let modified = info.modified;
        ensure!(modified == 1_000_000_000_000, "`modified` is {modified} instead of 1000000000000");
    }
    Ok(())
}

async fn stat_through(case: Arc<Case>) -> Outcome {
    let (sandbox, file) = (case.shared().await?, case.path("d/f"));
    let root = file.trim_end_matches("/d/f");
    put(&sandbox, &file, "12345").await?;
    let links = [("l", "d".to_owned()), ("d/m", "../l/f".to_owned()), ("n", format!("{root}/d/m"))];
    for (name, target) in &links {
        let link = format!("{root}/{name}");
        sandbox.make_symlink(&link, target).await?;
        let kind = sandbox.stat(&link, false).await?.kind;
        ensure!(matches!(&kind, FileKind::Symlink(found) if found == target), "a link to {target:?} is {kind:?}");
    }
    for name in ["d/m", "n", "l/m", "l/f", "l/../n"] {
        let path = format!("{root}/{name}");
        let info = sandbox.stat(&path, true).await?;
        ensure!(matches!(info.kind, FileKind::File) && info.size == 5, "the file behind {name} is {info:?}");
        ensure!(info.path == path, "`stat` of {path:?} returned the path {:?}", info.path);
        holds(&sandbox, &path, "12345").await?;
    }
    let info = sandbox.stat(&format!("{root}/l"), true).await?;
    ensure!(matches!(info.kind, FileKind::Directory), "the directory behind a link is {info:?}");
    Ok(())
}

async fn stat_missing(case: Arc<Case>) -> Outcome {
    for follow in [true, false] {
        let found = case.shared().await?.stat(&case.path("file"), follow).await;
        fault("`stat` of a missing file", found, FileFault::NotFound)?;
        let (sandbox, path) = (case.shared().await?, case.path("file"));
        put(&sandbox, &path, "x").await?;
        let found = sandbox.stat(&format!("{path}/below"), follow).await;
        fault("`stat` below a file", found, FileFault::NotADirectory)?;
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

async fn list_of_link(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("folder/file"));
    let folder = path.trim_end_matches("/file");
    let link = format!("{folder}-link");
    put(&sandbox, &path, "x").await?;
    sandbox.make_symlink(&format!("{folder}/link"), "file").await?;
    sandbox.make_symlink(&link, "folder").await?;
    let found = names(&sandbox, &link).await?;
    ensure!(found == ["file", "link"], "a link to a directory has the entries {found:?}");
    for entry in sandbox.list_directory(folder).await?.iter().filter(|entry| entry.name == "link") {
        let right = matches!(&entry.kind, FileKind::Symlink(target) if target == "file");
        ensure!(right, "an entry that is a link is {:?}", entry.kind);
    }
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

/// Makes a directory with files, directories with and without entries, and links. Returns its path.
async fn various(case: &Case, sandbox: &Sandbox) -> Outcome<String> {
    let root = case.path("various");
    for (name, content) in [("a", "a"), ("b", "b"), ("full/x", "x"), ("dir/inside", "inside")] {
        put(sandbox, &format!("{root}/{name}"), content).await?;
    }
    sandbox.make_directory(&format!("{root}/empty"), false).await?;
    if case.declares("files.symlinks") {
        sandbox.make_symlink(&format!("{root}/link"), "dir").await?;
        sandbox.make_symlink(&format!("{root}/dangling"), "no").await?;
    }
    Ok(root)
}

/// Returns the names and types of the entries of a directory and of its directories.
async fn shape(sandbox: &Sandbox, root: &str) -> Outcome<Vec<String>> {
    let mut found = Vec::new();
    for entry in sandbox.list_directory(root).await? {
        found.push(format!("{} {:?}", entry.name, entry.kind));
        if matches!(entry.kind, FileKind::Directory) {
            let below = names(sandbox, &entry.path).await?;
            found.extend(below.into_iter().map(|name| format!("{}/{name}", entry.name)));
        }
    }
    Ok(found)
}

async fn rename_directories(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    let cases = [
        ("a", "dangling"),
        ("a", "link"),
        ("link", "b"),
        ("dangling", "b"),
        ("dir", "empty"),
        ("dir", "new"),
        ("link", "new"),
    ];
    for (from, to) in cases {
        let root = various(&case, &sandbox).await?;
        let what = format!("`rename` of {from} to {to}");
        let path = |name: &str| format!("{root}/{name}");
        let before = shape(&sandbox, &root).await?;
        if to != "new" {
            let moved = sandbox.rename(&path(from), &path(to), false).await;
            fault(&format!("{what} without `replace`"), moved, FileFault::AlreadyExists)?;
            let after = shape(&sandbox, &root).await?;
            ensure!(after == before, "{what} was refused, and changed the files from {before:?} to {after:?}");
        }
        sandbox.rename(&path(from), &path(to), to != "new").await?;
        // What had the name `from` has the name `to`, and nothing else has changed.
        let renamed = |entry: &String| match entry.strip_prefix(from) {
            Some(rest) if rest.starts_with([' ', '/']) => format!("{to}{rest}"),
            _ => entry.clone(),
        };
        let of =
            |entry: &&String, name: &str| entry.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '/']));
        let mut expected: Vec<_> = before.iter().filter(|entry| !of(entry, to)).map(renamed).collect();
        expected.sort();
        let mut after = shape(&sandbox, &root).await?;
        after.sort();
        ensure!(after == expected, "after {what}, there is {after:?} instead of {expected:?}");
        if from == "a" {
            holds(&sandbox, &path(to), "a").await?;
        }
    }
    Ok(())
}

async fn rename_refused(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    let root = various(&case, &sandbox).await?;
    let before = shape(&sandbox, &root).await?;
    for (from, to, expected) in [
        ("dir", "full", FileFault::NotEmpty),
        ("a", "empty", FileFault::IsADirectory),
        ("dir", "b", FileFault::NotADirectory),
    ] {
        let what = format!("`rename` of {from} to {to}");
        let (from, to) = (format!("{root}/{from}"), format!("{root}/{to}"));
        fault(&format!("{what} with `replace`"), sandbox.rename(&from, &to, true).await, expected)?;
        fault(&what, sandbox.rename(&from, &to, false).await, FileFault::AlreadyExists)?;
        let after = shape(&sandbox, &root).await?;
        ensure!(after == before, "{what} was refused, and changed the files from {before:?} to {after:?}");
    }
    holds(&sandbox, &format!("{root}/b"), "b").await
}

async fn rename_same(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    let root = various(&case, &sandbox).await?;
    case.sh(&sandbox, &format!("ln {root}/a {root}/same")).await?;
    let before = shape(&sandbox, &root).await?;
    for (from, to) in [("a", "same"), ("a", "a"), ("empty", "empty")] {
        let what = format!("`rename` of {from} to {to}");
        let (from, to) = (format!("{root}/{from}"), format!("{root}/{to}"));
        fault(&what, sandbox.rename(&from, &to, false).await, FileFault::AlreadyExists)?;
        sandbox.rename(&from, &to, true).await?;
        let after = shape(&sandbox, &root).await?;
        ensure!(after == before, "{what}, which is the same, changed the files from {before:?} to {after:?}");
    }
    holds(&sandbox, &format!("{root}/same"), "a").await
}

async fn rename_missing(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let moved = sandbox.rename(&path, &format!("{path}-new"), true).await;
    fault("`rename` of a missing file", moved, FileFault::NotFound)?;
    put(&sandbox, &path, "x").await?;
    let moved = sandbox.rename(&path, &format!("{path}-no/such"), true).await;
    fault("`rename` to a missing directory", moved, FileFault::NotFound)?;
    let other = format!("{path}-other");
    put(&sandbox, &other, "x").await?;
    let moved = sandbox.rename(&path, &format!("{other}/below"), true).await;
    fault("`rename` to a path below a file", moved, FileFault::NotADirectory)?;
    holds(&sandbox, &path, "x").await
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

async fn mode_of_append(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let steps = [
        ("1", None, 0o644, "1", "a new file"),
        ("", Some(0o600), 0o600, "1", "a file to which nothing was added, with 0600"),
        ("2", None, 0o600, "12", "a file to which was added without a mode"),
        ("3", Some(0o1750), 0o1750, "123", "a file to which was added with 1750"),
    ];
    for (data, permissions, mode, content, what) in steps {
        sandbox.write_file(&path, data, WriteOptions { permissions, ..options(WriteMode::Append) }).await?;
        let found = sandbox.stat(&path, false).await?.mode;
        ensure!(found == mode, "{what} has the mode {found:04o} instead of {mode:04o}");
        holds(&sandbox, &path, content).await?;
    }
    let other = case.path("file");
    sandbox.write_file(&other, "1", options(WriteMode::Append).permissions(0o1750)).await?;
    let found = sandbox.stat(&other, false).await?.mode;
    ensure!(found == 0o1750, "a new file with 1750 has the mode {found:04o}");
    Ok(())
}

async fn mode_of_create_new(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    for (permissions, mode) in [(None, 0o644), (Some(0o1750), 0o1750), (Some(0o600), 0o600)] {
        let path = case.path("file");
        sandbox.write_file(&path, "x", WriteOptions { permissions, ..options(WriteMode::CreateNew) }).await?;
        let found = sandbox.stat(&path, false).await?.mode;
        ensure!(found == mode, "a new file with {permissions:?} has the mode {found:04o} instead of {mode:04o}");
    }
    Ok(())
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

/// Checks that a call failed with a file fault that has no name of its own.
fn special<T>(what: &str, result: Result<T, Error>) -> Outcome {
    match result {
        Ok(_) => failed(format!("{what}: the call succeeded, and should fail")),
        Err(error) if matches!(error.kind(), Kind::File(FileFault::Other(_))) => Ok(()),
        Err(error) => failed(format!("{what}: should fail with another cause, but failed with {}", told(&error))),
    }
}

async fn link_loop(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("loop"));
    put(&sandbox, &format!("{path}-beside"), "x").await?;
    sandbox.make_symlink(&path, "loop").await?;
    special("`stat` of a link to itself", sandbox.stat(&path, true).await)?;
    special("`read-file` of a link to itself", sandbox.read_file(&path, MAX).await)?;
    for options in rewrites(&case) {
        let what = format!("a write to a link to itself, {}", way(&options));
        special(&what, sandbox.write_file(&path, "x", options).await)?;
    }
    let kind = sandbox.stat(&path, false).await?.kind;
    ensure!(matches!(kind, FileKind::Symlink(_)), "the link has become {kind:?}");
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

/// Begins a write, checks that the file is as before, and gives the write up. Returns the path of the file.
async fn abort(case: &Case, sandbox: &Sandbox, options: WriteOptions) -> Outcome<String> {
    let (path, mode) = (case.path("file"), options.mode);
    let old = if mode == WriteMode::CreateNew { None } else { Some("old") };
    if let Some(content) = old {
        put(sandbox, &path, content).await?;
    }
    let is_old = async || match old {
        Some(content) => holds(sandbox, &path, content).await,
        None => {
            fault("a file of an unfinished write", sandbox.read_file(&path, MAX).await, FileFault::NotFound).map(drop)
        }
    };
    let (mut writer, reader) = tokio::io::duplex(64 << 10);
    let upload = tokio::spawn({
        let (sandbox, path) = (sandbox.clone(), path.clone());
        async move { sandbox.upload(&path, reader, options).await }
    });
    // The host reads at most two pieces of 8 MiB ahead, so some data has been sent when it has taken more.
    let sent = tokio::time::timeout(Duration::from_secs(120), writer.write_all(&vec![b'n'; 20 << 20])).await;
    ensure!(sent.is_ok(), "20 MiB were not accepted within 120 s, {mode:?}");
    is_old().await?;
    upload.abort();
    let _ = upload.await;
    is_old().await?;
    Ok(path)
}

async fn aborted_write(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    for options in writes(&case) {
        abort(&case, &sandbox, options).await?;
    }
    Ok(())
}

/// Checks that a directory has exactly these entries, at the latest after a minute.
async fn only(sandbox: &Sandbox, folder: &str, expected: &[&str]) -> Outcome {
    let begun = Instant::now();
    loop {
        let found = names(sandbox, folder).await?;
        if found == expected {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "the directory has the entries {found:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn nothing_left(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    for options in writes(&case) {
        let path = case.path("file");
        sandbox.write_file(&path, pattern(3, 100_000), options.clone()).await?;
        only(&sandbox, path.trim_end_matches("/file"), &["file"]).await?;
        if options.mode != WriteMode::CreateNew {
            // The host ends a write that was given up by a signal.
            let path = abort(&case, &sandbox, options).await?;
            only(&sandbox, path.trim_end_matches("/file"), &["file"]).await?;
        }
    }
    Ok(())
}

async fn device(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    // Permissions would be those of the device.
    for options in rewrites(&case).into_iter().filter(|options| options.permissions.is_none()) {
        sandbox.write_file("/dev/null", "x", options).await?;
        case.sh(&sandbox, "[ -c /dev/null ]").await?;
    }
    if case.declares("directories") {
        let kind = sandbox.stat("/dev/null", false).await?.kind;
        ensure!(matches!(kind, FileKind::Other(_)), "a device is {kind:?}");
    }
    Ok(())
}

/// Checks that reads and writes of a file that is neither a file nor a directory fail at once.
async fn refuses(case: &Case, sandbox: &Sandbox, path: &str, what: &str) -> Outcome {
    let begun = Instant::now();
    match sandbox.read_file(path, MAX).await {
        // A pipe without a writer has no content.
        Ok(content) if content.is_empty() => {}
        read => special(&format!("`read-file` of {what}"), read)?,
    }
    for options in rewrites(case) {
        let what = format!("`write-file` to {what}, {}", way(&options));
        special(&what, sandbox.write_file(path, "x", options).await)?;
    }
    let time = begun.elapsed();
    ensure!(time < Duration::from_secs(30), "the calls for {what} took {time:?}");
    Ok(())
}

async fn pipe(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("pipe"));
    let folder = path.trim_end_matches("/pipe");
    sandbox.make_directory(folder, true).await?;
    case.sh(&sandbox, &format!("mkfifo {path}")).await?;
    refuses(&case, &sandbox, &path, "a pipe").await?;
    if case.declares("files.symlinks") {
        let link = format!("{path}-link");
        sandbox.make_symlink(&link, "pipe").await?;
        refuses(&case, &sandbox, &link, "a link to a pipe").await?;
    }
    let entries = sandbox.list_directory(folder).await?;
    let kind = entries.iter().find(|entry| entry.name == "pipe").map(|entry| &entry.kind);
    ensure!(matches!(kind, Some(FileKind::Other(_))), "a pipe is {kind:?}");
    Ok(())
}

async fn socket(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("socket"));
    sandbox.make_directory(path.trim_end_matches("/socket"), true).await?;
    // The file stays when the program has ended.
    let line = format!("import socket; socket.socket(socket.AF_UNIX).bind({path:?})");
    let result = sandbox.run(sandbox_host::types::ExecSpec::new(["python3", "-c", &line])).await?;
    crate::check::exited("a program that makes a socket", &result.verdict, 0)?;
    refuses(&case, &sandbox, &path, "a socket").await?;
    let kind = sandbox.stat(&path, false).await?.kind;
    ensure!(matches!(kind, FileKind::Other(_)), "a socket is {kind:?}");
    Ok(())
}

async fn no_space(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let made = "[ -c /dev/full ] || mknod /dev/full c 1 7 2>/dev/null && [ -c /dev/full ]";
    let found = sandbox.run(sandbox_host::types::ExecSpec::shell(made)).await?;
    if !matches!(found.verdict, sandbox_host::types::Verdict::Exited(0)) {
        return Err(Stop::Skipped("the sandbox has no device that is always full".to_owned()));
    }
    for options in rewrites(&case) {
        let what = format!("a write to a full device, {}", way(&options));
        fault(&what, sandbox.write_file("/dev/full", "x", options).await, FileFault::NoSpace)?;
    }
    Ok(())
}

async fn denied(case: Arc<Case>) -> Outcome {
    case.other_user().await?;
    let image = case
        .image()
        .command("RUN mkdir /conformance && chmod 755 /conformance && echo secret >/conformance/file")
        .command("RUN chmod 600 /conformance/file && mkdir -m 700 /conformance/folder")
        .command(format!("USER {OTHER_USER}"));
    let built = case.provider.build(image).await?.finish(|_| ()).await?;
    case.made_image(&built.id);
    let image = sandbox_host::types::ImageSpec::id(built.id);
    let sandbox = case.create(SandboxSpec { image, ..case.spec() }).await?;
    let deny = |what: &str, result: Result<(), Error>| fault(what, result, FileFault::PermissionDenied).map(drop);
    let (file, folder) = ("/conformance/file", "/conformance/folder");
    deny("`read-file`", sandbox.read_file(file, MAX).await.map(drop))?;
    deny("`read-file` below a folder", sandbox.read_file(&format!("{folder}/x"), MAX).await.map(drop))?;
    for options in writes(&case) {
        let way = way(&options);
        let written = sandbox.write_file("/conformance/new", "x", options.clone()).await;
        deny(&format!("a write of a new file, {way}"), written)?;
        if options.mode != WriteMode::CreateNew {
            deny(&format!("a write of a file, {way}"), sandbox.write_file(file, "x", options).await)?;
        }
    }
    if case.declares("directories") {
        deny("`make-directory`", sandbox.make_directory("/conformance/new", false).await)?;
        deny("`remove`", sandbox.remove(file, false).await)?;
        deny("`list-directory`", sandbox.list_directory(folder).await.map(drop))?;
    }
    if case.declares("files.rename") {
        deny("`rename`", sandbox.rename(file, "/conformance/moved", false).await)?;
    }
    if case.declares("files.symlinks") {
        deny("`make-symlink`", sandbox.make_symlink("/conformance/link", "x").await)?;
    }
    if case.declares("files.mode") {
        deny("`set-permissions`", sandbox.set_permissions(file, 0o666).await)?;
    }
    if case.declares("files.trees") {
        deny("`read-tree`", sandbox.download_tree(folder, tokio::io::sink()).await.map(drop))?;
        let local = tempfile::tempdir()?;
        std::fs::write(local.path().join("file"), "x")?;
        deny("`write-tree`", sandbox.upload_directory(local.path(), "/conformance/new", |_| ()).await.map(drop))?;
    }
    Ok(())
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

/// Reads the events of a watch from a position, until a file with `until` in its path was removed.
async fn events(provider: &Provider, sandbox: &str, at: (&str, &str), from: u64, until: &str) -> Outcome<Vec<String>> {
    let (sandbox, mut position, mut seen) = (provider.sandbox(sandbox), from, Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        let page = sandbox.watch(at.0, at.1, true, position, Duration::from_secs(5)).await?;
        ensure!(!page.end, "the watch has ended, after the events {seen:?}");
        position = page.next;
        for event in page.events {
            let kind = match event.kind {
                FileEventKind::Created => "created",
                FileEventKind::Modified => "modified",
                FileEventKind::Removed => "removed",
                FileEventKind::Accessed | FileEventKind::Other(_) => continue,
            };
            seen.extend(event.paths.iter().map(|path| format!("{kind} {path}")));
        }
        if seen.iter().any(|event| event.starts_with("removed") && event.contains(until)) {
            return Ok(seen);
        }
    }
    failed(format!("no event of the removal of a file {until} within 60 s, but {seen:?}"))
}

/// Starts a watch of a new directory. Returns the path of the directory and the position after the first event.
async fn begin_watch(case: &Case, sandbox: &Sandbox, id: &str) -> Outcome<(String, u64)> {
    let path = case.path("folder/sub/first");
    put(sandbox, &path, "x").await?;
    let folder = path.trim_end_matches("/sub/first").to_owned();
    let (mut position, begun) = (0, Instant::now());
    // What happens before the watch has begun need not be reported, so files are made until one is.
    for number in 0.. {
        ensure!(begun.elapsed() < Duration::from_secs(60), "no event after {number} files were made");
        let page = sandbox.watch(&folder, id, true, position, Duration::from_millis(300)).await?;
        position = page.next;
        if !page.events.is_empty() {
            break;
        }
        put(sandbox, &format!("{folder}/sub/early-{number}"), "x").await?;
    }
    Ok((folder, position))
}

async fn watch_kinds(case: Arc<Case>) -> Outcome {
    let (sandbox, id) = (case.shared().await?, fresh_id());
    let (folder, start) = begin_watch(&case, &sandbox, &id).await?;
    let new = format!("{folder}/sub/new");
    put(&sandbox, &new, "x").await?;
    // A file that is written anew may be created, renamed or changed, as the provider does it.
    put(&sandbox, &new, "y").await?;
    sandbox.remove(&new, false).await?;
    let seen = events(&case.provider, sandbox.id(), (&folder, &id), start, "sub/new").await?;
    for kinds in [&["created", "modified"][..], &["removed"]] {
        let there = kinds.iter().any(|kind| seen.contains(&format!("{kind} {new}")));
        ensure!(there, "no event {kinds:?} of {new:?} is among {seen:?}");
    }
    let other = events(&case.other().await?, sandbox.id(), (&folder, &id), start, "sub/new").await?;
    ensure!(other == seen, "another instance saw {other:?} from the same position, and the first one {seen:?}");
    Ok(())
}

async fn watch_ends(case: Arc<Case>) -> Outcome {
    let (sandbox, id) = (case.shared().await?, fresh_id());
    let (folder, mut position) = begin_watch(&case, &sandbox, &id).await?;
    sandbox.signal(&id, Signal::TERM).await?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        let page = sandbox.watch(&folder, &id, true, position, Duration::from_secs(5)).await?;
        if page.end {
            return Ok(());
        }
        position = page.next;
    }
    failed("the watch had not ended 60 s after a signal")
}

async fn watch_missing(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("folder"));
    let page = sandbox.watch(&path, &fresh_id(), false, 0, Duration::from_secs(20)).await;
    fault("a watch of a missing path", page, FileFault::NotFound)?;
    Ok(())
}

async fn watch_id(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    for id in ["main", "two words", "", &"x".repeat(65)] {
        let page = sandbox.watch("/", id, false, 0, Duration::ZERO).await;
        refused(&format!("a watch with the id {id:?}"), page, &Kind::InvalidArgument)?;
    }
    Ok(())
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
