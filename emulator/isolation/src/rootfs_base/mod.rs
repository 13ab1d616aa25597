//! The lower directories of all containers, created once per engine from files of the machine.
//!
//! - `skeleton/`: the empty top-level directories and the machine's links (`/bin` to `/usr/bin`, …);
//! - `scratch/`: the equivalent for images from scratch, with only the mount points of the kernel's file systems;
//! - `nothing/`: the lower directory of images from scratch that are not a root, because an overlay needs a lower directory;
//! - `etc/`: the part of the machine's `/etc` that programs need (`etc_files`), as a copy, so that it can be written inside
//!   even if the machine's files could not;
//! - `masks/usr`, `masks/opt`: overlaid on the machine's directories. They hide files that not all users may read. For an
//!   emulator without privileges they also contain directories that it owns, so that programs can be installed inside.

mod etc_files;
mod make;
mod package_database;

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, lchown, symlink},
    path::{Path, PathBuf},
};

pub(crate) use make::make_directory;
use make::whiteout;

/// The directories of the machine that containers see, besides `/etc` and the directories in `PROGRAM_PLACES` that are
/// not links into `/usr`.
const OFFERED: [&str; 2] = ["usr", "opt"];

/// Top-level directories of programs. On most machines they are links into `/usr`.
const PROGRAM_PLACES: [&str; 8] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "nix"];

/// The empty directories of the skeleton, with their modes.
const SKELETON: [(&str, u32); 37] = [
    ("__modal", 0o755),
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/backups", 0o755),
    ("var/cache", 0o755),
    ("var/cache/apt", 0o755),
    ("var/cache/apt/archives", 0o755),
    ("var/cache/apt/archives/partial", 0o700),
    ("var/lib", 0o755),
    ("var/lib/apt", 0o755),
    ("var/lib/apt/lists", 0o755),
    ("var/lib/apt/lists/partial", 0o700),
    ("var/lib/dpkg", 0o755),
    ("var/lib/dpkg/info", 0o755),
    ("var/lib/dpkg/updates", 0o755),
    ("var/lib/dpkg/triggers", 0o755),
    ("var/lib/misc", 0o755),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o755),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// The same for images from scratch.
