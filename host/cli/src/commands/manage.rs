//! `list`, `inspect`, `logs`, `wait`, `terminate`, `tags`, `snapshot`, `tunnels`, `sweep`: sandboxes as a whole.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use sandbox_host::types::{EndReason, ListFilter, LogQuery, OutputStream, PortKind, SandboxInfo, SandboxState, Tunnel};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::args::{Id, List, Logs, Snapshot, Sweep, Tags, Terminate};
use crate::commands::run::end_text;
use crate::output::{self, DEADLINE, FAILED};
use crate::session::Session;

/// How long ports may take to be assigned.
const TUNNEL_WAIT: Duration = Duration::from_secs(50);

/// How long one look for an exit snapshot takes.
const EXIT_WAIT: Duration = Duration::from_secs(60);

/// Log text asked for at once.
const LOG_BYTES: u32 = 1 << 20;

/// How many sandboxes with the same tags are looked through for one.
const NAMESAKES: usize = 1000;

/// `sandbox list`
pub async fn list(session: &Session, args: List) -> Result<i32> {
    let provider = session.provider().await?;
    let mut filter = ListFilter { include_ended: args.all, ..ListFilter::default() };
    filter.tags = args.tag;
    let step = session.voice.step("listing sandboxes");
    let found = provider.list_all_apps(&filter, args.limit).await?;
    drop(step);
    if !session.voice.json {
        let environment = provider.environment().iter().find(|(name, _)| name == "MODAL_ENVIRONMENT");
        session.voice.say(match environment {
            Some((_, name)) if !name.is_empty() => format!("Looked in all apps of the environment {name}"),
            _ => "Looked in all apps of the default environment".to_owned(),
        });
    }
    if session.voice.json {
        let rows: Vec<_> = found.iter().map(info_json).collect();
        output::print_json(json!(rows))?;
        return Ok(0);
    }
    let mut rows = vec![["ID", "NAME", "STATE", "CREATED", "TAGS"].map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(|info| {
        let tags: Vec<_> = info.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            info.id.clone(),
            info.name.clone().unwrap_or_default(),
            state_text(&info.state),
            info.created.map(time).unwrap_or_default(),
            tags.join(","),
        ]
    }));
    output::table(&rows)?;
    Ok(0)
}

/// `sandbox inspect`
pub async fn inspect(session: &Session, args: Id) -> Result<i32> {
    let provider = session.provider().await?;
    let sandbox = provider.sandbox(args.id);
    let mut info = sandbox.info().await?;
    let lives = !matches!(info.state, SandboxState::Ended(_));
    if info.tags.is_empty() && lives {
        info.tags = sandbox.tags().await.unwrap_or_default();
    }
    // Some providers tell more of a sandbox in a list than by itself. Its tags make for a short list.
    if info.created.is_none() && lives && !info.tags.is_empty() {
        let filter = ListFilter { tags: info.tags.clone(), ..ListFilter::default() };
        let listed = provider.list(&filter, NAMESAKES).await.unwrap_or_default();
        if let Some(listed) = listed.into_iter().find(|listed| listed.id == info.id) {
            info.name = info.name.or(listed.name);
            info.image = info.image.or(listed.image);
            info.created = listed.created;
            if info.tunnels.is_empty() {
                info.tunnels = listed.tunnels;
            }
        }
    }
    let value = info_json(&info);
    if session.voice.json {
        output::print_json(value)?;
        return Ok(0);
    }
    let mut rows = vec![
        vec!["id".to_owned(), info.id.clone()],
        vec!["name".to_owned(), info.name.clone().unwrap_or_else(|| "-".into())],
        vec!["state".to_owned(), state_text(&info.state)],
        vec!["image".to_owned(), info.image.clone().unwrap_or_else(|| "-".into())],
        vec!["created".to_owned(), info.created.map(time).unwrap_or_else(|| "-".into())],
    ];
    rows.extend(info.tags.iter().map(|(key, value)| vec!["tag".to_owned(), format!("{key}={value}")]));
    rows.extend(info.tunnels.iter().map(|tunnel| vec!["tunnel".to_owned(), tunnel_text(tunnel)]));
    rows.extend(info.extra.iter().map(|(key, value)| vec![key.clone(), value.clone()]));
    output::table(&rows)?;
    Ok(0)
}

