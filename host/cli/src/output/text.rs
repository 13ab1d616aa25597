//! Formats states, reasons, tunnels and times as text.

use sandbox_host::types::{EndReason, PortKind, SandboxState, Tunnel};
use time::OffsetDateTime;

/// Returns the reason why a sandbox ended, as text.
pub fn end_text(reason: &EndReason) -> String {
    match reason {
        EndReason::Finished(code) => format!("finished with {code}"),
        EndReason::Terminated => "terminated".into(),
        EndReason::Lifetime => "lifetime exceeded".into(),
        EndReason::Idle => "idle for too long".into(),
        EndReason::OutOfMemory => "out of memory".into(),
        EndReason::FailedToStart(why) => format!("failed to start: {why}"),
        EndReason::Lost(why) => format!("lost: {why}"),
        EndReason::Other(why) => why.clone(),
    }
}

/// Returns the state of a sandbox or of a container, as text.
pub fn state_text(state: &SandboxState) -> String {
    match state {
        SandboxState::Pending => "pending".into(),
        SandboxState::Running => "running".into(),
        SandboxState::Ended(reason) => format!("ended ({})", end_text(reason)),
        SandboxState::Paused => "paused".into(),
        SandboxState::Stopped => "stopped".into(),
        SandboxState::Unknown => "unknown".into(),
        SandboxState::Other(name) => name.clone(),
    }
}

/// Returns the port and the public URL of a tunnel.
pub fn tunnel_text(tunnel: &Tunnel) -> String {
    let scheme = match tunnel.kind {
        PortKind::Tls | PortKind::H2 => "https",
        PortKind::Tcp => "tcp",
    };
    format!("{} {scheme}://{}:{}", tunnel.port, tunnel.public_host, tunnel.public_port)
}

/// Formats a time in milliseconds since the Unix epoch as `YYYY-MM-DD hh:mm:ss`, in UTC. A time after the year 9999,
/// which only a broken service can report, becomes `after 9999`.
pub fn time(millis: u64) -> String {
    let seconds = i64::try_from(millis / 1000).ok();
    let Some(time) = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()) else {
        return "after 9999".into();
    };
    format!("{} {:02}:{:02}:{:02}", time.date(), time.hour(), time.minute(), time.second())
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_dates_in_utc() {
        assert_eq!(super::time(0), "1970-01-01 00:00:00");
        assert_eq!(super::time(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(super::time(1_795_440_296_999), "2026-11-23 13:24:56");
        assert_eq!(super::time(253_402_300_799_000), "9999-12-31 23:59:59");
        assert_eq!(super::time(253_402_300_800_000), "after 9999");
        assert_eq!(super::time(u64::MAX), "after 9999");
    }
}
