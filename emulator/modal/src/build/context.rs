//! Writes the files of a build's context, or the local files of a sandbox, to a directory of the machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use crate::build::directories::{make_directories, remove};
use crate::model::ids;
use crate::model::state::{Mount, State};

/// Writes a mount's files below `to`; `contents` is the directory of their contents. A `layer` is later mounted over the
/// machine's files, so a file for `/bin` is written to the directory that the machine's link `/bin` points to.
///
/// # Errors
///
/// Fails if a file cannot be written.
pub fn write(mount: &Mount, contents: &Path, to: &Path, layer: bool) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    for file in &mount.files {
        let mut path = relative(&file.path);
        if layer {
            path = through_links(&path);
        }
        let content = contents.join(file.sha256.to_ascii_lowercase());
        put(to, &path, &content, file.mode).with_context(|| format!("cannot place {}", file.path))?;
    }
    Ok(())
}

/// Writes a small file whose content is part of the build request.
///
/// # Errors
///
/// Fails if the file cannot be written.
pub fn write_small(name: &str, data: &[u8], to: &Path) -> anyhow::Result<()> {
    let path = relative(name);
    make_directories(to, path.parent().unwrap_or(Path::new("")))?;
    fs::write(to.join(&path), data).with_context(|| format!("cannot place {name}"))
}

fn put(to: &Path, path: &Path, content: &Path, mode: u32) -> std::io::Result<()> {
    make_directories(to, path.parent().unwrap_or(Path::new("")))?;
    let target = to.join(path);
    fs::copy(content, &target)?;
    fs::set_permissions(&target, fs::Permissions::from_mode(mode))
}

/// Converts a path to one relative to the root, and drops `.` and `..`.
fn relative(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// Resolves a top-level link such as `/bin` or `/lib`, which points into `/usr` on most machines.
fn through_links(path: &Path) -> PathBuf {
    let mut parts = path.components();
    let Some(first) = parts.next() else { return path.to_owned() };
    let top = Path::new("/").join(first);
    match fs::read_link(&top) {
        Ok(target) if ["bin", "sbin", "lib", "lib32", "lib64", "libx32"].iter().any(|name| path.starts_with(name)) => {
            relative(&target.to_string_lossy()).join(parts.as_path())
        }
        _ => path.to_owned(),
    }
}

/// Returns a layer that holds a mount's files. Creates it on first use.
///
/// # Errors
///
/// Fails if the mount does not exist, or if its files cannot be written.
pub async fn mount_layer(state: &Arc<State>, id: &str) -> anyhow::Result<PathBuf> {
    let mount = state.mount(id)?;
    let layer = state.layers().join(format!("{id}-layer"));
    if layer.is_dir() {
        return Ok(layer);
    }
    let (contents, wanted) = (state.files(), layer.clone());
    tokio::task::spawn_blocking(move || {
        let part = wanted.with_extension(ids::id("part"));
        write(&mount, &contents, &part, true)?;
        // The rename fails if another caller has made an equal layer in the meantime.
        if std::fs::rename(&part, &wanted).is_err() {
            remove(&part)?;
        }
        anyhow::Ok(())
    })
    .await??;
    Ok(layer)
}
