//! The names that are shared by the file tools and the code that starts them.

/// The file name of the program; the program recognizes its role by it.
pub const NAME: &str = "modal-sandbox-fs-tools";

/// Modal's program is linked statically, so the variables of the dynamic linker do not affect it. This one is linked
/// dynamically, so they are hidden from it: their pairs are joined in a variable of this name.
pub const HIDDEN: &[u8] = b"MODAL_EMULATOR_HIDDEN=";

/// Separates the pairs in the variable `HIDDEN`.
pub const BETWEEN: u8 = 0x1f;

/// Returns whether a `NAME=value` pair is a variable of the dynamic linker.
pub fn is_loaders(pair: &[u8]) -> bool {
    pair.starts_with(b"LD_") || pair.starts_with(b"GLIBC_TUNABLES=")
}
