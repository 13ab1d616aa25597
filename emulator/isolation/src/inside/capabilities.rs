//! Capabilities that a container's processes may ever have.
//!
//! In a user namespace they count inside it only; still, without those that let root rearrange mounts, network and tracing,
//! a container behaves as one of the usual engines does, and cannot take the covers off `/proc`.

use std::io;

// Numbers of linux/capability.h.
const CHOWN: u32 = 0;
const DAC_OVERRIDE: u32 = 1;
const FOWNER: u32 = 3;
const FSETID: u32 = 4;
const KILL: u32 = 5;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const SETPCAP: u32 = 8;
const NET_BIND_SERVICE: u32 = 10;
const NET_RAW: u32 = 13;
const SYS_CHROOT: u32 = 18;
const AUDIT_WRITE: u32 = 29;
const SETFCAP: u32 = 31;
const LAST: u32 = 63;

/// The usual engines' default set, less MKNOD: with a device node of the machine's disk, root without a user namespace
/// reaches everything.
const KEPT: [u32; 13] = [
    CHOWN,
    DAC_OVERRIDE,
    FOWNER,
    FSETID,
    KILL,
    SETGID,
    SETUID,
    SETPCAP,
    NET_BIND_SERVICE,
    NET_RAW,
    SYS_CHROOT,
    AUDIT_WRITE,
    SETFCAP,
];

/// Of those, what would count outside when there is no user namespace: raw sockets on the machine's network.
const ONLY_IN_NAMESPACE: [u32; 1] = [NET_RAW];

/// The kernel's `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// The kernel's `struct __user_cap_data_struct`; two make the 64 bits.
#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// Gives up everything else, for the caller and for all that it starts.
pub(crate) fn limit(user_namespace: bool) -> io::Result<()> {
    let kept =
        |capability: &u32| KEPT.contains(capability) && (user_namespace || !ONLY_IN_NAMESPACE.contains(capability));
    for capability in (0..=LAST).filter(|capability| !kept(capability)) {
        // Safety: plain system call.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) } < 0 {
            let error = io::Error::last_os_error();
            // EINVAL: a number this kernel does not know.
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
    }
    let header = Header { version: VERSION, pid: 0 };
    let mut data = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // Safety: header and data have the kernel's layout and outlive the calls.
    unsafe {
        if libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut mask = [0u32; 2];
        for capability in KEPT.iter().filter(|capability| kept(capability)) {
            mask[*capability as usize / 32] |= 1 << (capability % 32);
        }
        for (part, mask) in data.iter_mut().zip(mask) {
            part.permitted &= mask;
            part.effective = part.permitted;
            part.inheritable = 0;
        }
        if libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
