//! Puts the overlays of an image together: for a container's root, and for images that are mounted in running containers.

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

/// With a limit of the disk, one file for so many bytes of it; the usual file systems have one for 16 KiB.
const BYTES_PER_FILE: u64 = 4096;

/// Files that even the smallest disk holds, beyond those.
const SPARE_FILES: u64 = 1024;

/// Puts overlays together below `stage`, an empty directory of the machine, and says where. The first one is the root of the
/// others. With a limit, they write to a file system of that size in memory, whose directory of what is written is returned.
pub(crate) fn assemble(
    stage: &Path,
    mut overlays: Vec<Overlay>,
    disk: Option<u64>,
) -> Result<(PathBuf, Option<OwnedFd>), String> {
    mount("stage", stage, "tmpfs", MsFlags::empty(), "mode=755")?;
    let root = stage.join("root");
    at("make the root", fs::create_dir(&root))?;
    let written = disk.map(|bytes| limit(&stage.join("disk"), &mut overlays, bytes)).transpose()?;
    for (number, overlay) in overlays.iter().enumerate() {
        mount_overlay(stage, number, &root, overlay)?;
    }
    Ok((root, written))
}

/// Has overlays write to a file system of a limited size.
fn limit(disk: &Path, overlays: &mut [Overlay], bytes: u64) -> Result<OwnedFd, String> {
    let step = "limit the disk";
    at(step, fs::create_dir(disk))?;
    // Files take memory beyond their content, so their number is limited as well, as on a disk.
    let options = format!("mode=755,size={bytes},nr_inodes={}", bytes / BYTES_PER_FILE + SPARE_FILES);
    mount("disk", disk, "tmpfs", MsFlags::empty(), &options)?;
    let (upper, work) = (disk.join("upper"), disk.join("work"));
    at(step, fs::create_dir(&work))?;
    for (number, overlay) in overlays.iter_mut().enumerate() {
        let found = at(step, fs::metadata(&overlay.upper))?;
        // Each lies in the one of the root, which comes first.
        overlay.upper = upper.join(overlay.target.strip_prefix("/").unwrap_or(&overlay.target));
        overlay.work = work.join(number.to_string());
        at(step, fs::create_dir(&overlay.work))?;
        at(step, fs::create_dir(&overlay.upper))?;
        at(step, lchown(&overlay.upper, Some(found.uid()), Some(found.gid())))?;
        at(step, fs::set_permissions(&overlay.upper, found.permissions()))?;
    }
    // Without them a directory could not be replaced.
    let name = c"user.overlay.probe";
    if rustix::fs::setxattr(&upper, name, b"y", XattrFlags::empty()).is_err() {
        return Err(format!("{step}: tmpfs keeps no extended attributes here, which takes Linux 6.6 or newer"));
    }
    let _ = rustix::fs::removexattr(&upper, name);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    at(step, nix::fcntl::open(&upper, flags, Mode::empty()))
}

/// Mounts one overlay. The option string must fit a page and treats `:` and `,` as its own, so the layers are named by
/// short links made for the purpose.
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
    // userxattr: the only form that a user namespace may use, and one form for all, so that a layer made in one mode works
    // in the other. volatile: nothing written here has to survive a crash of the machine, so `fsync` need not reach the disk.
    let options = format!("userxattr,volatile,lowerdir={},upperdir=u,workdir=w", lower.join(":"));
    let target = match overlay.target.strip_prefix("/") {
        Ok(inside) => root.join(inside),
        Err(_) => return Err(format!("{step}: not an absolute path")),
    };
    mount("overlay", &target, "overlay", MsFlags::empty(), &options)
}
