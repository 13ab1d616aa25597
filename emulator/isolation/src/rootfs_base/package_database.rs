//! The machine's package database, for package managers in containers.
//!
//! Containers see the machine's `/usr`, so the machine's database lists the packages that are installed there. Without
//! it, a package manager would install everything again, over files in `/etc` that it does not know, and ask about each.
//! To make database and files agree, three things are copied: the database, the directories in `/var` that packages
//! contain, and the files in `/etc` that are identical to those in the packages and thus contain nothing specific to the
//! machine.
//!
//! Most files of the database are hard links to the machine's files where the system permits it: as root, and with the
//! state directory on the machine's file system. More than a thousand new files per emulator would cost up to two seconds
//! of processor time on some file systems, for example on ext4 without a journal. No program writes to the linked files:
//! containers have them only as a lower layer of an overlay, like the machine's `/usr`, and package managers replace them
//! by new files.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, lchown},
    path::Path,
};

use md5::{Digest, Md5};

use super::make::make_directory;

/// The files of each package that tools need to remove, replace or trigger it. Checksums and development data are
/// omitted, because they would double the time for copying.
const KEPT: [&str; 6] = ["list", "preinst", "postinst", "prerm", "postrm", "triggers"];

/// Directories of which all files are copied.
const WHOLE: [&str; 4] = ["var/lib/dpkg/alternatives", "var/lib/dpkg/triggers", "var/lib/pam", "var/lib/ucf"];

/// Names in `/etc` that contain keys and rules of the machine besides files of packages. None of their files are copied.
const SHUT: [&str; 8] =
    ["ssh", "ssl/private", "sudoers", "sudoers.d", "NetworkManager", "wpa_supplicant", "docker", "kubernetes"];

/// Options of dpkg. `force-confold` keeps files of the machine that belong to no package without a question when a
/// package contains another version; options on the command line take precedence. `force-unsafe-io` skips `fsync`: files
/// need not survive a crash of the machine.
const OPTIONS: &str = "force-confold\nforce-unsafe-io\n";

/// Option of apt for containers in which root is the only user: apt cannot switch to another user for downloads.
const ONE_USER: &str = "APT::Sandbox::User \"root\";\n";

/// Copies the files that package managers need from the machine's root directory to `skeleton`, and files of packages to
/// `etc`. Does nothing if the machine does not use dpkg.
pub(crate) fn copy(machine: &Path, skeleton: &Path, etc: &Path, privileged: bool) -> io::Result<()> {
    let database = "var/lib/dpkg";
    let Ok(status) = fs::read_to_string(machine.join(database).join("status")) else { return Ok(()) };
    let owned = |from: &Path, to: &Path| -> io::Result<()> {
        match fs::symlink_metadata(from) {
            Ok(found) if privileged => lchown(to, Some(found.uid()), Some(found.gid())),
            _ => Ok(()),
        }
    };
    let copy_file = |name: &Path| copy_open(&machine.join(name), &skeleton.join(name));

    let info = Path::new(database).join("info");
    let mut directories = BTreeSet::new();
    for entry in fs::read_dir(machine.join(&info))?.flatten() {
        let name = info.join(entry.file_name());
        let kind = name.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        if kind == "list"
            && let Ok(list) = fs::read_to_string(entry.path())
        {
            directories.extend(list.lines().filter(|line| line.starts_with("/var/")).map(str::to_owned));
        }
        if KEPT.contains(&kind) || entry.file_name() == "format" {
            link_open(&machine.join(&name), &skeleton.join(&name))?;
        }
    }
    for name in directories {
        let name = name.trim_start_matches('/');
        let (from, to) = (machine.join(name), skeleton.join(name));
        let is_directory = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        if is_directory(&from) && !to.exists() && to.parent().is_some_and(is_directory) {
            make_directory(&to, fs::metadata(&from)?.mode() & 0o7777)?;
            owned(&from, &to)?;
        }
    }
    for directory in WHOLE {
        let Ok(entries) = fs::read_dir(machine.join(directory)) else { continue };
        make_directory(&skeleton.join(directory), 0o755)?;
        for entry in entries.flatten() {
            copy_file(&Path::new(directory).join(entry.file_name()))?;
        }
    }
    for name in ["status", "diversions", "statoverride"] {
        copy_file(&Path::new(database).join(name))?;
    }

    for (path, sum) in configuration(&status) {
        let Some(inside) = path.strip_prefix("/etc/") else { continue };
        if SHUT.iter().any(|name| Path::new(inside).starts_with(name)) {
            continue;
        }
        let (from, to) = (machine.join("etc").join(inside), etc.join(inside));
        if to.symlink_metadata().is_ok() || !is_open_file(&from) {
            continue;
        }
        let Ok(content) = fs::read(&from) else { continue };
        let found: String = Md5::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        if found == sum && make_parents(&machine.join("etc"), etc, Path::new(inside), &owned)? {
            fs::write(&to, content)?;
            fs::set_permissions(&to, fs::metadata(&from)?.permissions())?;
            owned(&from, &to)?;
        }
    }
    let options = etc.join("dpkg/dpkg.cfg.d");
    if etc.join("dpkg").is_dir() {
        make_directory(&options, 0o755)?;
        fs::write(options.join("emulator"), OPTIONS)?;
    }
    if !privileged && etc.join("apt").is_dir() {
        make_directory(&etc.join("apt/apt.conf.d"), 0o755)?;
        fs::write(etc.join("apt/apt.conf.d/99emulator"), ONE_USER)?;
    }
    Ok(())
}

