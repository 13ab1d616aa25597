//! The emulator's own program, in a form that containers cannot change.
//!
//! Processes inside a container begin as forks of its init and can execute `/proc/self/exe`, so they get hold of the file
//! that init was executed from, and may change its mode and its owner: the container's root has the same ids as the machine's.
//! Inner roles are therefore not executed from the program's file but from a copy in memory, which the kernel has sealed.
//! The only other way to the program is the mount of the file tools, which is read-only.

use std::{
    fs::{File, Permissions},
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

/// Of linux/memfd.h, for kernels from 6.3 on: the file may be executed.
const MFD_EXEC: libc::c_uint = 0x10;

/// Of linux/fcntl.h, from 6.3 on: whether the file may be executed cannot be changed.
const F_SEAL_EXEC: libc::c_int = 0x20;

/// The copy is executed and read, and never written.
const MODE: u32 = 0o555;

/// The program that plays the inner roles.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    copy: File,
}

impl Program {
    /// Copies the program at `path`. Where the kernel executes nothing from memory (`vm.memfd_noexec`), the copy is a file
    /// without a name in the directory `spare`.
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

    /// The program's own file: only for mounts that are read-only.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The copy, to be executed. On kernels before 6.3 a container can have changed its mode, which is set right here.
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
        // A kernel that does not know the flag.
        Err(Errno::EINVAL) => memfd_create(c"modal-emulator", flags),
        made => made,
    };
    let mut copy = File::from(made?);
    io::copy(&mut program, &mut copy)?;
    copy.set_permissions(Permissions::from_mode(MODE))?;
    // Not all kernels know this one; [`Program::executable`] does without it.
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
    // Open for reading only: what is open for writing is not executed. Its name goes here.
    File::open(copy.path())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
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
        // What a container may try with it.
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
