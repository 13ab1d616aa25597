//! Captures the end of what a component prints, for the error when the component is stopped.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// Most output of a component that is kept, in bytes.
const KEPT_OUTPUT: usize = 64 << 10;

/// The end of what a component has printed to stdout and stderr.
#[derive(Clone, Default)]
pub(super) struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn push(&self, data: &[u8]) {
        tracing::debug!(target: "sandbox_host::plugin", "{}", String::from_utf8_lossy(data).trim_end());
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let data = &data[data.len().saturating_sub(KEPT_OUTPUT)..];
        let excess = (kept.len() + data.len()).saturating_sub(KEPT_OUTPUT);
        kept.drain(..excess);
        kept.extend_from_slice(data);
    }
}

impl AsyncWrite for Printed {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        self.push(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

/// Returns the last panic message in the output as one line, or the last line if there is no panic.
pub(super) fn last_words(printed: &str) -> String {
    let lines: Vec<_> = printed
        .lines()
        .map(str::trim)
        // Rust prints this note after every panic.
        .filter(|line| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE="))
        .collect();
    let panic = lines.iter().rposition(|line| line.starts_with("thread '") && line.contains(" panicked at "));
    lines[panic.unwrap_or(lines.len().saturating_sub(1))..].join(" ")
}
