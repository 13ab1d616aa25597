//! Errors of the inner roles: the step that failed, and why. They travel to the engine as text.

/// Says in which step something failed.
pub(crate) fn at<T, E: std::fmt::Display>(step: impl std::fmt::Display, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{step}: {error}"))
}
