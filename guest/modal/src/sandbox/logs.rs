//! Persisted logs of sandboxes (docs/modal-protocol.md, section 6.4).
//!
//! The service returns a limited number of entries for a time span and does not say at which end it left entries out. A
//! span with that many entries is therefore halved until it returns fewer, which means that it is complete.

use std::time::Duration;

use modal_proto::{
    client::{AppFetchLogsRequest, FileDescriptor, SandboxWaitRequest, TaskLogs},
    prost_types::Timestamp,
    rpc,
};

use crate::{
    sandbox::sort::insertion_sort,
    service::{Service, ended, id, wire::output_stream},
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::shown,
        ids,
        wit::{LogChunk, LogPage, LogQuery, OutputStream},
    },
};

/// Number of entries that are requested at a time.
const ENTRIES: u32 = 2000;

/// Maximum number of entries that the service returns at a time. Requested if the shortest span has more than
/// [`ENTRIES`].
const MOST_ENTRIES: u32 = 20_000;

/// The longest span that the service accepts, in nanoseconds: 35 days.
const LONGEST: u64 = 35 * 24 * 3600 * 1_000_000_000;

/// The shortest span that is halved, in nanoseconds. The clocks of the entries are not more precise.
const SHORTEST: u64 = 1_000_000;

/// The position of a reader. Times are in nanoseconds since the Unix epoch.
struct Cursor {
    /// The end of the requested span. The first call sets it, so that reading a growing log ends.
    until: u64,
    /// The time of the next entry.
    from: u64,
    /// Number of entries with this time that were returned.
    entries: usize,
    /// Number of bytes of the next entry that were returned.
    bytes: usize,
}

impl Cursor {
    fn text(&self) -> String {
        format!("{}.{}.{}.{}", self.until, self.from, self.entries, self.bytes)
    }

    fn parse(text: &str) -> Option<Cursor> {
        let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
        let mut next = || parts.next().flatten();
        let (until, from, entries, bytes) = (next()?, next()?, next()?, next()?);
        Some(Cursor { until, from, entries: usize::try_from(entries).ok()?, bytes: usize::try_from(bytes).ok()? })
    }
}

/// Implements `read-logs` of the interface. Reads one page of the persisted log of a sandbox, at most `max_bytes`
/// bytes, also after the sandbox has ended.
///
/// # Errors
///
/// `invalid-argument` for an invalid id or cursor, or a start after the end; `not-found` for an unknown sandbox;
/// otherwise the error of the failed request.
pub async fn read(
    service: &Service,
    sandbox: &str,
    query: &LogQuery,
    cursor: Option<String>,
    max_bytes: u32,
) -> Result<LogPage> {
    id::check_sandbox(sandbox)?;
    let mut room = check::max_bytes(max_bytes)?;
    let mut cursor = begin(service, query, cursor)?;
    let mut request = request(service, sandbox, query).await?;
    let mut end = cursor.until;
    let mut items = Vec::new();
    loop {
        // Begins a little earlier, because it is not known whether the service includes the limits of a span. Other
        // entries are removed below.
        request.since = Some(timestamp(cursor.from.saturating_sub(1000)));
        request.until = Some(timestamp(end));
        let answer = service.control.call("read the sandbox's log", rpc::APP_FETCH_LOGS, &request).await?;
        let mut entries: Vec<TaskLogs> = answer.batches.into_iter().flat_map(|batch| batch.items).collect();
        let span = end.saturating_sub(cursor.from);
        if entries.len() >= request.limit as usize {
            if span > SHORTEST {
                end = cursor.from + span / 2;
                continue;
            }
            if request.limit < MOST_ENTRIES {
                request.limit = MOST_ENTRIES;
                continue;
            }
        }
        request.limit = ENTRIES;
        entries.retain(|entry| (cursor.from..=cursor.until).contains(&at(entry)));
        entries.iter_mut().for_each(attribute);
        insertion_sort(&mut entries, |a, b| at(a) < at(b));
        if !deliver(&entries, &mut cursor, &mut room, &mut items) {
            return Ok(LogPage { items, next: Some(cursor.text()) });
        }
        if end >= cursor.until {
            return Ok(LogPage { items, next: None });
        }
        // Continue with the second half. If an entry of its first moment had been returned, the cursor would be at that
        // moment.
        if cursor.from < end {
            (cursor.from, cursor.entries, cursor.bytes) = (end, 0, 0);
        }
        end = cursor.until;
    }
}

