//! The threads that calls run on.

use std::io;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

/// The runtime, and the process that started it.
static RUNTIME: OnceLock<(Runtime, u32)> = OnceLock::new();

/// Returns the runtime of this process, and starts it at the first call. Its threads are named `sandbox-host`, and live until
/// the process ends.
///
/// # Errors
///
/// The error of the system if the threads cannot be started. [`io::ErrorKind::Unsupported`] in a process that was forked from
/// the one that started the threads: they do not exist in it.
pub fn runtime() -> io::Result<&'static Runtime> {
    if let Some((runtime, owner)) = RUNTIME.get() {
        return if *owner == std::process::id() {
            Ok(runtime)
        } else {
            Err(io::Error::new(io::ErrorKind::Unsupported, FORKED))
        };
    }
    let made = Builder::new_multi_thread().enable_all().thread_name("sandbox-host").build()?;
    Ok(&RUNTIME.get_or_init(|| (made, std::process::id())).0)
}

/// The text of the error in a forked process.
pub(crate) const FORKED: &str = "the library does not survive `fork`: open a provider in the child process after `exec` \
     (Python: use the start method \"spawn\")";
