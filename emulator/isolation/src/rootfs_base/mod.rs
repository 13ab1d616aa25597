//! What lies below every container: made once per engine from what the machine has.
//!
//! - `skeleton/`: the empty top-level directories and the machine's links (`/bin` to `/usr/bin`, …);
//! - `scratch/`: the same for images made from nothing: only what the kernel's file systems need;
//! - `nothing/`: what lies below an image from nothing where it is not a root: an overlay must have a lower layer;
//! - `etc/`: what programs need of the machine's `/etc` (`etc_files`), as a copy, which can be written inside also when the
//!   machine's files could not;
//! - `masks/usr`, `masks/opt`: laid over the machine's directories. They hide what only some may read, and for an emulator
//!   without privileges they hold directories of its own, so that programs can be installed inside.

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

/// The machine's directories that are offered, besides `/etc` and those that stand beside `/usr` on machines that keep
/// `/bin` apart.
const OFFERED: [&str; 2] = ["usr", "opt"];

/// Programs' places at top level: links where the machine has merged them into `/usr`.
const PROGRAM_PLACES: [&str; 8] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "nix"];

/// Empty directories of the skeleton and their modes.
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

/// The same for images made from nothing.
const SCRATCH: [(&str, u32); 7] = [
    ("__modal", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("sys", 0o555),
    ("tmp", 0o1777),
];

/// Levels of the offered directories that are looked through: as far as programs install themselves by hand (`/opt/x/bin`,
/// `/usr/local/lib/python3/site-packages` without privileges), and not so far that a start is slowed down.
const MASK_DEPTH: usize = 3;

/// The directories that lie below every container.
#[derive(Debug, Clone)]
pub(crate) struct RootfsBase {
    directory: PathBuf,
    /// Top-level directories with an overlay of their own, `etc` not among them.
    offered: Vec<String>,
}

impl RootfsBase {
    /// Makes them in `directory`, which must not exist.
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
        // What a distribution's image has in root's home.
        for (from, to) in [("dot.bashrc", "root/.bashrc"), ("dot.profile", "root/.profile")] {
            if let Ok(content) = fs::read(Path::new("/usr/share/base-files").join(from)) {
                fs::write(skeleton.join(to), content)?;
            }
        }
        symlink("/run", skeleton.join("var/run"))?;
        symlink("/run/lock", skeleton.join("var/lock"))?;
        // An empty package database, rather than none: the tools start out from it.
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
        // In a user namespace what has something mounted below it cannot be a layer. Nothing is to be had without `/usr`,
        // and then the kernel's own refusal is the better message; without `/opt`, nearly everything.
        offered.retain(|name| name != "opt" || !has_mounts_below(Path::new("/opt")));

        etc_files::make(Path::new("/etc"), &directory.join("etc"), privileged)?;
        for name in &offered {
            let mask = directory.join("masks").join(name);
            make_directory(&mask, 0o755)?;
            mask_directory(&Path::new("/").join(name), &mask, !privileged, MASK_DEPTH)?;
        }
        Ok(Self { directory: directory.to_owned(), offered })
    }

    /// Adds the machine's package database. Takes a tenth of a second of the processor, so it is not part of making the rest.
    pub(crate) fn add_packages(&self, privileged: bool) -> io::Result<()> {
        let (skeleton, etc) = (self.directory.join("skeleton"), self.directory.join("etc"));
        package_database::copy(Path::new("/"), &skeleton, &etc, privileged)
    }

    /// The lowest layer of the root.
    pub(crate) fn root(&self, from_scratch: bool) -> PathBuf {
        self.directory.join(if from_scratch { "scratch" } else { "skeleton" })
    }

    /// An empty directory.
    pub(crate) fn nothing(&self) -> PathBuf {
        self.directory.join("nothing")
    }

    /// Every further overlay, in the order in which they are mounted: its top-level name and what lies below the image's
    /// layers, topmost first.
    pub(crate) fn offered(&self) -> impl Iterator<Item = (&str, Vec<PathBuf>)> {
        let programs = self
            .offered
            .iter()
            .map(|name| (name.as_str(), vec![self.directory.join("masks").join(name), Path::new("/").join(name)]));
        std::iter::once(("etc", vec![self.directory.join("etc")])).chain(programs)
    }
}

/// Hides what only some may read and, with `writable`, makes directories of our own, which can be written.
fn mask_directory(machine: &Path, mask: &Path, writable: bool, depth: usize) -> io::Result<()> {
    // One that cannot be read is not seen inside either.
    let Ok(entries) = fs::read_dir(machine) else { return Ok(()) };
    for entry in entries.flatten() {
        let target = mask.join(entry.file_name());
        let Ok(found) = fs::symlink_metadata(entry.path()) else { continue };
        // What everybody may execute but not read (some set-user-id programs) is no secret.
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

/// Makes the directory `mask`, and those above it, look like the machine's, whose attributes it covers.
fn make_alike(machine: &Path, mask: &Path) -> io::Result<()> {
    if mask.is_dir() {
        return Ok(());
    }
    if let (Some(machine), Some(mask)) = (machine.parent(), mask.parent()) {
        make_alike(machine, mask)?;
    }
    let found = fs::metadata(machine)?;
    make_directory(mask, found.mode() & 0o7777)?;
    // Not ours to give away without privileges, and then the owner does not matter.
    let _ = lchown(mask, Some(found.uid()), Some(found.gid()));
    Ok(())
}

fn has_mounts_below(directory: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let target = |line: &str| line.split(' ').nth(4).map(PathBuf::from);
    mounts.lines().filter_map(target).any(|target| target != directory && target.starts_with(directory))
}
