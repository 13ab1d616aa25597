//! What every verb gets beside its arguments.

use crate::base::{Activity, Base};

/// The surroundings of one call.
pub struct Context {
    /// The directory of the helper.
    pub base: Base,
    /// Says that the sandbox is in use. A supervisor takes it over.
    pub activity: Option<Activity>,
}
