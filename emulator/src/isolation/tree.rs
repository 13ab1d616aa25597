//! Directory trees on the machine's side: taking them away, whatever is in them.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use nix::mount::{MntFlags, umount2};

/// Removes a tree of ours; missing is fine. Overlays leave directories without permissions behind, which only root may
/// enter as they are. Links are removed, not followed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_enterable(path);
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn make_enterable(path: &Path) {
    let Ok(found) = fs::symlink_metadata(path) else { return };
    if !found.is_dir() {
        return;
    }
    if found.mode() & 0o700 != 0o700 {
        // What we do not own stays; removing it then says why.
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        make_enterable(&entry.path());
    }
}

/// Takes away mounts below `path` that this process can see. False if one stays: removing the tree would then remove
/// what is mounted.
pub(super) fn detach_mounts(path: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    // Spaces and the like are written in octal there; a state directory with such a name keeps its leftovers.
    let below = |line: &str| {
        let target = line.split(' ').nth(4).map(Path::new)?;
        target.starts_with(path).then(|| target.to_owned())
    };
    // Later ones lie over earlier ones.
    mounts.lines().filter_map(below).rev().all(|target| umount2(&target, MntFlags::MNT_DETACH).is_ok())
}

/// Copies a layer.
pub(super) fn copy_layer(_from: &Path, _to: &Path) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