const SCRATCH: [(&str, u32); 7] = [
    ("__modal", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("sys", 0o555),
    ("tmp", 0o1777),
];

/// Depth to which the machine's directories are searched: deep enough for programs that are installed manually
/// (`/opt/x/bin`, `/usr/local/lib/python3/site-packages` without privileges), and not so deep that it slows down the
/// start.
const MASK_DEPTH: usize = 3;

/// The lower directories of all containers.
#[derive(Debug, Clone)]
pub(crate) struct RootfsBase {
    directory: PathBuf,
    /// Top-level directories that get their own overlay, except `etc`.
    offered: Vec<String>,
}

impl RootfsBase {
    /// Creates the directories in `directory`, which must not exist.
    pub(crate) fn make(directory: &Path, privileged: bool) -> io::Result<Self> {
        for part in ["", "skeleton", "scratch", "nothing", "etc", "masks"] {
            make_directory(&directory.join(part), 0o755)?;
        }
        let skeleton = directory.join("skeleton");
        for (name, mode) in SKELETON {
            make_directory(&skeleton.join(name), mode)?;
        }
        for (name, mode) in SCRATCH {
            make_directory(&directory.join("scratch").join(name), mode)?;
        }
        // The files that a distribution's image has in root's home directory.
        for (from, to) in [("dot.bashrc", "root/.bashrc"), ("dot.profile", "root/.profile")] {
            if let Ok(content) = fs::read(Path::new("/usr/share/base-files").join(from)) {
                fs::write(skeleton.join(to), content)?;
            }
        }
        symlink("/run", skeleton.join("var/run"))?;
        symlink("/run/lock", skeleton.join("var/lock"))?;
        // An empty package database: the tools fail without one.
        fs::write(skeleton.join("var/lib/dpkg/status"), "")?;
        fs::write(skeleton.join("var/lib/dpkg/available"), "")?;

        let mut offered: Vec<String> = OFFERED.map(str::to_owned).to_vec();
        for name in PROGRAM_PLACES {
            let place = Path::new("/").join(name);
            match fs::symlink_metadata(&place) {
                Ok(found) if found.is_symlink() => symlink(fs::read_link(&place)?, skeleton.join(name))?,
                Ok(found) if found.is_dir() => {
                    make_directory(&skeleton.join(name), 0o755)?;
                    offered.push(name.to_owned());
                }
                _ => {}
            }
        }
        offered.retain(|name| Path::new("/").join(name).is_dir());
        // In a user namespace, a directory with mounts below it cannot be a layer. Containers are not useful without
        // `/usr`, so the kernel's own error is reported for it, but they work without `/opt`.
        offered.retain(|name| name != "opt" || !has_mounts_below(Path::new("/opt")));

        etc_files::make(Path::new("/etc"), &directory.join("etc"), privileged)?;
        for name in &offered {
            let mask = directory.join("masks").join(name);
            make_directory(&mask, 0o755)?;
            mask_directory(&Path::new("/").join(name), &mask, !privileged, MASK_DEPTH)?;
        }
        Ok(Self { directory: directory.to_owned(), offered })
    }

    /// Adds the machine's package database. Separate from [`RootfsBase::make`], because it takes 0.1 s of processor time.
    pub(crate) fn add_packages(&self, privileged: bool) -> io::Result<()> {
        let (skeleton, etc) = (self.directory.join("skeleton"), self.directory.join("etc"));
        package_database::copy(Path::new("/"), &skeleton, &etc, privileged)
    }

    /// Returns the lowest layer of the root.
    pub(crate) fn root(&self, from_scratch: bool) -> PathBuf {
        self.directory.join(if from_scratch { "scratch" } else { "skeleton" })
    }

    /// Returns an empty directory.
    pub(crate) fn nothing(&self) -> PathBuf {
        self.directory.join("nothing")
    }

    /// Returns the further overlays, in mount order: the top-level name and the lower directories below the image's
    /// layers, topmost first.
    pub(crate) fn offered(&self) -> impl Iterator<Item = (&str, Vec<PathBuf>)> {
        let programs = self
            .offered
            .iter()
            .map(|name| (name.as_str(), vec![self.directory.join("masks").join(name), Path::new("/").join(name)]));
        std::iter::once(("etc", vec![self.directory.join("etc")])).chain(programs)
    }
}

/// Fills `mask` so that it hides files that not all users may read. With `writable`, also creates directories that this
/// user owns and can write to.
fn mask_directory(machine: &Path, mask: &Path, writable: bool, depth: usize) -> io::Result<()> {
    // A directory that cannot be read is not visible inside either.
    let Ok(entries) = fs::read_dir(machine) else { return Ok(()) };
    for entry in entries.flatten() {
        let target = mask.join(entry.file_name());
        let Ok(found) = fs::symlink_metadata(entry.path()) else { continue };
        // Files that all users may execute but not read (some set-user-ID programs) are not secret.
        let open = found.mode() & 0o001 != 0 || (found.is_file() && found.mode() & 0o004 != 0);
        if found.is_symlink() {
            continue;
        } else if !open {
            make_alike(machine, mask)?;
            whiteout(&target)?;
        } else if found.is_dir() && depth > 1 {
            if writable {
                make_directory(&target, found.mode() & 0o7777)?;
            }
            let below = if entry.path() == Path::new("/usr/local") { MASK_DEPTH } else { depth - 1 };
            mask_directory(&entry.path(), &target, writable, below)?;
        }
    }
    Ok(())
}

/// Creates the directory `mask` and its parents with the attributes of the machine's directories, which they cover.
fn make_alike(machine: &Path, mask: &Path) -> io::Result<()> {
    if mask.is_dir() {
        return Ok(());
    }
    if let (Some(machine), Some(mask)) = (machine.parent(), mask.parent()) {
        make_alike(machine, mask)?;
    }
    let found = fs::metadata(machine)?;
    make_directory(mask, found.mode() & 0o7777)?;
    // Fails without privileges, and then the owner does not matter.
    let _ = lchown(mask, Some(found.uid()), Some(found.gid()));
    Ok(())
}

fn has_mounts_below(directory: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let target = |line: &str| line.split(' ').nth(4).map(PathBuf::from);
    mounts.lines().filter_map(target).any(|target| target != directory && target.starts_with(directory))
}
