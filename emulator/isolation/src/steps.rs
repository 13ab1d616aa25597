//! Errors of the inner roles: the step that failed, and the reason. They are sent to the engine as text.

/// Adds the name of the step to an error.
pub(crate) fn at<T, E: std::fmt::Display>(step: impl std::fmt::Display, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{step}: {error}"))
}
