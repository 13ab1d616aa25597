//! Formats states, reasons, tunnels and times as text.

use sandbox_host::types::{EndReason, PortKind, SandboxState, Tunnel};

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

/// Formats a time in milliseconds since the Unix epoch as `YYYY-MM-DD hh:mm:ss`, in UTC.
pub fn time(millis: u64) -> String {
    let seconds = (millis / 1000) as i64;
    let (days, rest) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    // Converts days to a date in the proleptic Gregorian calendar: counts years from March, in eras of 400 years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times() {
        assert_eq!(super::time(0), "1970-01-01 00:00:00");
        assert_eq!(super::time(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(super::time(1_795_440_296_000), "2026-11-23 13:24:56");
    }
}
