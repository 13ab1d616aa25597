//! Capabilities that a container's processes may ever have.
//!
//! In a user namespace they count inside it only; still, without those that let root rearrange mounts, network and tracing,
//! a container behaves as one of the usual engines does, and cannot take the covers off `/proc`.

use std::io;

use rustix::{
    io::Errno,
    thread::{CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities},
};

/// The highest number that a capability can have.
const LAST: u32 = 63;

/// The usual engines' default set, less MKNOD: with a device node of the machine's disk, root without a user namespace
/// reaches everything.
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

/// Of those, what would count outside when there is no user namespace: raw sockets on the machine's network.
const ONLY_IN_NAMESPACE: CapabilitySet = CapabilitySet::NET_RAW;

/// Gives up everything else, for the caller and for all that it starts.
pub(crate) fn limit(user_namespace: bool) -> io::Result<()> {
    let kept = if user_namespace { KEPT } else { KEPT.difference(ONLY_IN_NAMESPACE) };
    for number in 0..=LAST {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // A number this kernel does not know.
            Err(Errno::INVAL) => {}
            done => done?,
        }
    }
    let permitted = capabilities(None)?.permitted & kept;
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}
