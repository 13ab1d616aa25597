//! Identifiers of the shapes that clients tell kinds and versions by (protocol fact sheet, section 5.1).

use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Crockford's alphabet, as ULIDs use it.
const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

fn base62(count: usize) -> String {
    let mut rng = rand::rng();
    (0..count).map(|_| BASE62[rng.random_range(0..62)] as char).collect()
}

/// `prefix-` and 22 characters of base 62: apps, images, secrets, V1 sandboxes and most other things.
pub(crate) fn short(prefix: &str) -> String {
    format!("{prefix}-{}", base62(22))
}

/// The same shape, made of a digest: equal content gets an equal id.
pub(crate) fn of_digest(prefix: &str, digest: &[u8]) -> String {
    let text: String = digest.iter().take(22).map(|byte| BASE62[usize::from(*byte) % 62] as char).collect();
    format!("{prefix}-{text}")
}

/// `prefix-` and a ULID: 26 characters, so it cannot be taken for a V1 id.
pub(crate) fn ulid(prefix: &str) -> String {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let random: u128 = rand::rng().random();
    let value = (u128::from(millis) << 80) | (random >> 48);
    let text: String = (0..26).rev().map(|i| BASE32[(value >> (5 * i)) as usize & 31] as char).collect();
    format!("{prefix}-{text}")
}

/// A task id: those of V2 sandboxes end in `V`.
pub(crate) fn task(v2: bool) -> String {
    let mut id = ulid("ta");
    if v2 {
        id.push('V');
    }
    id
}

#[cfg(test)]
mod tests {
    #[test]
    fn shapes_differ() {
        assert_eq!(super::short("sb").len(), 25);
        assert_eq!(super::ulid("sb").len(), 29);
        assert!(super::task(true).ends_with('V'));
        assert_ne!(super::ulid("sb"), super::ulid("sb"));
    }
}
