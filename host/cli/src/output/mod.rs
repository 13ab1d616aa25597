//! How the program speaks: results on stdout, everything else on stderr, failures in three parts.
//!
//! What a service, a sandbox or a plugin says could steer the terminal or pass for a line of this program. So this module
//! alone prints, and prints lines only as [`Line`]s, which hold nothing of that kind, wherever their parts come from.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use sandbox_host::{FileFault, Kind};

/// Our own failures.
pub const FAILED: i32 = 125;
/// The command's time limit ran out.
pub const DEADLINE: i32 = 124;
/// The command was killed because our output was not read any more: what a shell says of SIGPIPE.
pub const UNREAD: i32 = 128 + 13;
/// Ctrl-C.
pub const INTERRUPTED: i32 = 130;

/// Anything that takes longer than this shows that it is under way.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two lines of a transfer.
const LINES: Duration = Duration::from_secs(10);

/// A failure of this program: what, why, and what to do.
#[derive(Debug)]
pub struct Failure {
    what: String,
    why: String,
    hint: Option<String>,
    kind: String,
}

impl Failure {
    /// `what` continues "cannot …".
    pub fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Failure { what: what.into(), why: why.into(), hint: None, kind: "usage".into() }
    }

    /// Reading or writing on this side failed.
    pub fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        let kind = format!("io:{}", kebab(&format!("{:?}", error.kind())));
        Failure { kind, ..Failure::new(what, sandbox_host::local_reason(error)) }
    }

    /// The same failure, of whose hint the program knows more than the library.
    pub fn of(error: &sandbox_host::Error) -> Self {
        let (what, why, hint) = error.parts();
        Failure { what: what.into(), why: why.into(), hint: hint.map(str::to_owned), kind: kind_of(error) }
    }

    /// A better reason.
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// What to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.why)
    }
}

impl std::error::Error for Failure {}

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// Results as JSON.
    pub json: bool,
    quiet: bool,
    color: bool,
    terminal: bool,
}

impl Voice {
    /// From the options and what stderr is.
    pub fn new(json: bool, quiet: bool, no_color: bool) -> Voice {
        let terminal = std::io::stderr().is_terminal();
        let color = terminal && !no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Voice { json, quiet, color, terminal }
    }

    /// With `--json`, the result of a command that has nothing to say to people when all is well.
    pub fn result(&self, value: serde_json::Value) -> anyhow::Result<()> {
        if self.json { print_json(value) } else { Ok(()) }
    }

    /// Text for people, on stderr.
    pub fn say(&self, text: impl Into<Line>) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// What has to be known, quiet or not.
    pub fn warn(&self, text: impl Into<Line>) {
        let _ = writeln!(std::io::stderr(), "{}", text.into().0);
    }

    /// A piece of a build log, on stderr.
    pub fn log(&self, text: &str) {
        if self.quiet {
            return;
        }
        let mut stderr = std::io::stderr().lock();
        let text = printable(text);
        let _ = if self.color { write!(stderr, "\x1b[2m{text}\x1b[0m") } else { write!(stderr, "{text}") };
        let _ = stderr.flush();
    }

