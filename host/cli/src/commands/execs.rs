//! `sandbox-host execs`: lists the commands that have been started in a sandbox.

use anyhow::Result;
use sandbox_host::types::{ExecInfo, Verdict};

use crate::args::Execs;
use crate::output;
use crate::output::results::Exec;
use crate::output::text::time;
use crate::session::Session;
use crate::steps::several::pages;
use crate::steps::verdict::verdict_name;

/// Runs `sandbox-host execs`. Returns the exit code.
pub async fn execs(session: &Session, args: Execs) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    let step = session.voice.step("listing commands");
    let found = pages(args.limit, async |cursor, max| {
        let page = sandbox.execs(cursor, max).await?;
        Ok((page.items, page.next))
    });
    let found = found.await?;
    drop(step);
    if session.voice.json {
        output::print_json(&found.iter().map(exec).collect::<Vec<_>>())?;
        return Ok(0);
    }
    let heading = ["EXEC", "STATE", "STARTED", "CONTAINER", "COMMAND"].map(str::to_owned).to_vec();
    output::table(&std::iter::once(heading).chain(found.iter().map(row)).collect::<Vec<_>>())?;
    Ok(0)
}

/// Converts an exec for `--json`.
fn exec(exec: &ExecInfo) -> Exec<'_> {
    Exec {
        exec: &exec.id,
        argv: &exec.argv,
        started_ms: exec.started,
        verdict: exec.verdict.as_ref().map(verdict_name),
        exit_code: match exec.verdict {
            Some(Verdict::Exited(code)) => Some(code),
            _ => None,
        },
        container: exec.container.as_deref(),
    }
}

/// Returns the row of an exec in the table.
fn row(exec: &ExecInfo) -> Vec<String> {
    let state = match &exec.verdict {
        None => "running".to_owned(),
        Some(Verdict::Exited(code)) => format!("exited {code}"),
        Some(verdict) => verdict_name(verdict),
    };
    let container = exec.container.clone().unwrap_or_default();
    vec![exec.id.clone(), state, exec.started.map(time).unwrap_or_default(), container, exec.argv.join(" ")]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_exec_is_shown_with_its_state() {
        let info = |verdict: Option<Verdict>, container: Option<&str>| ExecInfo {
            id: "e1".to_owned(),
            argv: vec!["echo".to_owned(), "a b".to_owned()],
            started: Some(951_782_400_000),
            verdict,
            container: container.map(str::to_owned),
        };
        for (info, state, container, json) in [
            (info(None, None), "running", "", json!([null, null, null])),
            (info(Some(Verdict::Exited(3)), None), "exited 3", "", json!(["exited", 3, null])),
            (info(Some(Verdict::Signaled(9)), Some("db")), "signaled 9", "db", json!(["signaled 9", null, "db"])),
            (info(Some(Verdict::Deadline), None), "deadline", "", json!(["deadline", null, null])),
        ] {
            assert_eq!(row(&info), ["e1", state, "2000-02-29 00:00:00", container, "echo a b"]);
            let value = serde_json::to_value(exec(&info)).expect("no JSON");
            assert_eq!(json!([value["verdict"], value["exit_code"], value["container"]]), json);
            let rest = json!({ "exec": value["exec"], "argv": value["argv"], "started_ms": value["started_ms"] });
            assert_eq!(rest, json!({ "exec": "e1", "argv": ["echo", "a b"], "started_ms": 951_782_400_000_u64 }));
        }
        let unknown = ExecInfo { argv: vec![], started: None, ..info(None, None) };
        assert_eq!(row(&unknown), ["e1", "running", "", "", ""]);
    }
}
