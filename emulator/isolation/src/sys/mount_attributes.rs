//! The system call `mount_setattr`, which neither nix nor rustix provides.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

// Flags of linux/mount.h and linux/fcntl.h.
const MOUNT_ATTR_RDONLY: u64 = 1;
const AT_RECURSIVE: libc::c_uint = 0x8000;

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Makes a mount and all mounts below it read-only: the one at `path` relative to `directory`, or that of `directory`
/// itself if `path` is empty.
pub(crate) fn set_read_only(directory: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let attributes = Attributes { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    let flags = AT_RECURSIVE | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: the kernel reads the null-terminated path, and the structure, which has the kernel's layout and the size
    // passed to the call. Both outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