    /// Shows that something is under way, once it has taken a second, until dropped.
    pub fn step(&self, text: impl Into<Line>) -> Step {
        if self.quiet {
            return Step { task: None, bar: None };
        }
        let text = text.into().0;
        if self.terminal {
            let bar = ProgressBar::hidden();
            let shown = bar.clone();
            let task = tokio::spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                shown.set_style(ProgressStyle::default_spinner());
                shown.set_message(text);
                shown.set_draw_target(indicatif::ProgressDrawTarget::stderr());
                shown.enable_steady_tick(Duration::from_millis(120));
            });
            return Step { task: Some(task), bar: Some(bar) };
        }
        let task = tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            let _ = writeln!(std::io::stderr(), "{text} …");
        });
        Step { task: Some(task), bar: None }
    }

    /// Shows how far a transfer is, once it has taken a second. `size` if it is known.
    pub fn transfer(&self, text: impl Into<Line>, size: Option<u64>) -> Transfer {
        let bar = ProgressBar::hidden();
        if let Some(size) = size {
            bar.set_length(size);
        }
        let text = text.into().0;
        bar.set_message(text.clone());
        let step = if self.quiet {
            Step { task: None, bar: None }
        } else if self.terminal {
            let shown = bar.clone();
            let style = if size.is_some() {
                "{msg} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec}"
            } else {
                "{spinner} {msg} {bytes} {binary_bytes_per_sec}"
            };
            let task = tokio::spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                if let Ok(style) = ProgressStyle::with_template(style) {
                    shown.set_style(style.progress_chars("=> "));
                }
                shown.set_draw_target(indicatif::ProgressDrawTarget::stderr());
                // Also while nothing moves.
                shown.enable_steady_tick(Duration::from_millis(200));
            });
            Step { task: Some(task), bar: Some(bar.clone()) }
        } else {
            // Lines for a log: that it has begun, and then how far it is.
            let at = bar.clone();
            let task = tokio::spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                loop {
                    let done = indicatif::BinaryBytes(at.position());
                    let _ = match at.length() {
                        Some(size) => {
                            writeln!(std::io::stderr(), "{text}: {done} of {}", indicatif::BinaryBytes(size))
                        }
                        None => writeln!(std::io::stderr(), "{text}: {done}"),
                    };
                    tokio::time::sleep(LINES).await;
                }
            });
            Step { task: Some(task), bar: None }
        };
        Transfer { bar, _step: step }
    }

    /// Reports a failure in three parts, or as JSON on stdout.
    pub fn fail(&self, error: &anyhow::Error) {
        let (what, why, hint) = parts(error);
        if self.json {
            let value = serde_json::json!({ "error": {
                "kind": kind(error), "what": what, "why": why, "hint": hint, "retryable": retryable(error),
            }});
            if print_json(value).is_ok() {
                return;
            }
        }
        let mut stderr = std::io::stderr().lock();
        let (red, bold, plain) = if self.color { ("\x1b[31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let _ = writeln!(stderr, "{red}error:{plain} {bold}cannot {}{plain}", inline(&what));
        // Further lines are deeper than ours: what a service says cannot pass for advice.
        for (line, indent) in why.lines().zip(std::iter::once("  ").chain(std::iter::repeat("    "))) {
            let _ = writeln!(stderr, "{indent}{}", inline(line));
        }
        if let Some(hint) = hint {
            let _ = writeln!(stderr, "  {bold}try:{plain} {}", printable(&hint).replace('\n', "\n    "));
        }
        if let Some(trace) = error.downcast_ref::<sandbox_host::Error>().and_then(|error| error.guest_backtrace()) {
            let _ = writeln!(stderr, "  in the plugin:");
            for line in trace.lines().take(30) {
                let _ = writeln!(stderr, "    {}", printable(line));
            }
        }
    }
}

/// Something under way; dropping it takes the sign away.
pub struct Step {
    task: Option<tokio::task::JoinHandle<()>>,
    bar: Option<ProgressBar>,
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// A transfer under way.
pub struct Transfer {
    bar: ProgressBar,
    _step: Step,
}

impl Transfer {
    /// Moves it to where it is, of how much there is.
    pub fn at(&self, position: u64, size: u64) {
        self.bar.set_length(size);
        self.bar.set_position(position);
    }

    /// Moves it to where it is.
    pub fn to(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Counts what has passed.
    pub fn add(&self, length: u64) {
        self.bar.inc(length);
    }

    /// Counts what passes.
    pub fn wrap<T>(&self, stream: T) -> Counted<T> {
        Counted { stream, bar: self.bar.clone() }
    }
}

pin_project_lite::pin_project! {
    /// A stream that moves a progress bar.
    pub struct Counted<T> {
        #[pin]
        stream: T,
        bar: ProgressBar,
    }
}

impl<T: tokio::io::AsyncRead> tokio::io::AsyncRead for Counted<T> {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let polled = this.stream.poll_read(cx, buf);
        this.bar.inc((buf.filled().len() - before) as u64);
        polled
    }
}

impl<T: tokio::io::AsyncWrite> tokio::io::AsyncWrite for Counted<T> {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let this = self.project();
        let polled = this.stream.poll_write(cx, data);
        if let std::task::Poll::Ready(Ok(size)) = &polled {
            this.bar.inc(*size as u64);
        }
        polled
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}

fn parts(error: &anyhow::Error) -> (String, String, Option<String>) {
    if let Some(error) = error.downcast_ref::<sandbox_host::Error>() {
        let (what, why, hint) = error.parts();
        let why = match error.provider_code() {
            Some(code) => format!("{why}\n[{code}]"),
            None => why.to_owned(),
        };
        return (what.to_owned(), why, hint.or_else(|| advice(error)).map(str::to_owned));
    }
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return (failure.what.clone(), failure.why.clone(), failure.hint.clone());
    }
    let mut chain = error.chain();
    let first = chain.next().map(ToString::to_string).unwrap_or_default();
    let rest: Vec<_> = chain.map(ToString::to_string).collect();
    if rest.is_empty() { ("go on".into(), first, None) } else { (first, rest.join(": "), None) }
}

/// A word for each kind of failure, for programs. What has a kind within it comes with a second one: `file:not-found`.
fn kind(error: &anyhow::Error) -> String {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.kind.clone();
    }
    error.downcast_ref::<sandbox_host::Error>().map_or_else(|| "internal".into(), kind_of)
}

