//! The properties of a call's client that the handlers of calls need, read from its credentials and headers.

use crate::model::faults;

/// The properties of the client and of its call.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Whether the client expects router URLs with `https`, although it speaks plain text on loopback (docs/modal-protocol.md,
    /// section 7.2).
    pub https_router: bool,
    /// The authority of the request: the host and port at which the client reached the emulator.
    pub asked: Option<String>,
    /// The idempotency key, which all attempts of one call share; `None` if the client sent none.
    pub key: Option<String>,
    /// Ordered faults that change how the call is carried out.
    pub ordered: faults::Ordered,
}
