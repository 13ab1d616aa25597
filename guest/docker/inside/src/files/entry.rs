//! The verbs `stat` and `list`.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use crate::{
    answer::{Answer, send_json},
    args::Args,
    context::Context,
    files::access::{Access, path_of},
    json,
    user::Names,
};

/// Describes one entry.
///
/// # Errors
///
/// Fails if it does not exist, or the user must not see it.
pub fn stat(args: &Args, _: &mut Context) -> Answer {
    let path = path_of(args, "path")?;
    let access = Access::of(args)?;
    let follow = args.flag("follow");
    let names = Names::read();
    let json = access.with(&path, || {
        let metadata = if follow { fs::metadata(&path) } else { fs::symlink_metadata(&path) }?;
        Ok(describe(&path, &metadata, &names))
    })?;
    send_json(&json)
}

/// Lists a directory, in the order of the bytes of the names.
///
/// # Errors
///
/// Fails if it is no directory, or the user must not read it.
pub fn list(args: &Args, _: &mut Context) -> Answer {
    let path = path_of(args, "path")?;
    let access = Access::of(args)?;
    let after = args.text("after");
    let max = args.number("max")?.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    let users = Names::read();
    let (items, skipped, more) = access.with(&path, || {
        let mut skipped = 0u64;
        let mut names = Vec::new();
        for entry in fs::read_dir(&path)? {
            match entry?.file_name().into_string() {
                Ok(name) => {
                    if after.is_none_or(|after| name.as_str() > after) {
                        names.push(name);
                    }
                }
                Err(_) => skipped += 1,
            }
        }
        names.sort_unstable();
        let more = names.len() > max;
        names.truncate(max);
        let mut items = Vec::with_capacity(names.len());
        for name in names {
            let entry = path.join(name);
            match fs::symlink_metadata(&entry) {
                Ok(metadata) => items.push(describe(&entry, &metadata, &users)),
                // It was removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok((items, skipped, more))
    })?;
    let object = json::Object::new().raw("items", &json::array(items)).number("skipped", skipped).flag("more", more);
    send_json(&object.end())
}

fn describe(path: &Path, metadata: &Metadata, names: &Names) -> String {
    let kind = metadata.file_type();
    let other = match kind {
        _ if kind.is_fifo() => Some("a pipe"),
        _ if kind.is_socket() => Some("a socket"),
        _ if kind.is_char_device() => Some("a character device"),
        _ if kind.is_block_device() => Some("a block device"),
        _ => None,
    };
    let name = match kind {
        _ if kind.is_file() => "file",
        _ if kind.is_dir() => "directory",
        _ if kind.is_symlink() => "symlink",
        _ => "other",
    };
    let target = kind.is_symlink().then(|| fs::read_link(path).ok()).flatten();
    let modified = i128::from(metadata.mtime()) * 1000 + i128::from(metadata.mtime_nsec() / 1_000_000);
    json::Object::new()
        .text("name", &path.file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy()))
        .text("path", &path.to_string_lossy())
        .text("kind", name)
        .maybe("target", target.as_deref().map(Path::to_string_lossy).as_deref())
        .maybe("other", other)
        .number("size", metadata.len())
        .number("mode", metadata.mode() & 0o7777)
        .text("owner", &names.user(metadata.uid()))
        .text("group", &names.group(metadata.gid()))
        .number("modified", modified)
        .end()
}
