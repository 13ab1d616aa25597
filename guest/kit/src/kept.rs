//! Output, input, files and lists that a provider keeps in its own memory, for services that have no byte offsets and no
//! pages: those that return the output of a command as a whole, or accept a file only as a whole.

use std::{collections::BTreeMap, time::Duration};

use crate::api::{
    check,
    error::{Error, Result},
    wit::{
        ExecSpec, FileChunk, FileFault, InputState, ListFilter, Output, OutputChunk, OutputMode, ReadRequest,
        SandboxInfo, SandboxPage, SandboxState, Verdict,
    },
};

/// One command: its output, the state of its input, and its end.
///
/// ```
/// use std::time::Duration;
///
/// use sandbox_provider_kit::{api::wit::{ExecSpec, OutputMode, ReadRequest, Verdict}, kept::Command};
///
/// # fn example(spec: &ExecSpec, now: Duration) -> sandbox_provider_kit::Result<()> {
/// let mut command = Command::new(spec, now);
/// command.print(b"hello");
/// command.end_at(now, Verdict::Exited(0));
/// let request = ReadRequest { stdout_offset: 3, stderr_offset: 0, max_bytes: 100, wait: 0 };
/// assert_eq!(command.read(&request, now)?.stdout.data, b"lo");
/// # Ok(())
/// # }
/// ```
pub struct Command {
    stdout: Stream,
    stderr: Stream,
    accepted: u64,
    open: bool,
    end: Option<(Duration, Verdict)>,
}

struct Stream {
    data: Vec<u8>,
    mode: OutputMode,
}

impl Stream {
    fn push(&mut self, data: &[u8]) {
        if self.mode == OutputMode::Keep {
            self.data.extend(data);
        }
    }
}

impl Command {
    /// Makes a command that starts at `now`, the time since the Unix epoch. It ends with the verdict `deadline` when the
    /// time limit of the specification has passed.
    #[must_use]
    pub fn new(spec: &ExecSpec, now: Duration) -> Command {
        let stream = |mode| Stream { data: Vec::new(), mode };
        let end = spec.timeout.map(|limit| (now.saturating_add(Duration::from_millis(limit)), Verdict::Deadline));
        Command { stdout: stream(spec.stdout), stderr: stream(spec.stderr), accepted: 0, open: false, end }
    }

    /// Appends to standard output.
    pub fn print(&mut self, data: &[u8]) {
        self.stdout.push(data);
    }

    /// Appends to standard error.
    pub fn print_error(&mut self, data: &[u8]) {
        self.stderr.push(data);
    }

    /// Sets when and how the command ends. The earliest end is the one that counts.
    pub fn end_at(&mut self, at: Duration, verdict: Verdict) {
        if self.end.as_ref().is_none_or(|(earliest, _)| at < *earliest) {
            self.end = Some((at, verdict));
        }
    }

    /// Returns how the command has ended, or `None` while it runs.
    #[must_use]
    pub fn verdict(&self, now: Duration) -> Option<Verdict> {
        self.end.as_ref().filter(|(at, _)| *at <= now).map(|(_, verdict)| verdict.clone())
    }

    /// Answers `read-output`.
    ///
    /// # Errors
    ///
    /// `invalid-argument` if the request is for 0 bytes.
    pub fn read(&self, request: &ReadRequest, now: Duration) -> Result<Output> {
        let max = check::max_bytes(request.max_bytes)?;
        let verdict = self.verdict(now);
        let stdout = piece(&self.stdout.data, request.stdout_offset, max, verdict.is_some());
        let rest = max - stdout.data.len();
        let stderr = piece(&self.stderr.data, request.stderr_offset, rest, verdict.is_some());
        let verdict = verdict.filter(|_| stdout.end && stderr.end);
        Ok(Output { stdout, stderr, verdict })
    }

    /// Opens the input, for a command that reads it. Without this call the input is closed.
    #[must_use]
    pub fn with_input(mut self) -> Command {
        self.open = true;
        self
    }

    /// Takes a write to standard input. Returns the answer, and those bytes that were not accepted before, or `None` if
    /// the input had been closed or the command had ended.
    ///
    /// # Errors
    ///
    /// `invalid-argument` if `offset` is beyond the bytes that were accepted so far.
    pub fn accept<'a>(
        &mut self,
        offset: u64,
        data: &'a [u8],
        eof: bool,
        now: Duration,
    ) -> Result<(InputState, Option<&'a [u8]>)> {
        let mut new = None;
        self.open &= self.verdict(now).is_none();
        if self.open {
            let rest = unseen(self.accepted, offset, data)?;
            self.accepted += rest.len() as u64;
            self.open = !eof;
            new = Some(rest);
        }
        Ok((InputState { accepted: self.accepted, closed: !self.open }, new))
    }
}

/// The transfers of whole files that are read or written piece by piece.
#[derive(Default)]
pub struct Transfers(BTreeMap<String, Transfer>);

