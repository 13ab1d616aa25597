//! Why something that was asked for is not done.

/// What kind of refusal or failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request names something that there is not.
    NotFound,
    /// The request cannot be meant as it is.
    InvalidArgument,
    /// The state of what it is about does not allow it.
    FailedPrecondition,
    /// Something with this name is there.
    AlreadyExists,
    /// The emulator does not do this.
    Unimplemented,
    /// Nothing is left of what it takes.
    ResourceExhausted,
    /// It took too long.
    DeadlineExceeded,
    /// Another caller took over, or the caller went away.
    Aborted,
    /// Data that was kept is lost.
    DataLoss,
    /// Anything that the caller cannot help.
    Internal,
}

/// An error with the text that callers read.
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
    /// What kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What callers read.
    pub fn message(&self) -> &str {
        &self.message
    }
}