/// `sandbox logs`
pub async fn logs(session: &Session, args: Logs) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    if args.follow {
        // The live output of the entry-point command, from its first byte.
        let mut main = sandbox.attach("main");
        let (stdout, stderr) = (main.stdout.take(), main.stderr.take());
        let pass = |stream: Option<sandbox_host::Output>, to: OutputStream| async move {
            let Some(mut stream) = stream else { return anyhow::Ok(()) };
            let mut piece = vec![0; 64 << 10];
            loop {
                let size = stream.read(&mut piece).await.map_err(crate::commands::run::unwrap)?;
                if size == 0 {
                    return Ok(());
                }
                if session.voice.json {
                    let name = if to == OutputStream::Stdout { "stdout" } else { "stderr" };
                    let text = String::from_utf8_lossy(&piece[..size]);
                    output::print_json(json!({ "stream": name, "text": text, "at_ms": null }))?;
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
                output::print_json(json!({ "stream": name, "text": chunk.text, "at_ms": chunk.at }))?;
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

/// `sandbox wait`
pub async fn wait(session: &Session, args: Id) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    let _step = session.voice.step(format!("waiting for {}", sandbox.id()));
    let reason = sandbox.wait().await?;
    drop(_step);
    if session.voice.json {
        output::print_json(json!({ "sandbox": sandbox.id(), "end": end_text(&reason) }))?;
    } else {
        output::print(end_text(&reason))?;
    }
    Ok(end_code(&reason))
}

/// The exit code of what waits for the end of a sandbox or a container.
pub fn end_code(reason: &EndReason) -> i32 {
    match reason {
        EndReason::Finished(code) => code & 0xff,
        EndReason::Lifetime | EndReason::Idle => DEADLINE,
        // As a shell has it of what was killed.
        EndReason::Terminated | EndReason::OutOfMemory => 128 + 9,
        EndReason::FailedToStart(_) | EndReason::Lost(_) | EndReason::Other(_) => FAILED,
    }
}

/// `sandbox terminate`
pub async fn terminate(session: &Session, args: Terminate) -> Result<i32> {
    let provider = session.provider().await?;
    let _step = session.voice.step("terminating");
    let ended = args.ids.iter().map(|id| {
        let sandbox = provider.sandbox(id);
        async move {
            sandbox.terminate().await?;
            if args.wait {
                sandbox.wait().await?;
            }
            Ok::<_, sandbox_host::Error>(())
        }
    });
    let results = futures_util::future::join_all(ended).await;
    drop(_step);
    let mut code = 0;
    for (id, result) in args.ids.iter().zip(results) {
        match result {
            Ok(()) if session.voice.json => output::print_json(json!({ "sandbox": id, "terminated": true }))?,
            Ok(()) => output::print(id)?,
            // The others are terminated all the same.
            Err(error) => {
                session.voice.fail(&error.into());
                code = FAILED;
            }
        }
    }
    Ok(code)
}

/// Whose sandboxes `run` makes and `sweep` looks at: this user on this machine.
pub fn default_owner() -> String {
    let name = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let clean = |text: &str| -> String {
        text.trim()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
            .take(28)
            .collect()
    };
    format!("{}.{}", clean(&name.unwrap_or_else(|| "user".into())), clean(&host))
}

/// `sandbox sweep`
pub async fn sweep(session: &Session, args: Sweep) -> Result<i32> {
    let provider = session.provider().await?;
    let owner = args.owner.unwrap_or_else(default_owner);
    // Somebody who looks wants to see first.
    let dry_run = args.dry_run || (!args.yes && std::io::stdout().is_terminal());
    let step = session.voice.step("looking for sandboxes that were left behind");
    let found = provider.sweep(&owner, dry_run).await?;
    drop(step);
    if session.voice.json {
        let rows: Vec<_> = found
            .iter()
            .map(|swept| {
                json!({
                    "sandbox": swept.id, "run": swept.run, "overdue_ms": swept.overdue.as_millis() as u64,
                    "terminated": swept.terminated,
                })
            })
            .collect();
        output::print_json(json!({ "owner": owner, "dry_run": dry_run, "found": rows }))?;
    } else {
        for swept in &found {
            let state = if swept.terminated { "terminated" } else { "left behind" };
            output::print(format_args!("{}  {state}, lease over for {} s", swept.id, swept.overdue.as_secs()))?;
        }
        if found.is_empty() {
            session.voice.say(format_args!("nothing of {owner} was left behind"));
        } else if dry_run {
            session.voice.say("nothing was removed; say --yes to remove them");
        }
    }
    let failed = !dry_run && found.iter().any(|swept| !swept.terminated);
    Ok(if failed { FAILED } else { 0 })
}

/// `sandbox tags`
pub async fn tags(session: &Session, args: Tags) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    let mut tags = sandbox.tags().await?;
    if !args.set.is_empty() || !args.unset.is_empty() {
        tags.retain(|(key, _)| !args.unset.contains(key));
        for (key, value) in args.set {
            // Of several, the last.
            tags.retain(|(other, _)| *other != key);
            tags.push((key, value));
        }
        sandbox.set_tags(tags.clone()).await?;
    }
    if session.voice.json {
        output::print_json(tags_json(&tags))?;
    } else {
        for (key, value) in tags {
            output::print(format_args!("{key}={value}"))?;
        }
    }
    Ok(0)
}

/// `sandbox snapshot`
pub async fn snapshot(session: &Session, args: Snapshot) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    let _step = session.voice.step("taking the snapshot");
    let (kind, id) = if args.memory {
        ("snapshot", sandbox.snapshot_memory().await?)
    } else if args.at_exit {
        loop {
            if let Some(image) = sandbox.exit_snapshot(EXIT_WAIT).await? {
                break ("image", image);
            }
        }
    } else if let Some(path) = &args.directory {
        ("image", sandbox.snapshot_directory(path, args.ttl).await?)
    } else {
        ("image", sandbox.snapshot_filesystem(args.ttl).await?)
    };
    drop(_step);
    if session.voice.json {
        output::print_json(json!({ kind: id }))?;
    } else {
        output::print(id)?;
    }
    Ok(0)
}

/// `sandbox tunnels`
pub async fn tunnels(session: &Session, args: Id) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    let _step = session.voice.step("waiting for the ports");
    let tunnels = sandbox.tunnels(TUNNEL_WAIT).await?;
    drop(_step);
    if session.voice.json {
        let rows: Vec<_> = tunnels.iter().map(tunnel_json).collect();
        output::print_json(json!(rows))?;
    } else {
        for tunnel in &tunnels {
            output::print(tunnel_text(tunnel))?;
        }
    }
    Ok(0)
}