#[derive(Default)]
struct Transfer {
    content: Vec<u8>,
    complete: bool,
}

impl Transfers {
    /// Answers `read-file`. The first call of a transfer takes the content from `open`; later calls return pieces of
    /// the same content.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for a transfer id in another form, or for 0 bytes; the error of `open`.
    pub fn read(
        &mut self,
        transfer: &str,
        offset: u64,
        max_bytes: u32,
        open: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<FileChunk> {
        check::transfer(transfer)?;
        let max = check::max_bytes(max_bytes)?;
        if !self.0.contains_key(transfer) {
            self.0.insert(transfer.to_string(), Transfer { content: open()?, complete: true });
        }
        let OutputChunk { data, end, .. } = piece(&self.0[transfer].content, offset, max, true);
        Ok(FileChunk { data, end })
    }

    /// Takes a piece of `write-file`. Returns the offset of the next piece, and the whole content if this call
    /// completed it. `taken` says that the path exists and must not be replaced.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for a transfer id in another form, or if `offset` is beyond the pieces so far;
    /// `file(already-exists)` about `path` if it is taken by another transfer.
    pub fn write(
        &mut self,
        path: &str,
        transfer: &str,
        offset: u64,
        data: &[u8],
        eof: bool,
        taken: bool,
    ) -> Result<(u64, Option<Vec<u8>>)> {
        check::transfer(transfer)?;
        let held = self.0.entry(transfer.to_string()).or_default();
        let new = unseen(held.content.len() as u64, offset, data)?;
        if held.complete {
            return Ok((held.content.len() as u64, None));
        }
        if taken {
            return Err(Error::file(FileFault::AlreadyExists, path, "The file exists, and was not to be replaced."));
        }
        held.content.extend(new);
        held.complete = eof;
        Ok((held.content.len() as u64, eof.then(|| held.content.clone())))
    }

    /// Ends a transfer, and drops an incomplete file. Returns whether there was one.
    pub fn end(&mut self, transfer: &str) -> bool {
        self.0.remove(transfer).is_some()
    }
}

/// Returns whether an answer of `read-output` has anything new, so that the call need not wait.
#[must_use]
pub fn is_news(output: &Output) -> bool {
    output.verdict.is_some() || !output.stdout.data.is_empty() || !output.stderr.data.is_empty()
}

/// Answers `list` from all sandboxes, which come newest first. The cursor is the id of the last sandbox of a page, so
/// `all` has to contain ended sandboxes too as long as the provider knows them.
///
/// # Errors
///
/// `invalid-argument` if `max` is 0, the cursor is unknown or the filter has extra fields.
pub fn page(
    all: impl IntoIterator<Item = SandboxInfo>,
    filter: &ListFilter,
    cursor: Option<&str>,
    max: u32,
) -> Result<SandboxPage> {
    check::extra(&filter.extra)?;
    if max == 0 {
        return Err(Error::invalid("max is 0: ask for at least one sandbox.").about("max"));
    }
    let mut all = all.into_iter();
    if let Some(cursor) = cursor
        && !all.any(|info| info.id == cursor)
    {
        return Err(Error::invalid("The cursor is unknown: give the one of the last page.").about("cursor"));
    }
    let mut chosen = all.filter(|info| {
        let ended = matches!(info.state, SandboxState::Ended(_));
        (filter.include_ended || !ended) && filter.tags.iter().all(|tag| info.tags.contains(tag))
    });
    let items: Vec<_> = chosen.by_ref().take(max as usize).collect();
    let more = chosen.next().is_some();
    Ok(SandboxPage { next: items.last().filter(|_| more).map(|info| info.id.clone()), items })
}

/// Returns at most `max` bytes from `offset`. The stream ends after them if it is `complete` and there are no more.
fn piece(all: &[u8], offset: u64, max: usize, complete: bool) -> OutputChunk {
    let rest = usize::try_from(offset).ok().and_then(|from| all.get(from..)).unwrap_or_default();
    let data = &rest[..rest.len().min(max)];
    OutputChunk { offset, data: data.to_vec(), end: complete && data.len() == rest.len() }
}

/// Returns those bytes of a piece at `offset` that come after the first `held` bytes.
fn unseen(held: u64, offset: u64, data: &[u8]) -> Result<&[u8]> {
    let repeated = held.checked_sub(offset).ok_or_else(|| {
        Error::invalid(format!("The offset {offset} leaves a gap: {held} bytes have arrived, so go on there."))
    })?;
    Ok(usize::try_from(repeated).ok().and_then(|from| data.get(from..)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::records::{exec_spec, sandbox_info};

    const NOW: Duration = Duration::from_secs(1000);

    fn command(change: impl FnOnce(&mut ExecSpec)) -> Command {
        let mut spec = exec_spec("e", &["true"]);
        change(&mut spec);
        Command::new(&spec, NOW)
    }

    #[test]
    fn output_is_read_in_pieces_and_the_verdict_comes_last() {
        let mut command = command(|_| {});
        command.print(b"abc");
        command.print_error(b"xy");
        let read = |command: &Command, stdout_offset, stderr_offset, max_bytes| {
            command.read(&ReadRequest { stdout_offset, stderr_offset, max_bytes, wait: 0 }, NOW)
        };
        let running = read(&command, 3, 2, 4).unwrap();
        assert!(!running.stdout.end && running.verdict.is_none() && !is_news(&running));
        command.end_at(NOW, Verdict::Exited(0));
        let first = read(&command, 0, 0, 4).unwrap();
        assert_eq!((&first.stdout.data[..], &first.stderr.data[..]), (&b"abc"[..], &b"x"[..]));
        assert!(first.stdout.end && !first.stderr.end && first.verdict.is_none());
        let last = read(&command, 3, 1, 4).unwrap();
        assert_eq!((last.stderr.offset, &last.stderr.data[..]), (1, &b"y"[..]));
        assert!(last.stderr.end && last.verdict.is_some());
        assert!(read(&command, 0, 0, 0).is_err());
    }

    #[test]
    fn the_earliest_end_counts() {
        let mut command = command(|spec| spec.timeout = Some(2000));
        command.end_at(NOW + Duration::from_secs(3), Verdict::Exited(0));
        assert!(command.verdict(NOW + Duration::from_millis(1999)).is_none());
        assert!(matches!(command.verdict(NOW + Duration::from_secs(9)), Some(Verdict::Deadline)));
        command.end_at(NOW + Duration::from_secs(1), Verdict::Signaled(9));
        assert!(matches!(command.verdict(NOW + Duration::from_secs(1)), Some(Verdict::Signaled(9))));
    }

    #[test]
    fn discarded_output_is_empty() {
        let mut command = command(|spec| spec.stdout = OutputMode::Discard);
        command.print(b"abc");
        let request = ReadRequest { stdout_offset: 0, stderr_offset: 0, max_bytes: 9, wait: 0 };
        assert!(command.read(&request, NOW).unwrap().stdout.data.is_empty());
    }

    #[test]
    fn repeated_input_is_skipped_and_a_gap_is_refused() {
        let mut command = command(|_| {});
        assert!(command.accept(0, b"a", false, NOW).unwrap().0.closed);
        let mut command = command.with_input();
        let mut accept = |offset, data: &'static [u8], eof| command.accept(offset, data, eof, NOW);
        assert_eq!(accept(0, b"abc", false).unwrap().1, Some(&b"abc"[..]));
        assert_eq!(accept(1, b"bcd", false).unwrap().1, Some(&b"d"[..]));
        assert_eq!(accept(0, b"ab", false).unwrap().1, Some(&b""[..]));
        assert!(accept(5, b"f", false).is_err());
        let (state, _) = accept(4, b"", true).unwrap();
        assert!(state.closed && state.accepted == 4);
        assert_eq!(accept(4, b"e", false).unwrap().1, None);
    }

    #[test]
    fn lists_have_pages() {
        let info = |id: &str, tag: &str| SandboxInfo { tags: vec![("t".into(), tag.into())], ..sandbox_info(id) };
        let all = [info("c", "1"), info("x", "2"), info("b", "1"), info("a", "1")];
        let filter = ListFilter { tags: vec![("t".into(), "1".into())], include_ended: false, extra: Vec::new() };
        let read = |cursor: Option<&str>, max| page(all.clone(), &filter, cursor, max);
        let ids = |page: &SandboxPage| page.items.iter().map(|info| info.id.clone()).collect::<Vec<_>>();
        let first = read(None, 2).unwrap();
        assert_eq!((ids(&first), first.next.as_deref()), (vec!["c".to_string(), "b".to_string()], Some("b")));
        let last = read(first.next.as_deref(), 2).unwrap();
        assert_eq!((ids(&last), last.next), (vec!["a".to_string()], None));
        assert!(read(None, 0).is_err() && read(Some("z"), 1).is_err());
    }

    #[test]
    fn a_file_is_complete_once() {
        let mut transfers = Transfers::default();
        let mut write = |id, offset, data: &[u8], eof, taken| transfers.write("/a", id, offset, data, eof, taken);
        assert_eq!(write("t", 0, b"ab", false, false).unwrap(), (2, None));
        assert_eq!(write("t", 1, b"bc", true, false).unwrap(), (3, Some(b"abc".to_vec())));
        assert_eq!(write("t", 1, b"bc", true, true).unwrap(), (3, None), "a repetition succeeds");
        assert!(write("other", 0, b"", true, true).is_err());
        assert!(write("main", 0, b"", true, false).is_err());
        let mut read = |offset, max, content: &[u8]| transfers.read("r", offset, max, || Ok(content.to_vec())).unwrap();
        assert_eq!(read(0, 2, b"new").data, b"ne");
        let rest = read(2, 2, b"another");
        assert!(rest.end && rest.data == b"w");
        assert!(transfers.end("r") && !transfers.end("r"));
    }
}
