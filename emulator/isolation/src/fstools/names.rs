//! The names by which the program and what starts it know each other.

/// The program's file name, by which it knows its role.
pub const NAME: &str = "modal-sandbox-fs-tools";

/// The service's program is linked statically, so the dynamic linker's variables mean nothing to it. They are kept from this
/// one in a variable of this name, one behind the other.
pub const HIDDEN: &[u8] = b"MODAL_EMULATOR_HIDDEN=";

/// Between those.
pub const BETWEEN: u8 = 0x1f;

/// Whether a variable, with its value, is the dynamic linker's.
pub fn is_loaders(pair: &[u8]) -> bool {
    pair.starts_with(b"LD_") || pair.starts_with(b"GLIBC_TUNABLES=")
}
