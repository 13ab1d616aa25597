//! File operations that Modal's helper does not support (docs/modal-protocol.md, section 8.1). The image's own programs
//! do them: mode, rename, links, trees.

use bytes::Bytes;
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        wit::{FileChunk, Location},
    },
    inside::{Script, files},
};

use super::transfer::{read_transfer, write_transfer};
use crate::exec::{helper::check_location, script::Scripts, shell};

/// Implements `rename` of the interface. Moves a file or a directory within the sandbox.
///
/// # Errors
///
/// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the sandbox
/// has ended, `unsupported` if the image lacks the programs for it; otherwise the error of the failed request.
pub async fn rename(scripts: &Scripts, at: &Location, to: &str, replace: bool) -> Result<()> {
    check::path(to)?;
    change(scripts, at, &files::rename(&at.path, to, replace)).await
}

/// Implements `make-symlink` of the interface. Creates a symbolic link at `at` that points to `target`.
///
/// # Errors
///
/// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the sandbox
/// has ended, `unsupported` if the image lacks the programs for it; otherwise the error of the failed request.
pub async fn make_symlink(scripts: &Scripts, at: &Location, target: &str) -> Result<()> {
    if target.is_empty() || target.contains('\0') || target.len() > 4095 {
        return Err(Error::invalid("The link target is invalid: give 1 to 4095 bytes without NUL.").about(&at.path));
    }
    change(scripts, at, &files::link(&at.path, target)).await
}

/// Implements `set-permissions` of the interface. Sets the low twelve mode bits of a path.
///
/// # Errors
///
/// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the sandbox
/// has ended, `unsupported` if the image lacks the programs for it; otherwise the error of the failed request.
pub async fn set_permissions(scripts: &Scripts, at: &Location, permissions: u32) -> Result<()> {
    check::permissions(permissions)?;
    change(scripts, at, &files::chmod(&at.path, permissions)).await
}

async fn change(scripts: &Scripts, at: &Location, script: &Script) -> Result<()> {
    let argv = shell::argv(script);
    loop {
        let changed = scripts.helper().answer(at, argv.clone()).await;
        if !shell::is_elsewhere(scripts.helper(), at, changed.as_ref().err()).await {
            return changed.map(drop);
        }
    }
}

/// Implements `read-tree` of the interface. Reads a directory tree as a tar stream, in pieces like
/// `SandboxProvider::read_file`.
///
/// # Errors
///
/// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the sandbox
/// has ended, `unsupported` if the image lacks the programs for it; otherwise the error of the failed request.
pub async fn read_tree(
    scripts: &Scripts,
    at: &Location,
    transfer: &str,
    offset: u64,
    max_bytes: u32,
) -> Result<FileChunk> {
    check::transfer(transfer)?;
    let argv = shell::argv(&files::pack(&at.path));
    loop {
        let id = scripts.helper().places().script_id(at, transfer);
        let read = read_transfer(scripts, at, &id, argv.clone(), offset, max_bytes).await;
        if !shell::is_elsewhere(scripts.helper(), at, read.as_ref().err()).await {
            return read;
        }
    }
}

/// Implements `write-tree` of the interface. Unpacks a tar stream into a directory, in pieces like
/// `SandboxProvider::write_file`.
///
/// # Errors
///
/// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the sandbox
/// has ended, `unsupported` if the image lacks the programs for it; otherwise the error of the failed request.
pub async fn write_tree(
    scripts: &Scripts,
    at: &Location,
    transfer: &str,
    offset: u64,
    data: Vec<u8>,
    eof: bool,
) -> Result<u64> {
    check_location(at)?;
    check::transfer(transfer)?;
    let (argv, data) = (shell::argv(&files::unpack(&at.path)), Bytes::from(data));
    loop {
        let id = scripts.helper().places().script_id(at, transfer);
        let written = write_transfer(scripts, at, &id, argv.clone(), offset, data.clone(), eof).await;
        if !shell::is_elsewhere(scripts.helper(), at, written.as_ref().err()).await {
            return written;
        }
    }
}
