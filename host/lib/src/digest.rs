//! SHA-256 and hexadecimal digits.

use sha2::{Digest as _, Sha256};

/// SHA-256 of a component's bytes in 64 hexadecimal digits, as [`Plugin::digest`](crate::Plugin::digest) gives it.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The bytes in lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
