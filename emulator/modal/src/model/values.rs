//! Helpers for small values of requests: names, variables, times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::error::Error;

/// PATH of images that set none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Checks that processes can have these environment variables.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if a name is empty or contains `=`, or if a name or value contains a zero byte.
pub fn check_variables(variables: &[(String, String)]) -> Result<(), Error> {
    let unusable =
        |(key, value): &&(String, String)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0');
    match variables.iter().find(unusable) {
        Some((key, _)) => Err(Error::invalid_argument(format!("{key:?} is not a usable environment variable"))),
        None => Ok(()),
    }
}

/// Sets the variables `over` in `env`, and replaces the values of names that exist.
pub fn overlay(env: &mut Vec<(String, String)>, over: impl IntoIterator<Item = (String, String)>) {
    for (key, value) in over {
        match env.iter_mut().find(|(known, _)| *known == key) {
            Some(slot) => slot.1 = value,
            None => env.push((key, value)),
        }
    }
}

/// Returns the Unix time in seconds.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// Converts a client's number of seconds to a duration of at most `most`. Negative numbers and NaN become zero.
pub fn wait(seconds: f32, most: Duration) -> Duration {
    Duration::try_from_secs_f32(seconds.max(0.0)).unwrap_or(Duration::ZERO).min(most)
}

/// Checks the name of an app, sandbox, volume, secret or image (docs/modal-protocol.md, section 2).
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if the name is empty, is longer than 64 characters, contains other characters than
/// letters, digits, `-`, `_` and `.`, or has the shape of an app id.
pub fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let fits = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let is_id = name
        .strip_prefix("ap-")
        .is_some_and(|rest| rest.len() == 22 && rest.bytes().all(|b| b.is_ascii_alphanumeric()));
    if fits && !is_id {
        Ok(())
    } else {
        Err(Error::invalid_argument(format!(
            "Invalid {what} name: '{name}'. Names may contain only alphanumeric characters, dashes, periods and underscores, and must be at most 64 characters"
        )))
    }
}

/// Formats bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
