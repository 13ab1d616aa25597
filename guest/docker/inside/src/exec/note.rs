//! The verb `note`: what the provider keeps about the sandbox, such as its tags.
//!
//! A note is a file of the directory `state`, which the provider reads by the archive API while the container runs. It is
//! also printed to the log of the container, because some engines cannot read files of a container that has ended without
//! damage. In the log, a note is `RS sandbox-note NAME TEXT US` with the control characters RS (30) and US (31).

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
};

use rustix::fs::OFlags;

use crate::{
    answer::{Answer, Failure, send},
    args::Args,
    base::make_dir,
    context::Context,
};

/// The directory of the notes.
pub const FOLDER: &str = "state";

/// The standard error of the first process, which the engine keeps as the log.
const LOG: &str = "/proc/1/fd/2";

/// Prints a note to the log.
///
/// # Errors
///
/// Fails if the log cannot be written.
pub fn print(log: &mut impl Write, name: &str, text: &str) -> io::Result<()> {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    log.write_all(format!("\u{1e}sandbox-note {name} {text}\u{1f}\n").as_bytes())
}

/// Writes a note. A repeated call replaces it.
///
/// # Errors
///
/// Fails if the disk is full.
pub fn note(args: &Args, context: &mut Context) -> Answer {
    let name = args.required("name")?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Err(Failure::invalid("name", "The name of a note consists of the letters a to z."));
    }
    let text = args.text("text").unwrap_or_default();
    if text.contains(char::is_control) {
        return Err(Failure::invalid("text", "A note contains no control characters."));
    }
    let failed = |error: io::Error| Failure::internal(name, error);
    let folder = context.base.file(FOLDER);
    make_dir(&folder).map_err(failed)?;
    let draft = folder.join(format!(".{name}-{}", std::process::id()));
    fs::write(&draft, text).and_then(|()| fs::rename(&draft, folder.join(name))).map_err(failed)?;
    let flags = OFlags::NONBLOCK.bits() as i32;
    if let Ok(mut log) = OpenOptions::new().write(true).custom_flags(flags).open(LOG) {
        // The file is what counts while the container runs.
        let _ = print(&mut log, name, text);
    }
    send(b'.', "")
}
