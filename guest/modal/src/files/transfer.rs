//! Reads and writes the contents of files in pieces, with Modal's helper, or with the image's own programs if the
//! helper does not support the options.

use std::{future::poll_fn, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::future::{Either, select};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check, ids,
        wit::{FileChunk, FileFault, FileKind, Happened, Location, WriteMode, WriteOptions},
    },
    exec::KILL_TIME,
    inside::files,
    platform::{LocalFuture, within},
};

use crate::exec::{
    helper::{END_WAIT, check_location, exec_ref, late, tool_argv, uncertain},
    script::Scripts,
    shell, stdin,
};

/// Largest piece of one write, in bytes, as for stdin.
const MAX_WRITE_BYTES: usize = 16 * 1024 * 1024;

/// Time without progress after which the type of the file is checked: opening a pipe, a socket or a terminal can block
/// for ever.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// Time without data after which a read is given up.
const READ_STALL: Duration = Duration::from_secs(120);

/// Time in which it can remove its temporary file before SIGKILL, in tenths of a second.
const KILL_GRACE_TENTHS: u32 = 20;

/// Implements `read-file` of the interface. Reads at most `max_bytes` bytes of a file, beginning at the byte `offset`.
///
/// # Errors
///
/// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the sandbox
/// has ended, `timed-out` if no data arrives for two minutes; otherwise the error of the failed request.
pub async fn read(scripts: &Scripts, at: &Location, transfer: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
    let read = read_transfer(scripts, at, transfer, tool_argv("ReadFile", &at.path), offset, max_bytes);
    match select(pin!(read), stuck(scripts, at, transfer, offset == 0, true)).await {
        Either::Left((result, _)) => result,
        Either::Right((error, _)) => Err(error),
    }
}

/// Ends a call of a transfer that takes too long. In the `first` call of the transfer, checks the type of the file
/// after a second, and refuses a pipe or a socket, and, if it is to be `read`, any other device.
fn stuck<'a>(
    scripts: &'a Scripts,
    at: &'a Location,
    transfer: &'a str,
    first: bool,
    read: bool,
) -> LocalFuture<'a, Error> {
    Box::pin(async move {
        scripts.service().transport().sleep(LOOK_AFTER).await;
        let found = if first { scripts.helper().stat(at, true).await.ok().map(|found| found.kind) } else { None };
        let error = match found {
            Some(FileKind::Other(kind)) if read || matches!(&*kind, "pipe" | "socket") => {
                let message = format!("{}: it is a {kind}, not a regular file", at.path);
                Error::file(FileFault::Other(format!("a {kind}")), &at.path, message)
            }
            _ => {
                scripts.service().transport().sleep(if read { READ_STALL } else { END_WAIT * 2 }).await;
                late(&at.path)
            }
        };
        // Boxed because of the recursion: a signal is sent by a script.
        let exec = exec_ref(at, transfer);
        let kill: LocalFuture<'_, Result<()>> = Box::pin(scripts.end(&exec, KILL_GRACE_TENTHS));
        let _ = within(scripts.service().transport(), KILL_TIME, kill).await;
        error.with_happened(Happened::Unknown)
    })
}

/// Implements `write-file` of the interface. Writes one piece of a file at the byte `offset` and returns the offset of
/// the next piece.
///
/// # Errors
///
/// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the sandbox
/// has ended, `unsupported` if the image lacks the programs for it, `timed-out` if the call takes longer than twenty
/// minutes; otherwise the error of the failed request.
pub async fn write(
    scripts: &Scripts,
    at: &Location,
    transfer: &str,
    options: &WriteOptions,
    offset: u64,
    data: Vec<u8>,
    eof: bool,
) -> Result<u64> {
    check_location(at)?;
    check::transfer(transfer)?;
    check::extra(&options.extra)?;
    options.permissions.map_or(Ok(()), check::permissions)?;
    let argv = if matches!(options.mode, WriteMode::Replace) && options.permissions.is_none() {
        tool_argv("WriteFile", &at.path)
    } else {
        shell::argv(&files::write(&at.path, options, &format!(".{transfer}.tmp")))
    };
    let data = Bytes::from(data);
    let write = async {
        loop {
            let id = scripts.helper().places().script_id(at, transfer);
            let written = write_transfer(scripts, at, &id, argv.clone(), offset, data.clone(), eof).await;
            if !shell::is_elsewhere(scripts.helper(), at, written.as_ref().err()).await {
                return written;
            }
        }
    };
    match select(pin!(write), stuck(scripts, at, transfer, offset == 0, false)).await {
        Either::Left((result, _)) => result,
        Either::Right((error, _)) => Err(error),
    }
}

/// Starts a program if necessary and reads a piece of its output.
pub(crate) async fn read_transfer(
    scripts: &Scripts,
    at: &Location,
    transfer: &str,
    argv: Vec<String>,
    offset: u64,
    max_bytes: u32,
) -> Result<FileChunk> {
    check_location(at)?;
    check::transfer(transfer)?;
    let max = check::max_bytes(max_bytes)?;
    scripts.helper().begin(at, transfer, argv).await?;
    let exec = exec_ref(at, transfer);
    let mut follow = scripts.helper().outputs().take(&exec, 0, offset);
    poll_fn(|cx| follow.poll_fill(cx, max)).await?;
    let data = follow.take(max);
    if !follow.is_ended() {
        scripts.helper().outputs().keep(&exec, 0, follow);
        return Ok(FileChunk { data, end: false });
    }
    scripts.helper().finish(at, transfer).await?;
    Ok(FileChunk { data, end: true })
}

/// Starts a program if necessary and writes a piece of its input. Returns the offset of the next piece.
pub(crate) async fn write_transfer(
    scripts: &Scripts,
    at: &Location,
    transfer: &str,
    argv: Vec<String>,
    offset: u64,
    data: Bytes,
    eof: bool,
) -> Result<u64> {
    check::transfer(transfer)?;
    if data.len() > MAX_WRITE_BYTES {
        return Err(Error::invalid(format!(
            "{} bytes are too many for one piece of a file: send at most {MAX_WRITE_BYTES} at a time.",
            data.len()
        )));
    }
    scripts.helper().begin(at, transfer, argv).await?;
    let end = offset + data.len() as u64;
    let state = stdin::write_much(scripts.service(), &at.sandbox, &ids::wire_uuid(transfer), offset, data, eof)
        .await
        .map_err(|error| if eof { uncertain(error) } else { error })?;
    if !state.closed {
        return Ok(state.accepted);
    }
    // Either this was the last piece, or the program reads no more because it has failed or had read everything before.
    scripts.helper().finish(at, transfer).await.map_err(uncertain)?;
    Ok(end)
}