fn kind_of(error: &sandbox_host::Error) -> String {
    let (name, within) = match error.kind() {
        Kind::Other(name) => return name.clone(),
        Kind::File(FileFault::Other(_)) => ("File".to_owned(), Some("Other".to_owned())),
        Kind::File(fault) => ("File".to_owned(), Some(format!("{fault:?}"))),
        Kind::Plugin(fault) => ("Plugin".to_owned(), Some(format!("{fault:?}"))),
        Kind::Trap(cause) => ("Trap".to_owned(), Some(format!("{cause:?}"))),
        Kind::Io(kind) => ("Io".to_owned(), Some(format!("{kind:?}"))),
        kind => (format!("{kind:?}"), None),
    };
    within.into_iter().fold(kebab(&name), |name, within| format!("{name}:{}", kebab(&within)))
}

/// `NotFound` as `not-found`.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars().take_while(|c| c.is_ascii_alphanumeric()) {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// What was typed is not understood, for those who asked for JSON.
pub fn fail_usage(error: &clap::Error) {
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(str::trim);
    let why = parts.next().unwrap_or_default().trim_start_matches("error: ");
    let hint = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n");
    let value = serde_json::json!({ "error": {
        "kind": "usage", "what": "understand the command line", "why": why, "hint": hint, "retryable": false,
    }});
    let _ = print_json(value);
}

/// What to do, where the failure itself does not say it.
fn advice(error: &sandbox_host::Error) -> Option<&'static str> {
    let (_, why, _) = error.parts();
    Some(match error.kind() {
        Kind::NotFound if why.contains("no sandbox ") => {
            "`sandbox list` shows the sandboxes that run, `sandbox list --all` the others too"
        }
        Kind::InvalidArgument if why.contains("sandbox id") => "`sandbox list` shows the ids of sandboxes",
        Kind::AlreadyExists => "choose another name, or end what has it",
        Kind::File(FileFault::NotFound) => "`sandbox ls ID:/DIRECTORY` shows what is there",
        Kind::File(FileFault::NotEmpty) => "use -r",
        Kind::PermissionDenied => "use credentials that may do this",
        Kind::ResourceExhausted | Kind::TimedOut => "try again later",
        Kind::Unavailable => "try again; `sandbox doctor` looks at what is needed",
        Kind::BuildFailed => "correct the line, and build again",
        Kind::Internal => "try again; -vv shows more of what happens",
        _ => return None,
    })
}

fn retryable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<sandbox_host::Error>().is_some_and(sandbox_host::Error::is_retryable)
}

/// A line fit to be printed: control characters, line ends and changes of the writing direction are shown as escapes. It
/// can be made of any text and read by nothing but the functions of this module that print, so text that was not treated so
/// cannot be printed.
pub struct Line(String);

impl From<fmt::Arguments<'_>> for Line {
    fn from(text: fmt::Arguments<'_>) -> Line {
        Line(inline(&text.to_string()))
    }
}

impl From<&str> for Line {
    fn from(text: &str) -> Line {
        Line(inline(text))
    }
}

impl From<&String> for Line {
    fn from(text: &String) -> Line {
        Line(inline(text))
    }
}

impl From<String> for Line {
    fn from(text: String) -> Line {
        Line(inline(&text))
    }
}

/// Text of foreign origin, of any number of lines, without what would steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !steers(*c)).collect()
}

/// A foreign name within a line of ours: what would steer a terminal, or begin a line that is none of ours, is shown as
/// an escape, so that no two names look the same. What was treated so stays the same.
fn inline(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Control characters, and those that change the direction of writing.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether the failure is that whoever read our output has gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe && error.get_ref().is_none())
    })
}

