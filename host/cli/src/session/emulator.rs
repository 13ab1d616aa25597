//! An emulator of this program's own, for one command.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use ring::rand::SecureRandom as _;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::output::Failure;

/// What the emulator prints when it is ready.
const READY: &str = "MODAL_SERVER_URL=";

/// Credentials for an emulator that takes any; they open nothing else.
pub const CREDENTIALS: [(&str, &str); 2] = [("token-id", "ak-emulator"), ("token-secret", "as-emulator")];

/// An emulator may have to look at the machine first.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it may take to remove what it made.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// 256 random bits as hexadecimal digits.
fn random() -> Result<String> {
    let mut bytes = [0; 32];
    let failed = |_| Failure::new("start the emulator", "the system has no random numbers");
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(failed)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A private emulator. It ends when its standard input does, so it ends with this process however that ends, and removes what
/// it made. For that it is never killed while it may still do so, also not when this is dropped before it is ready. It takes
/// credentials that only the two processes know: they go through standard input, since other users of the machine can read
/// command lines.
pub struct Private {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Where it listens.
    pub url: String,
    /// The only credentials that it takes.
    pub credentials: [(&'static str, String); 2],
}

impl Private {
    /// Starts one and waits until it listens.
    pub async fn start(verbose: bool) -> Result<Private> {
        let what = "start the emulator";
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.args(["emulator", "--listen", "127.0.0.1:0", "--exit-with-stdin", "--token", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(if verbose { Stdio::inherit() } else { Stdio::piped() });
        // Ctrl-C on a terminal reaches the whole group; the emulator must outlive our own cleaning up.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| Failure::new(what, error.to_string()))?;
        let mut stdin = child.stdin.take();
        let [id, secret] = [random()?, random()?];
        let (id, secret) = (format!("ak-{id}"), format!("as-{secret}"));
        if let Some(stdin) = &mut stdin {
            // One that has ended already says why on its standard error.
            let _ = stdin.write_all(format!("{id}:{secret}\n").as_bytes()).await;
        }
        let [(id_name, _), (secret_name, _)] = CREDENTIALS;
        let credentials = [(id_name, id), (secret_name, secret)];
        let stderr = child.stderr.take();
        let printed = tokio::spawn(async move {
            let mut kept = Vec::new();
            if let Some(mut stderr) = stderr {
                let mut piece = vec![0; 4096];
                // Read on for ever: a full pipe would stop the emulator.
                while let Ok(size @ 1..) = stderr.read(&mut piece).await {
                    if kept.len() < 16 << 10 {
                        kept.extend_from_slice(&piece[..size]);
                    }
                }
            }
            String::from_utf8_lossy(&kept).into_owned()
        });
        let stdout = child.stdout.take();
        let ready = async {
            let mut lines = BufReader::new(stdout?).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(url) = line.strip_prefix(READY) {
                    let url = url.trim().to_owned();
                    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                    return Some(url);
                }
            }
            None
        };
        match tokio::time::timeout(START_TIMEOUT, ready).await {
            Ok(Some(url)) => Ok(Private { child, stdin, url, credentials }),
            Ok(None) => {
                let _ = child.wait().await;
                let text = printed.await.unwrap_or_default();
                let why = crate::output::printable(text.trim());
                let why = if why.is_empty() { "it ended at once".to_owned() } else { why };
                Err(Failure::new(what, why).into())
            }
            Err(_) => {
                drop(stdin);
                if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
                    let _ = child.kill().await;
                }
                Err(Failure::new(what, format!("it was not ready after {START_TIMEOUT:?}")).into())
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Stops it and waits until it has removed what it made.
    pub async fn stop(mut self) {
        drop(self.stdin.take());
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            // Killed, it would leave what it has not removed yet. It ends in any case.
            tracing::warn!("the emulator is still cleaning up");
        }
    }
}
