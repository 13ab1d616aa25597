//! Creates ids. Clients distinguish objects by the shapes of their ids (docs/modal-protocol.md, section 5.1).
//!
//! Most ids are a prefix and 22 characters of `[0-9A-Za-z]`. A sandbox of the second backend has a 26-character ULID instead,
//! and its task id ends in `V`: clients choose the backend of later calls by that alone.

use rand::Rng as _;
use rand::distr::Alphanumeric;

/// Digits of a ULID: Crockford's base 32.
const ULID_LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Returns `<prefix>-` and 22 random letters and digits.
pub fn id(prefix: &str) -> String {
    let mut id = String::with_capacity(prefix.len() + 23);
    id.push_str(prefix);
    id.push('-');
    id.extend(rand::rng().sample_iter(Alphanumeric).take(22).map(char::from));
    id
}

/// Returns a sandbox id of the second backend: `sb-` and a ULID, so that ids sort by time of creation. `created_at` is in Unix
/// seconds.
pub fn sandbox_v2(created_at: f64) -> String {
    let millis = (created_at * 1000.0) as u64 & ((1 << 48) - 1);
    let random: u128 = rand::rng().random::<u128>() & ((1 << 80) - 1);
    let value = (u128::from(millis) << 80) | random;
    let mut text = String::from("sb-");
    for position in (0..26).rev() {
        text.push(char::from(ULID_LETTERS[((value >> (position * 5)) & 31) as usize]));
    }
    text
}

/// Returns a task id. Those of the second backend end in `V`; others never do.
pub fn task(v2: bool) -> String {
    let mut id = id("ta");
    let last = id.pop().unwrap_or('x');
    id.push(if v2 {
        'V'
    } else if last == 'V' {
        'v'
    } else {
        last
    });
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_clients_tell_apart() {
        let v1 = id("sb");
        assert_eq!(v1.len(), 25);
        assert!(v1[3..].bytes().all(|b| b.is_ascii_alphanumeric()));
        let v2 = sandbox_v2(1_700_000_000.0);
        assert!(v2 < sandbox_v2(1_700_000_000.001));
        assert_eq!(v2.len(), 29);
        assert!(task(true).ends_with('V') && !task(false).ends_with('V'));
    }
}