/// Prints a line of result on stdout.
pub fn print(line: impl Into<Line>) -> anyhow::Result<()> {
    print_lines(std::iter::once(line))
}

/// Prints what this program itself is the author of, as it is.
pub fn print_own(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let text = text.trim_ascii_end();
    stdout
        .write_all(text)
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush())
        .context("write to standard output")
}

/// Prints a heading and a text of any number of lines, of which those after the first are deeper than the heading.
pub fn print_text(heading: impl Into<Line>, text: &str) -> anyhow::Result<()> {
    let mut lines = text.lines();
    let first = format!("{}{}", heading.into().0, lines.next().unwrap_or_default());
    print_lines(std::iter::once(first).chain(lines.map(|line| format!("          {line}"))))
}

/// Prints a result as JSON on a line of stdout.
pub fn print_json(value: serde_json::Value) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", JsonLine(&value)).and_then(|()| stdout.flush()).context("write to standard output")
}

/// JSON in which no string steers a terminal either: JSON itself escapes the control characters of ASCII only.
struct JsonLine<'a>(&'a serde_json::Value);

impl fmt::Display for JsonLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let mut rest = text.as_str();
        // These occur in strings only, and all have four digits.
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| steers(*c)) {
            f.write_str(&rest[..at])?;
            write!(f, "\\u{:04x}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        f.write_str(rest)
    }
}

/// Prints lines of result on stdout, at once.
pub fn print_lines(lines: impl Iterator<Item = impl Into<Line>>) -> anyhow::Result<()> {
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let write = || {
        for line in lines {
            writeln!(stdout, "{}", line.into().0)?;
        }
        stdout.flush()
    };
    write().context("write to standard output")
}

/// An array as JSON on stdout, on one line, a value at a time. [`Array::end`] ends it.
pub struct Array {
    stdout: std::io::BufWriter<std::io::Stdout>,
    is_empty: bool,
}

impl Array {
    /// Begins it.
    pub fn begin() -> anyhow::Result<Array> {
        let mut stdout = std::io::BufWriter::new(std::io::stdout());
        write!(stdout, "[").context("write to standard output")?;
        Ok(Array { stdout, is_empty: true })
    }

    /// One more value.
    pub fn add(&mut self, value: &serde_json::Value) -> anyhow::Result<()> {
        let between = if std::mem::replace(&mut self.is_empty, false) { "" } else { "," };
        write!(self.stdout, "{between}{}", JsonLine(value)).context("write to standard output")
    }

    /// Ends it.
    pub fn end(mut self) -> anyhow::Result<()> {
        writeln!(self.stdout, "]").and_then(|()| self.stdout.flush()).context("write to standard output")
    }
}

/// Rows in columns, as wide as they need to be; the last one is not padded.
pub fn table(rows: &[Vec<String>]) -> anyhow::Result<()> {
    Rows::default().print(rows)
}

/// Rows in columns that come piece by piece: the columns of a piece are no narrower than those before.
#[derive(Default)]
pub struct Rows {
    widths: Vec<usize>,
}

impl Rows {
    /// Prints a piece.
    pub fn print(&mut self, rows: &[Vec<String>]) -> anyhow::Result<()> {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| inline(cell)).collect()).collect();
        for row in &rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        print_lines(rows.iter().map(|row| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let last = column + 1 == row.len();
                let pad = if last { 0 } else { self.widths[column].saturating_sub(cell.chars().count()) + 2 };
                line.push_str(cell);
                line.push_str(&" ".repeat(pad));
            }
            line.trim_end().to_owned()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::{JsonLine, Line};

    #[test]
    fn no_line_steers_a_terminal_or_pretends_to_be_another() {
        let foreign = "a\u{1b}]0;x\u{7}\r\nsb-1  running\u{9b}31m\u{202e}\u{2066}\u{85}\u{2028}é";
        for line in [Line::from(foreign), Line::from(foreign.to_owned()), Line::from(format_args!("id {foreign}"))] {
            let shown = line.0;
            assert!(shown.ends_with('é') && shown.contains("\\u{1b}]0;x\\u{7}\\r\\nsb-1"), "{shown:?}");
            assert!(!shown.chars().any(super::steers), "{shown:?}");
            assert_eq!(Line::from(shown.as_str()).0, shown, "twice is as good as once");
        }
        let value = serde_json::json!({ foreign: [foreign] });
        let shown = JsonLine(&value).to_string();
        assert!(!shown.chars().any(super::steers), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