fn tunnel_text(tunnel: &Tunnel) -> String {
    let scheme = match tunnel.kind {
        PortKind::Tls | PortKind::H2 => "https",
        PortKind::Tcp => "tcp",
    };
    format!("{} {scheme}://{}:{}", tunnel.port, tunnel.public_host, tunnel.public_port)
}

fn tunnel_json(tunnel: &Tunnel) -> Value {
    let kind = match tunnel.kind {
        PortKind::Tls => "tls",
        PortKind::H2 => "h2",
        PortKind::Tcp => "tcp",
    };
    json!({ "port": tunnel.port, "kind": kind, "host": tunnel.public_host, "public_port": tunnel.public_port })
}

fn tags_json(tags: &[(String, String)]) -> Value {
    tags.iter().map(|(key, value)| (key.clone(), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

pub fn state_text(state: &SandboxState) -> String {
    match state {
        SandboxState::Pending => "pending".into(),
        SandboxState::Running => "running".into(),
        SandboxState::Ended(reason) => format!("ended ({})", end_text(reason)),
        SandboxState::Unknown => "unknown".into(),
    }
}

fn info_json(info: &SandboxInfo) -> Value {
    let extra: serde_json::Map<_, _> = info
        .extra
        .iter()
        .map(|(key, text)| (key.clone(), serde_json::from_str(text).unwrap_or_else(|_| json!(text))))
        .collect();
    let (state, end) = match &info.state {
        SandboxState::Ended(reason) => ("ended", Some(end_text(reason))),
        SandboxState::Pending => ("pending", None),
        SandboxState::Running => ("running", None),
        SandboxState::Unknown => ("unknown", None),
    };
    json!({
        "id": info.id, "name": info.name, "state": state, "end": end, "image": info.image,
        "created_ms": info.created, "tags": tags_json(&info.tags),
        "tunnels": info.tunnels.iter().map(tunnel_json).collect::<Vec<_>>(), "extra": extra,
    })
}

fn now_millis() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

/// A point in time as people write it, in UTC.
pub fn time(millis: u64) -> String {
    let seconds = (millis / 1000) as i64;
    let (days, rest) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    // Days to a date in the proleptic Gregorian calendar: count years from March, in eras of 400 years.
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
