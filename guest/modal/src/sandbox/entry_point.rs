//! The main process of a sandbox or a sidecar, in Modal's form.

use sandbox_provider_kit::{
    Error, Result,
    api::wit::{EntryPoint, ImageSource, ImageSpec},
};

/// Longest command, in bytes of all arguments (docs/modal-protocol.md, section 5.2).
const MAX_COMMAND_BYTES: usize = 65_536;

/// The command that keeps a container alive. Modal appends it to the ENTRYPOINT of the image, or runs it alone. Two days
/// are longer than the longest lifetime of a sandbox.
const KEEP_ALIVE: [&str; 2] = ["sleep", "172800"];

/// Returns the words that Modal appends to the image's ENTRYPOINT. If there are none, Modal runs the image's own command,
/// and keeps a container without a command alive (docs/modal-protocol.md, section 5.2).
pub(crate) fn arguments(entry_point: &EntryPoint, image: &ImageSpec) -> Vec<String> {
    match entry_point {
        EntryPoint::Command(argv) => argv.clone(),
        EntryPoint::Image => Vec::new(),
        // Modal's default image has no command.
        EntryPoint::KeepAlive if matches!(image.source, ImageSource::ProviderDefault) => Vec::new(),
        EntryPoint::KeepAlive => KEEP_ALIVE.map(str::to_string).to_vec(),
    }
}

/// Checks an entry point.
///
/// # Errors
///
/// `invalid-argument` with the subject `command` if the command is empty or too long, or contains a NUL character.
pub(crate) fn check_entry_point(entry_point: &EntryPoint) -> Result<()> {
    let EntryPoint::Command(argv) = entry_point else { return Ok(()) };
    let bytes: usize = argv.iter().map(String::len).sum();
    let fault = if argv.is_empty() {
        "The command is empty: give a program, or choose `keep-alive` or `image`.".to_string()
    } else if bytes > MAX_COMMAND_BYTES {
        format!(
            "The command has {bytes} bytes, more than the {MAX_COMMAND_BYTES} that Modal permits: pass data by a file."
        )
    } else if argv.iter().any(|argument| argument.contains('\0')) {
        "An argument of the command contains a NUL character.".to_string()
    } else {
        return Ok(());
    };
    Err(Error::invalid(fault).about("command"))
}
