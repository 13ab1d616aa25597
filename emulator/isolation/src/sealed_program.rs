//! The emulator's own program, in a form that containers cannot change.
//!
//! Processes in a container begin as forks of its init and can execute `/proc/self/exe`. So they can access the file that
//! init was executed from, and could change its mode and owner, because the container's root has the same ids as the
//! machine's. Therefore the inner roles are executed from a copy in memory that the kernel has sealed. The only other
//! access to the program is the mount of the file tools, which is read-only.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
};

use anyhow::Context;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

/// From linux/memfd.h, for Linux 6.3 and later: the file may be executed.
const MFD_EXEC: libc::c_uint = 0x10;

/// From linux/fcntl.h, for Linux 6.3 and later: the execute permission cannot be changed.
const F_SEAL_EXEC: libc::c_int = 0x20;

/// Mode of the copy, which is never written.
const MODE: u32 = 0o555;

/// The program that runs the inner roles.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    copy: File,
}

impl Program {
    /// Copies the program at `path` to memory. If the kernel forbids execution from memory (`vm.memfd_noexec`), the copy
    /// is an unnamed file in the directory `spare`.
    pub(crate) fn copy(path: &Path, spare: &Path) -> anyhow::Result<Self> {
        let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
        nix::unistd::access(&path, nix::unistd::AccessFlags::X_OK)
            .with_context(|| format!("cannot execute {}", path.display()))?;
        let copy = match in_memory(&path) {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => on_disk(&path, spare),
            copied => copied,
        };
        let copy = copy.with_context(|| format!("cannot copy {}", path.display()))?;
        Ok(Self { path, copy })
    }

    /// Makes a hard link to the original program at `link`, if possible, and uses its path from now on. Then containers
    /// also start while the original is replaced or after it was removed: Linux does not attach the mount of a file whose
    /// name was removed after the mount was made. A link is impossible on another file system, and without privileges for
    /// a program of another user.
    pub(crate) fn keep(&mut self, link: &Path) {
        if fs::hard_link(&self.path, link).is_ok() {
            self.path = link.to_owned();
        }
    }

    /// Returns the path of the program's file, which may only be used for read-only mounts.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the copy for execution. Restores its mode first: before Linux 6.3, a container can change it.
    pub(crate) fn executable(&self) -> io::Result<BorrowedFd<'_>> {
        if self.copy.metadata()?.permissions().mode() & 0o7777 != MODE {
            self.copy.set_permissions(Permissions::from_mode(MODE))?;
        }
        Ok(self.copy.as_fd())
    }
}

fn in_memory(path: &Path) -> io::Result<File> {
    let mut program = File::open(path)?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let made = match memfd_create(c"modal-emulator", flags | MFdFlags::from_bits_retain(MFD_EXEC)) {
        // The kernel does not know the flag.
        Err(Errno::EINVAL) => memfd_create(c"modal-emulator", flags),
        made => made,
    };
    let mut copy = File::from(made?);
    io::copy(&mut program, &mut copy)?;
    copy.set_permissions(Permissions::from_mode(MODE))?;
    // Fails on older kernels; [`Program::executable`] handles that.
    let _ = fcntl(&copy, FcntlArg::F_ADD_SEALS(SealFlag::from_bits_retain(F_SEAL_EXEC)));
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy)
}

fn on_disk(path: &Path, spare: &Path) -> io::Result<File> {
    let mut program = File::open(path)?;
    let mut copy = tempfile::NamedTempFile::new_in(spare)?;
    io::copy(&mut program, copy.as_file_mut())?;
    copy.as_file().set_permissions(Permissions::from_mode(MODE))?;
    // Opened again read-only, because files that are open for writing cannot be executed. Dropping `copy` removes the
    // name.
    File::open(copy.path())
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::{fd::AsRawFd, unix::process::CommandExt},
        process::Command,
    };

    use super::*;

    fn works(program: &Program) {
        let path = format!("/proc/self/fd/{}", program.executable().unwrap().as_raw_fd());
        assert!(Command::new(path).arg0("true").status().unwrap().success());
    }

    #[test]
    fn the_copy_can_be_executed_and_not_be_written() {
        let spare = tempfile::tempdir().unwrap();
        let program = Program::copy(Path::new("/bin/true"), spare.path()).unwrap();
        works(&program);
        assert!((&program.copy).write_all(b"x").is_err());
        assert!(program.copy.set_len(0).is_err());
        // Attempts that a container could make.
        let _ = program.copy.set_permissions(Permissions::from_mode(0o4000));
        works(&program);
        assert!(Program::copy(Path::new("/no/such/program"), spare.path()).is_err());
    }

    #[test]
    fn the_copy_on_disk_has_no_name() {
        let spare = tempfile::tempdir().unwrap();
        let program =
            Program { path: "/bin/true".into(), copy: on_disk(Path::new("/bin/true"), spare.path()).unwrap() };
        works(&program);
        assert_eq!(fs::read_dir(spare.path()).unwrap().count(), 0);
    }
}
