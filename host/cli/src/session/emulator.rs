//! A private emulator: a child process that serves a single command.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use ring::rand::SecureRandom as _;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::output::Failure;

/// Prefix of the line that the emulator prints when it is ready.
const READY: &str = "MODAL_SERVER_URL=";

/// Credentials for an emulator that accepts any. They give access to nothing else.
pub const CREDENTIALS: [(&str, &str); 2] = [("token-id", "ak-emulator"), ("token-secret", "as-emulator")];

/// Timeout for the start of an emulator, which first checks what the machine supports.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout for the emulator to remove what it has created.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Returns 256 random bits as hexadecimal digits.
fn random() -> Result<String> {
    let mut bytes = [0; 32];
    let failed = |_| Failure::new("start the emulator", "the operating system returned no random numbers");
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(failed)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A private emulator. It exits when its standard input is closed, so it ends with this process in any case, and removes
/// what it has created. To let it do that, it is not killed while it may still be cleaning up, even if this value is
/// dropped before it is ready. It accepts only credentials that the two processes share. They are sent over standard
/// input, because other users of the machine can read command lines.
pub struct Private {
    child: Child,
    stdin: Option<ChildStdin>,
    /// URL of the emulator.
    pub url: String,
    /// The only credentials that it accepts, by their names in the manifest.
    pub credentials: [(&'static str, String); 2],
}

impl Private {
    /// Starts an emulator and waits until it listens.
    ///
    /// # Errors
    ///
    /// Fails if the emulator cannot be started, exits, or is not ready within 30 s.
    pub async fn start(verbose: bool) -> Result<Private> {
        let what = "start the emulator";
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.args(["emulator", "--listen", "127.0.0.1:0", "--exit-with-stdin", "--token", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(if verbose { Stdio::inherit() } else { Stdio::piped() });
        // Ctrl-C in a terminal signals the whole process group; the emulator must run until this process has cleaned up.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| Failure::new(what, error.to_string()))?;
        let mut stdin = child.stdin.take();
        let [id, secret] = [random()?, random()?];
        let (id, secret) = (format!("ak-{id}"), format!("as-{secret}"));
        if let Some(stdin) = &mut stdin {
            // If it has already exited, its standard error contains the reason.
            let _ = stdin.write_all(format!("{id}:{secret}\n").as_bytes()).await;
        }
        let [(id_name, _), (secret_name, _)] = CREDENTIALS;
        let credentials = [(id_name, id), (secret_name, secret)];
        let stderr = child.stderr.take();
        let printed = tokio::spawn(async move {
            let mut kept = Vec::new();
            if let Some(mut stderr) = stderr {
                let mut piece = vec![0; 4096];
                // Reads until the end, because a full pipe would block the emulator.
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
                let why = if why.is_empty() { "it exited without a message".to_owned() } else { why };
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

    /// Returns the process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Stops the emulator and waits until it has removed what it has created.
    pub async fn stop(mut self) {
        drop(self.stdin.take());
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            // Not killed, because it would leave behind what it has not removed yet. It exits by itself later.
            tracing::warn!("the emulator is still cleaning up");
        }
    }
}
