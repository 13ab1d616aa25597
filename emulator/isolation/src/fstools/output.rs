//! Prints the results of operations.

use std::io::{self, Write};

use serde::Serialize;

use super::failure::{Failure, Kind, Outcome};

/// Prints one line of JSON to standard output.
pub(crate) fn say(line: &impl Serialize) -> Outcome {
    let mut text = serde_json::to_vec(line).map_err(|error| Failure::new(Kind::Io, error.to_string()))?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// Prints a JSON array, one item at a time, so that it is never in memory as a whole.
pub(crate) fn say_each<T: Serialize>(items: impl Iterator<Item = Outcome<T>>) -> Outcome {
    let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let failed = |error: io::Error| Failure::output(&error);
    let mut before: &[u8] = b"[";
    for item in items {
        out.write_all(before).map_err(failed)?;
        serde_json::to_writer(&mut out, &item?).map_err(|error| failed(error.into()))?;
        before = b",";
    }
    let end: &[u8] = if before == b"[" { b"[]\n" } else { b"]\n" };
    out.write_all(end).and_then(|()| out.flush()).map_err(failed)
}
