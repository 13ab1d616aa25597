//! `run` by the other functions of a provider, for providers that do not implement it themselves.

use std::time::Instant;

use super::SandboxProvider;
use crate::{
    api::{
        error::{Error, Result},
        time::millis,
        wit::{ExecRef, ExecSpec, Happened, OutputLimits, ReadRequest, RunResult},
    },
    exec::Capture,
};

/// Most output of one read, in bytes.
const PIECE_BYTES: u32 = 1 << 20;

/// Longest wait of one read, in milliseconds.
const WAIT_MS: u64 = 60_000;

/// Starts a command, writes its whole input, and reads its output until it has ended.
pub(super) async fn run<P: SandboxProvider + ?Sized>(
    provider: &P,
    sandbox: &str,
    spec: ExecSpec,
    stdin: Vec<u8>,
    limits: OutputLimits,
) -> Result<RunResult> {
    let begun = Instant::now();
    let (id, container) = (spec.id.clone(), spec.container.clone());
    let exec = ExecRef { sandbox: sandbox.to_string(), exec: id, deadline: None, container };
    provider.start(sandbox, spec).await?;
    let started = |error: Error| error.with_happened(Happened::Yes);
    provider.write_input(exec.clone(), 0, stdin, true).await.map_err(started)?;
    let mut stdout = Capture::new(limits.stdout_max, limits.keep);
    let mut stderr = Capture::new(limits.stderr_max, limits.keep);
    let mut request = ReadRequest { stdout_offset: 0, stderr_offset: 0, max_bytes: PIECE_BYTES, wait: WAIT_MS };
    loop {
        let output = provider.read_output(exec.clone(), request).await.map_err(started)?;
        stdout.push(&output.stdout.data);
        stderr.push(&output.stderr.data);
        request.stdout_offset = output.stdout.offset + output.stdout.data.len() as u64;
        request.stderr_offset = output.stderr.offset + output.stderr.data.len() as u64;
        if let Some(verdict) = output.verdict {
            let (stdout, stderr) = (stdout.captured(), stderr.captured());
            return Ok(RunResult { verdict, stdout, stderr, duration: millis(begun.elapsed()) });
        }
    }
}
