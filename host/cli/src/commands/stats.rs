//! `sandbox stats`

use anyhow::Result;

use crate::args::Id;
use crate::output::results::Usage;
use crate::session::Session;

/// `sandbox stats`
pub async fn stats(session: &Session, args: Id) -> Result<i32> {
    let used = session.provider().await?.sandbox(args.id).stats().await?;
    let hours = |millis: u64| millis as f64 / 3_600_000.0;
    let lines = [
        format!("processor    {:.6} core hours", hours(used.cpu_core_millis)),
        format!("memory       {:.6} GiB hours", hours(used.memory_mib_millis) / 1024.0),
        format!("accelerator  {:.6} hours", hours(used.gpu_millis)),
    ];
    let usage =
        Usage { cpu_core_ms: used.cpu_core_millis, memory_mib_ms: used.memory_mib_millis, gpu_ms: used.gpu_millis };
    session.voice.show(&usage, lines)?;
    Ok(0)
}
