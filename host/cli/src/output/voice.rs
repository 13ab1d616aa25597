//! Prints progress, messages and failures on standard error, as the options require.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::failure::{kind, parts, retryable};
use super::line::{Line, inline, printable};
use super::print::{print_json, print_lines};
use super::results::{Failed, Problem};

/// Operations that take longer than this show their progress.
const PATIENCE: Duration = Duration::from_secs(1);

/// Interval between two progress lines of a transfer, if standard error is not a terminal.
const LINES: Duration = Duration::from_secs(10);

/// The output options.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// Print results as JSON.
    pub json: bool,
    quiet: bool,
    color: bool,
    terminal: bool,
}

impl Voice {
    /// Creates a voice from the options and the type of standard error.
    pub fn new(json: bool, quiet: bool, no_color: bool) -> Voice {
        let terminal = std::io::stderr().is_terminal();
        let color = terminal && !no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Voice { json, quiet, color, terminal }
    }

    /// Prints the result of a command that has no output without `--json`.
    pub fn result(&self, result: &impl Serialize) -> anyhow::Result<()> {
        if self.json { print_json(result) } else { Ok(()) }
    }

    /// Prints the result of a command: as JSON with `--json`, otherwise as these lines.
    pub fn show<L: Into<Line>>(
        &self,
        result: &impl Serialize,
        lines: impl IntoIterator<Item = L>,
    ) -> anyhow::Result<()> {
        if self.json { print_json(result) } else { print_lines(lines.into_iter()) }
    }

    /// Prints a message on standard error, unless `--quiet` is set.
    pub fn say(&self, text: impl Into<Line>) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Prints a message on standard error, even with `--quiet`.
    pub fn warn(&self, text: impl Into<Line>) {
        let _ = writeln!(std::io::stderr(), "{}", text.into().0);
    }

    /// Prints a part of a build log on standard error, unless `--quiet` is set.
    pub fn log(&self, text: &str) {
        if self.quiet {
            return;
        }
        let mut stderr = std::io::stderr().lock();
        let text = printable(text);
        let _ = if self.color { write!(stderr, "\x1b[2m{text}\x1b[0m") } else { write!(stderr, "{text}") };
        let _ = stderr.flush();
    }

    /// Shows an operation on standard error, from one second after its start until the returned value is dropped.
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

    /// Shows the progress of a transfer, from one second after its start. `size` is the total in bytes, if known.
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
                // Redraws regularly, even if no data arrives.
                shown.enable_steady_tick(Duration::from_millis(200));
            });
            Step { task: Some(task), bar: Some(bar.clone()) }
        } else {
            // For logs: a line after one second, and then one line per interval.
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

    /// Reports a failure on standard error in three parts, or as JSON on standard output.
    pub fn fail(&self, error: &anyhow::Error) {
        let (what, why, hint) = parts(error);
        if self.json {
            let failed = Failed {
                error: Problem {
                    kind: kind(error).into(),
                    what: (&what).into(),
                    why: (&why).into(),
                    hint: hint.as_ref().map(Into::into),
                    retryable: retryable(error),
                },
            };
            if print_json(&failed).is_ok() {
                return;
            }
        }
        let mut stderr = std::io::stderr().lock();
        let (red, bold, plain) = if self.color { ("\x1b[31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let _ = writeln!(stderr, "{red}error:{plain} {bold}cannot {}{plain}", inline(&what));
        // Further lines are indented more than the hint, so that text of a service cannot imitate it.
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

/// An operation in progress. Dropping it removes its display.
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

/// A transfer in progress.
pub struct Transfer {
    bar: ProgressBar,
    _step: Step,
}

impl Transfer {
    /// Sets the number of transferred bytes and the total.
    pub fn at(&self, position: u64, size: u64) {
        self.bar.set_length(size);
        self.bar.set_position(position);
    }

    /// Sets the number of transferred bytes.
    pub fn to(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Adds to the number of transferred bytes.
    pub fn add(&self, length: u64) {
        self.bar.inc(length);
    }

    /// Wraps a stream so that its bytes are counted.
    pub fn wrap<T>(&self, stream: T) -> Counted<T> {
        Counted { stream, bar: self.bar.clone() }
    }
}

pin_project_lite::pin_project! {
    /// A stream that updates a progress bar.
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

/// Reports an invalid command line as JSON.
pub fn fail_usage(error: &clap::Error) {
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(str::trim);
    let why = parts.next().unwrap_or_default().trim_start_matches("error: ");
    let hint = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n");
    let failed = Failed {
        error: Problem {
            kind: "usage".into(),
            what: "understand the command line".into(),
            why: why.into(),
            hint: Some(hint.into()),
            retryable: false,
        },
    };
    let _ = print_json(&failed);
}
