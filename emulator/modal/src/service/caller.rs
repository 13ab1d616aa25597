//! Who calls, and how: what is left of a call's credentials and headers.

use crate::model::faults;

/// Who calls, and how.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Wants router URLs with `https`, though it speaks plain text on loopback (docs/modal-protocol.md, section 7.2).
    pub https_router: bool,
    /// The authority that it asked for.
    pub asked: Option<String>,
    /// The same for every attempt of one call.
    pub key: Option<String>,
    /// Faults that do not keep the call from being carried out.
    pub ordered: faults::Ordered,
}
