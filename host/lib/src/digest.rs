//! SHA-256 digests and hexadecimal text.

use sha2::{Digest as _, Sha256};

/// Returns the SHA-256 digest of a component's bytes as 64 lower-case hexadecimal digits, like
/// [`Plugin::digest`](crate::Plugin::digest).
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Returns the bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
