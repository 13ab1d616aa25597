//! Group `logs`: the persisted log of a sandbox.

use std::sync::Arc;
use std::time::Duration;

use sandbox_host::types::{LogQuery, OutputStream};
use sandbox_host::{Kind, Sandbox};

use crate::check::{Outcome, ensure, failed, refused};
use crate::table::checks;
use crate::world::{Case, altered};

checks! {
    "logs.of-entry-point" ["logs", "create.command", "program:sh"] "read-logs: returns what the entry point printed, also after the end" => of_entry_point;
    "logs.pages" ["logs", "create.command", "program:sh"] "log-page: pages have at most as many bytes as requested, and lose nothing" => pages;
    "logs.stream" ["logs", "create.command", "program:sh"] "log-query: `stream` selects one stream" => stream;
    "logs.search" ["logs", "create.command", "program:sh"] "log-query: `search` selects entries that contain the text" => search;
    "logs.times" ["logs", "create.command", "program:sh"] "log-query: `since` and `until` select entries by their times" => times;
    "logs.bad-cursor" ["logs"] "log-page: a cursor that the provider did not return is an error" => bad_cursor;
    "logs.max-bytes" ["logs"] "read-logs: `max-bytes` of 0 is an error" => max_bytes;
    "logs.unknown-sandbox" ["logs"] "read-logs: fails with `not-found` if the provider does not know the sandbox" => unknown;
}

/// How long the service may take until it has collected a log.
const COLLECTED: Duration = Duration::from_secs(60);

/// What the entry point prints.
const SCRIPT: &str = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done; echo problem zwölf >&2";

/// What it prints on standard error. A page can end within a letter.
const PROBLEM: &str = "problem zwölf\n";

fn expected() -> String {
    (0..100).map(|number| format!("line {number}\n")).collect()
}

/// Returns a sandbox that has ended and whose log is complete.
async fn ended(case: &Case) -> Outcome<Sandbox> {
    let sandbox = case.create(case.spec().command(["/bin/sh", "-c", SCRIPT])).await?;
    sandbox.wait_for(COLLECTED).await?;
    let begun = std::time::Instant::now();
    while begun.elapsed() < COLLECTED {
        let page = sandbox.logs(LogQuery::default(), None, 1 << 20).await?;
        let text: String = page.items.into_iter().map(|chunk| chunk.text).collect();
        if text.contains("line 99\n") && text.contains("problem zwölf\n") {
            return Ok(sandbox);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    failed(format!("the log was not complete {COLLECTED:?} after the end"))
}

/// Reads a log page by page, and returns the text of both streams.
async fn read(sandbox: &Sandbox, query: LogQuery, max: u32) -> Outcome<[String; 2]> {
    let (mut texts, mut cursor) = ([String::new(), String::new()], None);
    for _ in 0..10_000 {
        let page = sandbox.logs(query.clone(), cursor, max).await?;
        let size: usize = page.items.iter().map(|chunk| chunk.text.len()).sum();
        ensure!(size <= max as usize, "a page with at most {max} bytes has {size}");
        for chunk in page.items {
            texts[usize::from(chunk.stream == Some(OutputStream::Stderr))].push_str(&chunk.text);
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(texts),
        }
    }
    failed("the log had not ended after 10000 pages")
}

async fn of_entry_point(case: Arc<Case>) -> Outcome {
    let sandbox = ended(&case).await?;
    let [stdout, stderr] = read(&case.other().await?.sandbox(sandbox.id()), LogQuery::default(), 1 << 20).await?;
    ensure!(stdout == expected(), "standard output in the log is {stdout:?}");
    ensure!(stderr == PROBLEM, "standard error in the log is {stderr:?}");
    Ok(())
}

async fn pages(case: Arc<Case>) -> Outcome {
    let sandbox = ended(&case).await?;
    for max in [9, 100] {
        let [stdout, stderr] = read(&sandbox, LogQuery::default(), max).await?;
        ensure!(stdout == expected(), "with pages of {max} bytes, standard output is {stdout:?}");
        ensure!(stderr == PROBLEM, "with pages of {max} bytes, standard error is {stderr:?}");
    }
    Ok(())
}

async fn stream(case: Arc<Case>) -> Outcome {
    let query = LogQuery { stream: Some(OutputStream::Stderr), ..LogQuery::default() };
    let [stdout, stderr] = read(&ended(&case).await?, query, 1 << 20).await?;
    ensure!(stdout.is_empty() && stderr == PROBLEM, "the log of standard error is {stdout:?} and {stderr:?}");
    Ok(())
}

async fn search(case: Arc<Case>) -> Outcome {
    let query = LogQuery { search: Some("line 9".to_owned()), ..LogQuery::default() };
    let [stdout, _] = read(&ended(&case).await?, query, 1 << 20).await?;
    let lines = stdout.lines().count();
    // An entry may have several lines.
    ensure!(stdout.lines().any(|line| line == "line 95"), "a search for `line 9` found {stdout:?}");
    ensure!((11..=100).contains(&lines), "a search for `line 9` found {lines} lines");
    Ok(())
}

async fn times(case: Arc<Case>) -> Outcome {
    let sandbox = ended(&case).await?;
    let all = sandbox.logs(LogQuery::default(), None, 1 << 20).await?.items;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_millis());
    for at in all.iter().filter_map(|chunk| chunk.at) {
        ensure!(now.abs_diff(u128::from(at)) < 24 * 3600 * 1000, "the time of an entry is {at}, and it is {now}");
    }
    let early = LogQuery { until: Some(1000), ..LogQuery::default() };
    let [stdout, stderr] = read(&sandbox, early, 1 << 20).await?;
    ensure!(stdout.is_empty() && stderr.is_empty(), "until 1970, the log is {stdout:?} and {stderr:?}");
    let since = LogQuery { since: Some(1000), ..LogQuery::default() };
    let [stdout, stderr] = read(&sandbox, since, 1 << 20).await?;
    ensure!(stdout == expected() && stderr == PROBLEM, "since 1970, the log is {stdout:?} and {stderr:?}");
    Ok(())
}

async fn bad_cursor(case: Arc<Case>) -> Outcome {
    let (sandbox, kind) = (case.shared().await?, &Kind::InvalidArgument);
    let cursor = Some("conformance-no-cursor".to_owned());
    refused("`read-logs` with an unknown cursor", sandbox.logs(LogQuery::default(), cursor, 1000).await, kind)?;
    Ok(())
}

async fn max_bytes(case: Arc<Case>) -> Outcome {
    let read = case.shared().await?.logs(LogQuery::default(), None, 0).await;
    refused("`read-logs` with `max-bytes` 0", read, &Kind::InvalidArgument)?;
    Ok(())
}

async fn unknown(case: Arc<Case>) -> Outcome {
    let unknown = case.provider.sandbox(altered(case.shared().await?.id()));
    refused("`read-logs` of an unknown sandbox", unknown.logs(LogQuery::default(), None, 100).await, &Kind::NotFound)?;
    Ok(())
}
