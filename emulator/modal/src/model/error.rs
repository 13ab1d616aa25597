//! The error type of the domain. `service::status` turns it into gRPC statuses.

/// Kinds of errors, which decide the code of the gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request names something that does not exist.
    NotFound,
    /// A value of the request is not valid, whatever the state.
    InvalidArgument,
    /// The sandbox, image or other object is in a state that does not permit the request.
    FailedPrecondition,
    /// Another object has this name already.
    AlreadyExists,
    /// The emulator does not implement the requested feature.
    Unimplemented,
    /// A limited resource is used up.
    ResourceExhausted,
    /// The time limit of the request is over.
    DeadlineExceeded,
    /// Another caller took over, or the request was interrupted.
    Aborted,
    /// Stored data is lost.
    DataLoss,
    /// A failure that the request did not cause.
    Internal,
}

/// An error of the domain: its kind, and a message for the caller. Program logic depends on the kind only.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
}

macro_rules! constructors {
    ($($name:ident $kind:ident $what:literal;)*) => {
        impl Error {
            $(
                #[doc = $what]
                pub fn $name(message: impl Into<String>) -> Error {
                    Error { kind: Kind::$kind, message: message.into() }
                }
            )*
        }
    };
}

constructors! {
    not_found NotFound "An error of [`Kind::NotFound`].";
    invalid_argument InvalidArgument "An error of [`Kind::InvalidArgument`].";
    failed_precondition FailedPrecondition "An error of [`Kind::FailedPrecondition`].";
    already_exists AlreadyExists "An error of [`Kind::AlreadyExists`].";
    unimplemented Unimplemented "An error of [`Kind::Unimplemented`].";
    resource_exhausted ResourceExhausted "An error of [`Kind::ResourceExhausted`].";
    deadline_exceeded DeadlineExceeded "An error of [`Kind::DeadlineExceeded`].";
    aborted Aborted "An error of [`Kind::Aborted`].";
    data_loss DataLoss "An error of [`Kind::DataLoss`].";
    internal Internal "An error of [`Kind::Internal`].";
}

impl Error {
    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the message for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }
}
