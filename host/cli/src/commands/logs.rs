//! `sandbox-host logs`: prints or follows the log of a sandbox.

use std::time::Duration;

use anyhow::Result;
use sandbox_host::types::{LogQuery, OutputStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::args::Logs;
use crate::output;
use crate::output::results::LogChunk;
use crate::session::Session;
use crate::steps::verdict::unwrap;

/// Maximum number of bytes of log text per request.
const LOG_BYTES: u32 = 1 << 20;

/// Runs `sandbox-host logs`. Returns the exit code.
pub async fn logs(session: &Session, args: Logs) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    if args.follow {
        // The live output of the entry-point command, from its first byte.
        let mut main = sandbox.attach("main");
        let (stdout, stderr) = (main.stdout.take(), main.stderr.take());
        let pass = |stream: Option<sandbox_host::OutputStream>, to: OutputStream| async move {
            let Some(mut stream) = stream else { return anyhow::Ok(()) };
            let mut piece = vec![0; 64 << 10];
            loop {
                let size = stream.read(&mut piece).await.map_err(unwrap)?;
                if size == 0 {
                    return Ok(());
                }
                if session.voice.json {
                    let name = if to == OutputStream::Stdout { "stdout" } else { "stderr" };
                    let text = String::from_utf8_lossy(&piece[..size]);
                    output::print_json(&LogChunk { stream: name, text: &text, at_ms: None })?;
                } else if to == OutputStream::Stdout {
                    let mut stdout = tokio::io::stdout();
                    stdout.write_all(&piece[..size]).await?;
                    stdout.flush().await?;
                } else {
                    let mut stderr = tokio::io::stderr();
                    stderr.write_all(&piece[..size]).await?;
                    stderr.flush().await?;
                }
            }
        };
        tokio::try_join!(pass(stdout, OutputStream::Stdout), pass(stderr, OutputStream::Stderr))?;
        return Ok(0);
    }
    let ago = |time: Option<Duration>| time.map(|time| now_millis().saturating_sub(time.as_millis() as u64));
    let query = LogQuery {
        since: ago(args.since),
        until: ago(args.until),
        stream: args.stream.map(|name| if name == "stdout" { OutputStream::Stdout } else { OutputStream::Stderr }),
        search: args.search,
    };
    let mut cursor = None;
    loop {
        let page = sandbox.logs(query.clone(), cursor, LOG_BYTES).await?;
        for chunk in page.items {
            let name = match chunk.stream {
                Some(OutputStream::Stdout) => "stdout",
                Some(OutputStream::Stderr) => "stderr",
                None => "system",
            };
            if session.voice.json {
                output::print_json(&LogChunk { stream: name, text: &chunk.text, at_ms: chunk.at })?;
            } else if chunk.stream == Some(OutputStream::Stderr) {
                let mut stderr = tokio::io::stderr();
                stderr.write_all(chunk.text.as_bytes()).await?;
                stderr.flush().await?;
            } else {
                let mut stdout = tokio::io::stdout();
                stdout.write_all(chunk.text.as_bytes()).await?;
                stdout.flush().await?;
            }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(0),
        }
    }
}

fn now_millis() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}
