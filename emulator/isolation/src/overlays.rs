//! Assembles the overlays of an image, for the root of a container or for a mount in a running container.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, lchown, symlink},
    },
    path::{Path, PathBuf},
};

use nix::{fcntl::OFlag, mount::MsFlags, sys::stat::Mode};
use rustix::fs::XattrFlags;

use crate::{mount_calls::mount, protocol::Overlay, steps::at};

/// On a limited disk, one file is permitted for each of these bytes. Common file systems permit one per 16 KiB.
const BYTES_PER_FILE: u64 = 4096;

/// Number of files that even the smallest disk permits in addition.
const SPARE_FILES: u64 = 1024;

/// Mounts overlays below `stage`, an empty directory of the machine, and returns their root. The first overlay is the
/// root of the others. With the limit `disk` in bytes, the overlays write to a tmpfs of that size, and its directory of
/// written files is returned as well.
pub(crate) fn assemble(
    stage: &Path,
    mut overlays: Vec<Overlay>,
    disk: Option<u64>,
) -> Result<(PathBuf, Option<OwnedFd>), String> {
    mount("stage", stage, "tmpfs", MsFlags::empty(), "mode=755")?;
    let root = stage.join("root");
    at("create the root", fs::create_dir(&root))?;
    let written = disk.map(|bytes| limit(&stage.join("disk"), &mut overlays, bytes)).transpose()?;
    for (number, overlay) in overlays.iter().enumerate() {
        mount_overlay(stage, number, &root, overlay)?;
    }
    Ok((root, written))
}

/// Makes overlays write to a tmpfs of limited size. Returns its directory of written files.
fn limit(disk: &Path, overlays: &mut [Overlay], bytes: u64) -> Result<OwnedFd, String> {
    let step = "limit the disk";
    at(step, fs::create_dir(disk))?;
    // Files use memory in addition to their content, so their number is limited as well.
    let options = format!("mode=755,size={bytes},nr_inodes={}", bytes / BYTES_PER_FILE + SPARE_FILES);
    mount("disk", disk, "tmpfs", MsFlags::empty(), &options)?;
    let (upper, work) = (disk.join("upper"), disk.join("work"));
    at(step, fs::create_dir(&work))?;
    for (number, overlay) in overlays.iter_mut().enumerate() {
        let found = at(step, fs::metadata(&overlay.upper))?;
        // The upper directories of the other overlays are inside that of the root, which is first.
        overlay.upper = upper.join(overlay.target.strip_prefix("/").unwrap_or(&overlay.target));
        overlay.work = work.join(number.to_string());
        at(step, fs::create_dir(&overlay.work))?;
        at(step, fs::create_dir(&overlay.upper))?;
        at(step, lchown(&overlay.upper, Some(found.uid()), Some(found.gid())))?;
        at(step, fs::set_permissions(&overlay.upper, found.permissions()))?;
    }
    // Overlays need extended attributes on the upper directory, for example to replace a directory.
    let name = c"user.overlay.probe";
    if rustix::fs::setxattr(&upper, name, b"y", XattrFlags::empty()).is_err() {
        return Err(format!("{step}: tmpfs does not store extended attributes; Linux 6.6 or newer is needed"));
    }
    let _ = rustix::fs::removexattr(&upper, name);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    at(step, nix::fcntl::open(&upper, flags, Mode::empty()))
}

/// Mounts one overlay. The mount options must fit in a page and cannot contain `:` and `,` in paths, so layers are named
/// by short symbolic links.
fn mount_overlay(stage: &Path, number: usize, root: &Path, overlay: &Overlay) -> Result<(), String> {
    let step = format!("layers of {}", overlay.target.display());
    let names = stage.join(number.to_string());
    at(&step, fs::create_dir(&names))?;
    for (layer, path) in overlay.lower.iter().enumerate() {
        at(&step, symlink(path, names.join(layer.to_string())))?;
    }
    at(&step, symlink(&overlay.upper, names.join("u")))?;
    at(&step, symlink(&overlay.work, names.join("w")))?;
    at(&step, nix::unistd::chdir(&names))?;
    let lower: Vec<String> = (0..overlay.lower.len()).map(|layer| layer.to_string()).collect();
    // `userxattr` is the only form that user namespaces may use; it is always used, so that layers work in both modes.
    // `volatile`: written files do not have to survive a crash of the machine, so `fsync` need not reach the disk.
    let options = format!("userxattr,volatile,lowerdir={},upperdir=u,workdir=w", lower.join(":"));
    let target = match overlay.target.strip_prefix("/") {
        Ok(inside) => root.join(inside),
        Err(_) => return Err(format!("{step}: not an absolute path")),
    };
    mount("overlay", &target, "overlay", MsFlags::empty(), &options)
}
