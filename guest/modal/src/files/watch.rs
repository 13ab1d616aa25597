//! Watches changes below a path with the helper's operation `Watch`, which prints one JSON object per line
//! (docs/modal-protocol.md, section 8.1). The position of a watch is the offset of a line in this output, so any
//! instance can continue it.

use std::{future::poll_fn, task::Poll};

use crate::exec::{
    helper::{check_location, exec_ref, tool},
    process::{self, Exit},
    script::Scripts,
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check, ids,
        time::bounded_wait,
        wit::{FileEvent, FileEventKind, Location, WatchPage},
    },
    call::json::{Value, object},
};

/// Maximum number of events of one page, as for the entries of a directory.
const MAX_EVENTS: u32 = 10_000;

/// Implements `watch` of the interface. Returns at most `max_events` events below a path since `position`, which is 0
/// in the first call.
///
/// # Errors
///
/// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the sandbox
/// has ended; otherwise the error of the failed request.
pub async fn watch(
    scripts: &Scripts,
    at: &Location,
    watch: &str,
    recursive: bool,
    position: u64,
    max_events: u32,
    wait: u64,
) -> Result<WatchPage> {
    check_location(at)?;
    check::transfer(watch)?;
    if max_events == 0 {
        return Err(Error::invalid("max-events is 0: request at least one event."));
    }
    let argument = object([
        ("path", at.path.as_str().into()),
        ("recursive", recursive.into()),
        ("filter", Value::Null),
        ("timeout_secs", Value::Null),
    ]);
    scripts.helper().begin(at, watch, tool("Watch", argument)).await?;
    let exec = exec_ref(at, watch);
    let mut follow = scripts.helper().outputs().take(&exec, 0, position);
    let mut timer = scripts.service().transport().sleep(bounded_wait(wait));
    poll_fn(|cx| match follow.poll_line(cx) {
        Poll::Pending => timer.as_mut().poll(cx).map(Ok),
        ready => ready,
    })
    .await?;
    let mut events = Vec::new();
    while events.len() < max_events.min(MAX_EVENTS) as usize
        && let Some(line) = follow.take_line()
    {
        events.push(event(&line)?);
    }
    let (next, end) = (follow.offset(), follow.is_ended());
    if !end {
        scripts.helper().outputs().keep(&exec, 0, follow);
    } else if !matches!(
        process::wait_exit(scripts.service(), &at.sandbox, &ids::wire_uuid(watch), std::time::Duration::ZERO).await?,
        // A signal is the documented way to end a watch.
        Some(Exit::Signal(_))
    ) {
        scripts.helper().finish(at, watch).await?;
    }
    Ok(WatchPage { events, next, end })
}

fn event(line: &[u8]) -> Result<FileEvent> {
    let read = || {
        let line = Value::parse(std::str::from_utf8(line).ok()?)?;
        let Value::List(paths) = line.get("paths") else { return None };
        let paths: Option<Vec<_>> = paths.iter().map(|path| path.text().map(str::to_string)).collect();
        Some((line.get("event_type").text()?.to_string(), paths?))
    };
    let (name, paths) =
        read().ok_or_else(|| Error::internal("A change report of the sandbox's file helper is malformed."))?;
    let kind = match name.as_str() {
        "Create" => FileEventKind::Created,
        "Modify" | "Rename" | "RenameFrom" | "RenameTo" => FileEventKind::Modified,
        "Remove" => FileEventKind::Removed,
        "Access" => FileEventKind::Accessed,
        _ => FileEventKind::Other(name),
    };
    Ok(FileEvent { kind, paths })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_events() {
        let kind = |name: &str| event(format!(r#"{{"event_type":"{name}","paths":["/a"]}}"#).as_bytes()).unwrap().kind;
        assert!(matches!(kind("Create"), FileEventKind::Created));
        assert!(matches!(kind("RenameTo"), FileEventKind::Modified));
        assert!(matches!(kind("Remove"), FileEventKind::Removed));
        assert!(matches!(kind("Access"), FileEventKind::Accessed));
        assert!(matches!(kind("Unknown"), FileEventKind::Other(name) if name == "Unknown"));
        for bad in [&b""[..], b"{}", b"[]", b"\xff", br#"{"event_type":1,"paths":[]}"#] {
            assert!(event(bad).is_err());
        }
    }
}
