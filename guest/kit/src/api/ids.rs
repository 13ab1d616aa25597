//! Ids: the check of ids that callers choose, and the UUIDs that represent them in requests to a service.

use sha2::{Digest as _, Sha256};

use super::error::{Error, Result, shown};

/// The reserved exec id of the entry-point command.
pub const MAIN: &str = "main";

/// Checks a caller-chosen id: 1 to 64 characters of `[A-Za-z0-9_-]`.
///
/// # Errors
///
/// `invalid-argument` with the id as its subject if the id has another form.
pub fn check_chosen(what: &str, id: &str) -> Result<()> {
    if (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` is not valid as {what}: use 1 to 64 letters, digits, `_` and `-`, such as a UUID.",
        shown(id)
    ))
    .about(id))
}

/// Returns the UUID that represents a caller-chosen id in requests, for services that accept only UUIDs of version 4.
/// Returns the id itself, in lower case, if it is a UUID. Otherwise derives the UUID from the id, with the same result
/// in every instance.
#[must_use]
pub fn wire_uuid(id: &str) -> String {
    if is_uuid(id) { id.to_ascii_lowercase() } else { derived_uuid(id) }
}

/// Returns a UUID in the form of version 4 that depends only on `text`.
#[must_use]
pub fn derived_uuid(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    format_uuid(bytes)
}

/// Formats sixteen random bytes as a UUID of version 4.
#[must_use]
pub fn format_uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text
}

fn is_uuid(id: &str) -> bool {
    id.len() == 36
        && id.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_pass_and_others_are_derived() {
        let uuid = "6B29FC40-CA47-4067-B31D-00DD010662DA";
        assert_eq!(wire_uuid(uuid), uuid.to_lowercase());
        let derived = wire_uuid("build-step-1");
        assert!(is_uuid(&derived));
        assert_eq!(derived, wire_uuid("build-step-1"));
        assert_ne!(derived, wire_uuid("build-step-2"));
        assert_eq!(&derived[14..15], "4");
    }

    #[test]
    fn chosen_ids() {
        assert!(check_chosen("an exec id", "a_B-9").is_ok());
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(65), "a\0"] {
            assert!(check_chosen("an exec id", bad).is_err(), "{bad:?}");
        }
    }
}
