//! The verb `read-file`, and the answers of all downloads.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::FileExt,
};

use rustix::fs::{Mode, OFlags, open};

use crate::{
    answer::{Answer, Failure, MAX_DATA, send, send_json},
    args::Args,
    context::Context,
    files::{
        access::{Access, file_failure, is_a_directory, path_of},
        copy::{copy_regular, copy_stream},
        transfer::Transfer,
    },
    json,
};

/// Most bytes of a file that is read into memory instead of a copy on the disk.
const MAX_DIRECT: u64 = 4 * 1024 * 1024;

/// Which bytes of a download are asked for.
pub struct Wanted {
    offset: u64,
    /// Most bytes in the answer.
    pub max: u64,
}

impl Wanted {
    /// The arguments `offset` and `max`.
    ///
    /// # Errors
    ///
    /// Fails if one is no number.
    pub fn of(args: &Args) -> Answer<Self> {
        let max = args.number("max")?.unwrap_or(u64::MAX);
        Ok(Self { offset: args.number("offset")?.unwrap_or(0), max: max.max(1) })
    }
}

/// Sends a piece of a file.
///
/// # Errors
///
/// Fails if it does not exist, is a directory, or the user must not read it.
pub fn read_file(args: &Args, context: &mut Context) -> Answer {
    let path = path_of(args, "path")?;
    let access = Access::of(args)?;
    let wanted = Wanted::of(args)?;
    let transfer = Transfer::of(args, context)?;
    if let Some(spool) = transfer.spooled()? {
        return answer_spooled(&transfer, &spool, &wanted);
    }
    begin(&wanted, args)?;
    let (mut file, metadata) = access.with(&path, || {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(open(&path, flags, Mode::empty())?);
        let metadata: Metadata = file.metadata()?;
        Ok((file, metadata))
    })?;
    if metadata.is_dir() {
        return Err(is_a_directory(&path));
    }
    let failed = |error: io::Error| file_failure(&path, &error);
    let direct = wanted.max.min(MAX_DIRECT);
    if metadata.is_file() && metadata.len() <= direct {
        let mut content = Vec::new();
        (&mut file).take(direct).read_to_end(&mut content).map_err(failed)?;
        let at_end = file.read(&mut [0]).map_err(failed)? == 0;
        if at_end {
            return answer_whole(&content);
        }
        // It grew meanwhile, or it is a file of /proc, which says that it is empty.
        io::Seek::rewind(&mut file).map_err(failed)?;
    }
    let regular = metadata.is_file() && metadata.len() > 0;
    let spool = transfer.spool(|spool| {
        if regular { copy_regular(&mut file, spool) } else { copy_stream(&mut file, spool) }.map_err(failed)
    })?;
    answer_spooled(&transfer, &spool, &wanted)
}

/// Checks that a download that has no spool is at its begin.
///
/// # Errors
///
/// Fails if it is not: its spool was removed with the answer that had its end.
pub fn begin(wanted: &Wanted, args: &Args) -> Answer {
    if wanted.offset == 0 {
        return Ok(());
    }
    let id = args.required("transfer")?;
    Err(Failure::new("not-found", id, format_args!("The transfer {id:?} has ended or was not begun.")))
}

/// Sends a download that fits one answer.
///
/// # Errors
///
/// Fails if the reader of the answer has gone.
pub fn answer_whole(content: &[u8]) -> Answer {
    for piece in content.chunks(MAX_DATA) {
        send(b'd', piece)?;
    }
    finish(true)
}

/// Sends a piece of a spooled download, and removes the transfer with the last one.
///
/// # Errors
///
/// Fails if the spool cannot be read.
pub fn answer_spooled(transfer: &Transfer, spool: &File, wanted: &Wanted) -> Answer {
    let failed = |error: io::Error| Failure::internal("transfer", error);
    let length = spool.metadata().map_err(failed)?.len();
    let mut offset = wanted.offset.min(length);
    let end = length.min(offset.saturating_add(wanted.max));
    let mut buffer = Vec::new();
    while offset < end {
        let size = (end - offset).min(MAX_DATA as u64);
        buffer.resize(size as usize, 0);
        spool.read_exact_at(&mut buffer, offset).map_err(failed)?;
        send(b'd', &buffer)?;
        offset += size;
    }
    if end == length {
        transfer.remove();
    }
    finish(end == length)
}

fn finish(end: bool) -> Answer {
    send_json(&json::Object::new().flag("end", end).end())
}