/// Creates the parent directories of a file with the machine's attributes. Returns `false` if one of them is not a
/// directory.
fn make_parents(
    from: &Path,
    to: &Path,
    inside: &Path,
    owned: &dyn Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<bool> {
    let Some(parent) = inside.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(true) };
    if !make_parents(from, to, parent, owned)? {
        return Ok(false);
    }
    let (from, to) = (from.join(parent), to.join(parent));
    match fs::symlink_metadata(&to) {
        Ok(found) => return Ok(found.is_dir()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(&from)?;
    if !found.is_dir() || found.mode() & 0o005 != 0o005 {
        return Ok(false);
    }
    make_directory(&to, found.mode() & 0o7777)?;
    owned(&from, &to)?;
    Ok(true)
}

/// Returns the files of packages in `/etc`, with their MD5 sums at installation.
fn configuration(status: &str) -> impl Iterator<Item = (&str, &str)> {
    // Only the lines of this field begin with a space and a slash.
    status.lines().filter_map(|line| {
        let mut words = line.strip_prefix(' ').filter(|line| line.starts_with('/'))?.split(' ');
        Some((words.next()?, words.next()?)).filter(|_| words.next().is_none())
    })
}

fn is_open_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o004 != 0)
}

/// Makes a hard link to a file that all users may read, if it exists. Copies it where a link is impossible: without
/// privileges, on another file system, or if the file has the maximum number of links.
fn link_open(from: &Path, to: &Path) -> io::Result<()> {
    if is_open_file(from) && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    copy_open(from, to)
}

/// Copies a file that all users may read, if it exists.
fn copy_open(from: &Path, to: &Path) -> io::Result<()> {
    if !is_open_file(from) {
        return Ok(());
    }
    match fs::copy(from, to) {
        // The file was replaced in the meantime, because a package is being installed.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Ok(()),
        copied => copied.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_and_what_belongs_to_it() {
        let places = tempfile::tempdir().unwrap();
        let (machine, skeleton, etc) =
            (places.path().join("machine"), places.path().join("skeleton"), places.path().join("etc"));
        let write = |name: &str, content: &str| {
            let path = machine.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let sum = |text: &str| Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let status = format!(
            "Package: a\nConffiles:\n /etc/a/own {}\n /etc/a/changed {}\n /etc/a/old {} obsolete\n /etc/seen {}\n /etc/ssh/config {}\n",
            sum("own"),
            sum("as it was"),
            sum("old"),
            sum("seen"),
            sum("own")
        );
        write("var/lib/dpkg/status", &status);
        write("var/lib/dpkg/info/format", "1\n");
        write("var/lib/dpkg/info/a.list", "/.\n/etc\n/var/lib/a\n/var/lib/a/deep\n/usr/bin/a\n/var/missing\n");
        write("var/lib/dpkg/info/a.postinst", "#!/bin/sh\n");
        write("var/lib/dpkg/info/a.md5sums", "");
        write("var/lib/dpkg/alternatives/editor", "auto\n");
        write("var/lib/a/deep/file", "the machine's own");
        for (name, content) in [("own", "own"), ("changed", "token=x"), ("old", "old"), ("stray", "stray")] {
            write(&format!("etc/a/{name}"), content);
        }
        write("etc/seen", "seen");
        write("etc/ssh/config", "own");
        fs::create_dir_all(skeleton.join("var/lib/dpkg/info")).unwrap();
        fs::create_dir_all(etc.join("dpkg")).unwrap();
        fs::write(etc.join("seen"), "before").unwrap();
        copy(&machine, &skeleton, &etc, false).unwrap();
        let there = |name: &str| skeleton.join("var/lib").join(name).exists();
        for name in [
            "dpkg/status",
            "dpkg/info/format",
            "dpkg/info/a.list",
            "dpkg/info/a.postinst",
            "dpkg/alternatives/editor",
            "a/deep",
        ] {
            assert!(there(name), "{name}");
        }
        assert!(!there("dpkg/info/a.md5sums") && !there("a/deep/file") && !skeleton.join("var/missing").exists());
        assert_eq!(fs::read_to_string(etc.join("a/own")).unwrap(), "own");
        assert_eq!(fs::read_dir(etc.join("a")).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(etc.join("seen")).unwrap(), "before");
        assert!(etc.join("dpkg/dpkg.cfg.d/emulator").is_file() && !etc.join("ssh").exists());
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let is_link = |name: &str| inode(&machine.join(name)) == inode(&skeleton.join(name));
        assert!(is_link("var/lib/dpkg/info/a.list") && !is_link("var/lib/dpkg/status"));
        copy(&places.path().join("none"), &skeleton, &etc, false).unwrap();
    }

    #[test]
    fn a_file_is_copied_where_a_link_is_impossible() {
        let place = tempfile::tempdir().unwrap();
        // A file of the machine on another file system.
        let (from, to) = (Path::new("/proc/version"), place.path().join("to"));
        link_open(from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), fs::read(from).unwrap());
        assert_ne!(fs::metadata(&to).unwrap().dev(), fs::metadata(from).unwrap().dev());
        link_open(&place.path().join("missing"), &place.path().join("nothing")).unwrap();
        assert!(!place.path().join("nothing").exists());
    }
}
