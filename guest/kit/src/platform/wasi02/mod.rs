//! The transport over WASI 0.2. [`reactor`] drives futures with pollables, [`http`] wraps `wasi:http` in futures and
//! bodies.

mod http;
mod reactor;

use std::time::Duration;

pub use reactor::block_on;

use super::transport::{LocalFuture, Request, Sending, Transport};

/// The transport of a component.
pub struct Wasi;

impl Transport for Wasi {
    fn send(&self, request: Request) -> Sending {
        Box::pin(http::send(request))
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()> {
        Box::pin(reactor::sleep(duration))
    }

    fn now(&self) -> Duration {
        let now = wasip2::clocks::wall_clock::now();
        Duration::new(now.seconds, now.nanoseconds)
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(wasip2::random::random::get_random_bytes(16)) {
            *to = from;
        }
        bytes
    }

    fn env(&self, name: &str) -> Option<String> {
        let all = wasip2::cli::environment::get_environment();
        all.into_iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
    }

    fn tell(&self, line: &str) {
        let line = format!("{line}\n");
        let stderr = wasip2::cli::stderr::get_stderr();
        // A failed write is ignored: progress is optional, and failures are reported as errors. A single write accepts
        // at most 4096 bytes.
        for piece in line.as_bytes().chunks(4096) {
            let _ = stderr.blocking_write_and_flush(piece);
        }
    }
}