/// Returns the position at which this call begins.
fn begin(service: &Service, query: &LogQuery, cursor: Option<String>) -> Result<Cursor> {
    match cursor {
        Some(text) => Cursor::parse(&text).ok_or_else(|| {
            Error::invalid(format!(
                "`{}` is not a cursor of a log: give the one of the previous page, or none.",
                shown(&text)
            ))
        }),
        None => {
            let until = query.until.map_or_else(|| nanos(service.now()), |until| until.saturating_mul(1_000_000));
            let since = query.since.map_or(0, |since| since.saturating_mul(1_000_000));
            if since > until {
                return Err(Error::invalid("The start of the requested time span is after its end.").about("since"));
            }
            Ok(Cursor { until, from: since.max(until.saturating_sub(LONGEST)), entries: 0, bytes: 0 })
        }
    }
}

/// Makes the request for the log of a sandbox, after looking up its app and task.
async fn request(service: &Service, sandbox: &str, query: &LogQuery) -> Result<AppFetchLogsRequest> {
    let request = SandboxWaitRequest { sandbox_id: sandbox.to_string(), timeout: 0.0 };
    let rpc = if id::is_v1(sandbox) { rpc::SANDBOX_WAIT } else { rpc::SANDBOX_WAIT_V2 };
    let answer = service.control.call("look up the sandbox", rpc, &request).await;
    let app_id = answer.map_err(|error| ended::unknown(sandbox, error))?.metadata.unwrap_or_default().app_id;
    Ok(AppFetchLogsRequest {
        app_id,
        task_id: service.router.accesses().task_id(sandbox).await?,
        limit: ENTRIES,
        source: match query.stream {
            None => FileDescriptor::Unspecified,
            Some(OutputStream::Stdout) => FileDescriptor::Stdout,
            Some(OutputStream::Stderr) => FileDescriptor::Stderr,
        }
        .into(),
        search_text: query.search.clone().unwrap_or_default(),
        ..Default::default()
    })
}

/// Returns entries from the cursor on as far as there is room. Returns `false` if some are left.
fn deliver(entries: &[TaskLogs], cursor: &mut Cursor, room: &mut usize, items: &mut Vec<LogChunk>) -> bool {
    let mut seen = 0;
    for entry in entries {
        let time = at(entry);
        if time > cursor.from {
            (cursor.from, cursor.entries, cursor.bytes) = (time, 0, 0);
            seen = 0;
        }
        seen += 1;
        if seen <= cursor.entries {
            continue;
        }
        let text = entry.data.get(cursor.bytes..).unwrap_or_default();
        let mut fits = text.floor_char_boundary(*room);
        if fits == 0 && items.is_empty() {
            // A character that is larger than the whole room is returned anyway, because the reader would otherwise
            // never make progress.
            fits = text.chars().next().map_or(0, char::len_utf8);
        }
        if fits > 0 {
            items.push(chunk(entry, &text[..fits]));
            *room = room.saturating_sub(fits);
        }
        if fits < text.len() {
            cursor.bytes += fits;
            return false;
        }
        (cursor.entries, cursor.bytes) = (cursor.entries + 1, 0);
    }
    true
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn timestamp(nanos: u64) -> Timestamp {
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: nanos as i32 }
}

/// Returns the time of an entry, in nanoseconds since the Unix epoch.
fn at(entry: &TaskLogs) -> u64 {
    match entry.timestamp_ns {
        0 => Duration::try_from_secs_f64(entry.timestamp).map_or(0, nanos),
        nanos => nanos,
    }
}

/// Adds the name of the sidecar to each line of a sidecar, because the log of a sandbox contains all its containers.
fn attribute(entry: &mut TaskLogs) {
    if !entry.container_name.is_empty() && entry.container_name != ids::MAIN {
        let lines = entry.data.split_inclusive('\n').map(|line| format!("{} | {line}", entry.container_name));
        entry.data = lines.collect();
    }
}

fn chunk(entry: &TaskLogs, text: &str) -> LogChunk {
    LogChunk { stream: output_stream(entry), text: text.to_string(), at: Some(at(entry) / 1_000_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let cursor = Cursor { until: u64::MAX, from: 7, entries: 3, bytes: 9 };
        assert_eq!(Cursor::parse(&cursor.text()).unwrap().text(), cursor.text());
        for text in ["", "1.2.3", "a.b.c.d", "1.2.3.-4", "99999999999999999999.1.1.1"] {
            assert!(Cursor::parse(text).is_none(), "{text}");
        }
    }
}
