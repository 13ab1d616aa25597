//! The form of sandbox ids, which also shows the backend of a sandbox.

use sandbox_provider_kit::api::error::{Error, Result, shown};

/// Returns whether a sandbox runs on the V1 backend: its id is `sb-` and exactly 22 characters of base 62
/// (docs/modal-protocol.md, section 5.1).
#[must_use]
pub fn is_v1(sandbox: &str) -> bool {
    sandbox.strip_prefix("sb-").is_some_and(|rest| rest.len() == 22 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Checks the form of a sandbox id before it is sent: `sb-` and letters, digits, `-` and `_`, at most 128 characters.
///
/// # Errors
///
/// `invalid-argument` with the id as its subject.
pub fn check_sandbox(id: &str) -> Result<()> {
    let plausible = id.strip_prefix("sb-").is_some_and(|rest| {
        !rest.is_empty() && id.len() <= 128 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    if plausible {
        return Ok(());
    }
    Err(Error::invalid(format!("`{}` is not a sandbox id: Modal's begin with `sb-`.", shown(id))).about(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_by_id() {
        assert!(is_v1("sb-0123456789abcdefghijAB"));
        assert!(!is_v1("sb-01JABCDEFGHJKMNPQRSTVWXYZ0"));
        assert!(!is_v1("sb-0123456789abcdefghijA-"));
        assert!(!is_v1("0123456789abcdefghijAB"));
    }

    #[test]
    fn sandbox_ids() {
        assert!(check_sandbox("sb-abc").is_ok());
        for bad in ["", "sb-", "abc", "sb-a b", "sb-\n", "SB-abc", "sb-../../x"] {
            assert!(check_sandbox(bad).is_err(), "{bad:?}");
        }
    }
}
