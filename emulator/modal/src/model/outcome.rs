//! How sandboxes, sidecars and processes have ended, as clients are told.

use container_isolation::Exit;
use modal_proto::client as proto;
use proto::generic_result::GenericStatus;

/// A result with nothing but a status, an exit code and a text.
pub fn result(status: GenericStatus, exitcode: i32, exception: impl Into<String>) -> proto::GenericResult {
    proto::GenericResult { status: status as i32, exitcode, exception: exception.into(), ..Default::default() }
}

/// The exit code of a process as a shell would give it.
pub fn code(exit: Exit) -> i32 {
    match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
    }
}
