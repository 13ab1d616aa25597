//! Limits the capabilities of a container's processes.
//!
//! In a user namespace, capabilities apply only to that namespace. Removing those for mounts, network and tracing still
//! makes the container behave like one of the common container engines, and keeps its processes from uncovering `/proc`.

use std::io;

use rustix::{
    io::Errno,
    thread::{CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities},
};

/// The highest capability number that the kernel's data structures allow.
const LAST: u32 = 63;

/// The default set of the common container engines without `MKNOD`: without a user namespace, root could access all data
/// of the machine through a device node of its disk.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// Capabilities of that set that are removed if there is no user namespace: raw sockets would reach the machine's
/// network.
const ONLY_IN_NAMESPACE: CapabilitySet = CapabilitySet::NET_RAW;

/// Drops all other capabilities of the calling process and of all processes that it starts.
pub(crate) fn limit(user_namespace: bool) -> io::Result<()> {
    let kept = if user_namespace { KEPT } else { KEPT.difference(ONLY_IN_NAMESPACE) };
    for number in 0..=LAST {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // This kernel does not know the number.
            Err(Errno::INVAL) => {}
            done => done?,
        }
    }
    let permitted = capabilities(None)?.permitted & kept;
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}
