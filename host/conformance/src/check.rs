//! How a check ends, and the helpers that its assertions are written with.

use sandbox_host::types::{RunResult, Verdict};
use sandbox_host::{Error, FileFault, Kind};

/// Prefix of a need that names a program of the sandbox.
pub(crate) const PROGRAM: &str = "program:";

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The provider behaves as the interface says.
    Passed,
    /// It does not.
    Failed,
    /// The provider does not declare what the check needs.
    NotDeclared,
    /// The check does not apply, for example because the sandbox lacks a program.
    Skipped,
}

impl State {
    /// Returns a word for the state.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Passed => "passed",
            State::Failed => "failed",
            State::NotDeclared => "not declared",
            State::Skipped => "skipped",
        }
    }
}

/// Why a check did not pass.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The provider is wrong. The text says what was seen.
    Failed(String),
    /// The check does not apply. The text says why.
    Skipped(String),
}

/// The end of a check.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(told(&error))
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Stop {
        match error.downcast::<Error>() {
            Ok(error) => error.into(),
            Err(error) => Stop::Failed(format!("a stream failed: {error}")),
        }
    }
}

/// Describes an error with its kind.
pub(crate) fn told(error: &Error) -> String {
    format!("an error of the kind `{}`: {error}", error.kind().code())
}

/// Returns a failure with this text.
pub(crate) fn failed<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Stop::Failed(text.into()))
}

/// Ends the check with a failure if the condition does not hold. The other arguments are the text of the failure.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {{
        let holds: bool = $condition;
        if !holds {
            return Err($crate::check::Stop::Failed(format!($($text)+)));
        }
    }};
}
pub(crate) use ensure;

/// Returns the error of a call that must fail with this kind.
pub(crate) fn refused<T>(what: &str, result: Result<T, Error>, kind: &Kind) -> Outcome<Error> {
    match result {
        Ok(_) => failed(format!("{what}: the call succeeded, and should fail with `{}`", kind.code())),
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => failed(format!("{what}: should fail with `{}`, but failed with {}", kind.code(), told(&error))),
    }
}

/// Checks that a call failed with this file fault.
pub(crate) fn fault<T>(what: &str, result: Result<T, Error>, fault: FileFault) -> Outcome<Error> {
    refused(what, result, &Kind::File(fault))
}

/// Checks that a command exited with this code.
pub(crate) fn exited(what: &str, verdict: &Verdict, code: i32) -> Outcome {
    ensure!(
        matches!(verdict, Verdict::Exited(found) if *found == code),
        "{what}: {verdict:?} instead of Exited({code})"
    );
    Ok(())
}

/// Checks that a command exited with 0 and printed exactly this.
pub(crate) fn printed(what: &str, result: &RunResult, stdout: impl AsRef<[u8]>) -> Outcome {
    let stdout = stdout.as_ref();
    if !matches!(result.verdict, Verdict::Exited(0)) {
        let stderr = shown(&result.stderr.data);
        return failed(format!("{what}: {:?} instead of Exited(0), with {stderr} on standard error", result.verdict));
    }
    same(&format!("{what}, standard output"), &result.stdout.data, stdout)?;
    let (total, length) = (result.stdout.total, stdout.len());
    ensure!(total == length as u64, "{what}: `total` is {total}, and {length} bytes were printed");
    Ok(())
}

/// Checks that two byte sequences are equal. The text of a failure names the first difference.
pub(crate) fn same(what: &str, found: &[u8], expected: &[u8]) -> Outcome {
    if found == expected {
        return Ok(());
    }
    let at = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
    let from = |bytes: &[u8]| shown(bytes.get(at..).unwrap_or_default());
    failed(format!(
        "{what}: {} bytes instead of {}; at offset {at} there is {} instead of {}",
        found.len(),
        expected.len(),
        from(found),
        from(expected)
    ))
}

/// Shows the beginning of a byte sequence as text.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const LONGEST: usize = 60;
    let more = if bytes.len() > LONGEST { "…" } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]))
}

/// Returns test data whose bytes depend on their offset and on `seed`, so that lost, repeated and moved bytes show.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| ((at ^ (seed << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named_by_its_offset() {
        assert!(same("x", b"abc", b"abc").is_ok());
        for (found, expected, offset) in [(&b"abc"[..], &b"abd"[..], 2), (b"ab", b"abc", 2), (b"", b"a", 0)] {
            let Err(Stop::Failed(text)) = same("x", found, expected) else { panic!("should differ") };
            assert!(text.contains(&format!("offset {offset}")), "{text}");
        }
    }

    #[test]
    fn a_pattern_shows_lost_bytes() {
        let data = pattern(1, 100_000);
        assert_ne!(data, pattern(2, 100_000));
        let lost: Vec<_> = [&data[..65_536], &data[65_537..]].concat();
        assert!(same("x", &lost, &data).is_err());
    }
}
