//! Results and exit codes of sandboxes, sidecars and processes, in the form that clients get.

use container_isolation::Exit;
use modal_proto::client as proto;
use proto::generic_result::GenericStatus;

/// Returns a result with a status, an exit code and a text; all other fields have default values.
pub fn result(status: GenericStatus, exitcode: i32, exception: impl Into<String>) -> proto::GenericResult {
    proto::GenericResult { status: status as i32, exitcode, exception: exception.into(), ..Default::default() }
}

/// Returns the exit code that a shell would report: 128 plus the signal number for a process that a signal killed.
pub fn code(exit: Exit) -> i32 {
    match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
    }
}
