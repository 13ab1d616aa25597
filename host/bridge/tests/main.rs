//! Tests of the bridge with the memory provider, which needs no service. `cargo xtask build` builds it.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sandbox_bridge::{Bridge, CLOSED, Fault, INVALID, Reply, runtime};
use serde_json::{Value, json};

/// A bridge with an open provider and a sandbox.
struct Session {
    bridge: Bridge,
    provider: Value,
    sandbox: Value,
}

impl Session {
    async fn new() -> Session {
        let bridge = Bridge::new();
        let opened = call(&bridge, "provider.open", json!({ "component": component() })).await.expect("no provider");
        let provider = opened["provider"].clone();
        let created = call(&bridge, "sandbox.create", json!({ "provider": provider })).await.expect("no sandbox");
        let sandbox = created["info"]["id"].clone();
        Session { bridge, provider, sandbox }
    }

    /// Adds the sandbox to arguments.
    fn at(&self, mut arguments: Value) -> Value {
        arguments["provider"] = self.provider.clone();
        arguments["sandbox"] = self.sandbox.clone();
        arguments
    }

    /// Calls a method on the sandbox.
    async fn call(&self, method: &str, arguments: Value) -> Result<Value, Fault> {
        call(&self.bridge, method, self.at(arguments)).await
    }

    async fn start(&self, argv: &[&str]) -> Value {
        let started = self.call("process.start", json!({ "command": { "argv": argv } })).await.expect("no process");
        started["process"].clone()
    }
}

fn component() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/dist/memory-provider.wasm");
    assert!(path.is_file(), "{} is missing: run `cargo xtask build`", path.display());
    path.display().to_string()
}

async fn full(bridge: &Bridge, method: &str, arguments: Value, data: &'static [u8]) -> Result<Reply, Fault> {
    bridge.call(method, &arguments.to_string(), Bytes::from_static(data)).await
}

async fn call(bridge: &Bridge, method: &str, arguments: Value) -> Result<Value, Fault> {
    let reply = full(bridge, method, arguments, b"").await?;
    assert_eq!(reply.parts.len(), 0, "{method} returns bytes");
    Ok(serde_json::from_str(&reply.json).expect("the result is no JSON"))
}

fn run(test: impl Future<Output = ()>) {
    runtime().expect("no runtime").block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs");
    });
}

#[test]
fn commands_run_and_files_move() {
    run(async {
        let session = Session::new().await;
        let arguments = session.at(json!({ "command": { "argv": ["cat"] } }));
        let reply = full(&session.bridge, "sandbox.run", arguments, b"input").await.expect("failed");
        assert_eq!(reply.parts, [b"input".to_vec(), vec![]]);
        let report: Value = serde_json::from_str(&reply.json).expect("no JSON");
        assert_eq!(report["verdict"], json!({ "exited": 0 }));
        assert_eq!((&report["stdout_total"], &report["retries"]), (&json!(5), &json!(0)));
        full(&session.bridge, "file.write", session.at(json!({ "path": "/a/b" })), b"hello").await.expect("failed");
        let read = full(&session.bridge, "file.read", session.at(json!({ "path": "/a/b" })), b"").await;
        let read = read.expect("failed");
        assert_eq!(read.parts, [b"hello".to_vec()]);
        assert_eq!(read.json, r#"{"mode":null,"size":5}"#);
        let missing = session.call("file.read", json!({ "path": "/none" })).await.expect_err("it was read");
        assert_eq!(missing.kind(), "file:not-found");
        let error: Value = serde_json::from_str(&missing.json()).expect("no JSON");
        assert_eq!(error["happened"], "no");
        assert_eq!(error["retryable"], false);
        assert!(error["message"].as_str().expect("no text").contains("/none"));
    });
}

#[test]
fn streams_are_read_and_written() {
    run(async {
        let session = Session::new().await;
        let process = session.start(&["cat"]).await;
        let one = json!({ "process": process });
        full(&session.bridge, "process.write", one.clone(), b"one").await.expect("not written");
        let stdout = json!({ "process": process, "stream": "stdout", "max": 2 });
        let first = full(&session.bridge, "process.read", stdout.clone(), b"").await.expect("not read");
        assert_eq!((first.json.as_str(), &first.parts[0]), (r#"{"end":false}"#, &b"on".to_vec()));
        call(&session.bridge, "process.close_input", one.clone()).await.expect("not closed");
        call(&session.bridge, "process.close_input", one.clone()).await.expect("closing twice fails");
        let rest = full(&session.bridge, "process.read", stdout.clone(), b"").await.expect("not read");
        assert_eq!(rest.parts[0], b"e");
        let end = full(&session.bridge, "process.read", stdout, b"").await.expect("not read");
        assert_eq!((end.json.as_str(), end.parts[0].len()), (r#"{"end":true}"#, 0));
        let (first, second) = tokio::join!(
            call(&session.bridge, "process.wait", one.clone()),
            call(&session.bridge, "process.wait", one.clone())
        );
        assert_eq!(first.expect("failed"), json!({ "exited": 0 }));
        assert_eq!(second.expect("failed"), json!({ "exited": 0 }));
        let closed = full(&session.bridge, "process.write", one, b"more").await.expect_err("it was written");
        assert_eq!(closed.kind(), CLOSED);
    });
}

#[test]
fn arguments_are_checked() {
    run(async {
        let session = Session::new().await;
        let cases = [
            ("no.such", json!({}), "no.such"),
            ("version", json!({ "x": 1 }), "`x`"),
            ("sandbox.run", session.at(json!({})), "`command`"),
            ("sandbox.run", session.at(json!({ "command": { "argv": ["a"], "nvv": {} } })), "`nvv`"),
            ("sandbox.info", json!({ "provider": "one", "sandbox": "x" }), "expected u64"),
            ("sandbox.info", json!({ "provider": 99, "sandbox": "x" }), "no object 99"),
            ("process.wait", json!({ "process": session.provider }), "is no process"),
            ("close", json!({ "object": 0 }), "no object 0"),
            ("provider.open", json!({ "component": "x", "owner": "y" }), "`lease_ms`"),
            ("close", json!([session.provider]), "sequence, expected an object"),
            ("version", json!([]), "sequence, expected an object"),
            (
                "sandbox.run",
                session.at(json!({ "command": { "argv": ["a"], "pty": [24, 80, "x"] } })),
                "sequence, expected an object",
            ),
            ("provider.open", json!({ "component": "x", "limits": [1] }), "sequence, expected an object"),
            ("image.build", json!({ "provider": 1, "image": { "dockerfile": ["a"] } }), "sequence, expected an object"),
            ("version", json!("x"), "string \"x\", expected an object"),
            ("transfer.start", json!({}), "`method`"),
            ("transfer.start", json!({ "method": "file.upload", "arguments": [] }), "a map"),
            ("transfer.start", json!({ "method": "sandbox.run", "arguments": {} }), "is no transfer"),
            ("transfer.start", json!({ "method": "file.upload", "arguments": session.at(json!({})) }), "`from`"),
        ];
        for (method, arguments, expected) in cases {
            let fault = call(&session.bridge, method, arguments).await.expect_err("it was accepted");
            assert_eq!(fault.kind(), INVALID, "{fault}");
            assert!(fault.message().contains(expected), "{fault}");
        }
        let fault = session.bridge.call("version", "{", Bytes::new()).await.expect_err("it was accepted");
        assert_eq!(fault.kind(), INVALID);
        let fault = full(&session.bridge, "version", json!({}), b"data").await.expect_err("it was accepted");
        assert!(fault.message().contains("takes no data"), "{fault}");
        let version = session.bridge.call("version", "", Bytes::new()).await.expect("failed");
        assert!(version.json.contains("0.2.0"), "{version:?}");
        let missing = call(&session.bridge, "provider.open", json!({ "component": "/none.wasm" })).await;
        assert_eq!(missing.expect_err("it was opened").kind(), "plugin:missing");
    });
}

#[test]
fn closed_objects_refuse_calls() {
    run(async {
        let session = Session::new().await;
        let process = session.start(&["sleep", "1000"]).await;
        let waiting = call(&session.bridge, "process.wait", json!({ "process": process }));
        let closing = async {
            tokio::task::yield_now().await;
            call(&session.bridge, "close", json!({ "object": process })).await.expect("not closed");
            call(&session.bridge, "close", json!({ "object": process })).await.expect("closing twice fails");
        };
        let (waited, ()) = tokio::join!(waiting, closing);
        assert_eq!(waited.expect_err("it did not fail").kind(), CLOSED);
        let later = call(&session.bridge, "process.wait", json!({ "process": process })).await;
        assert_eq!(later.expect_err("it did not fail").kind(), CLOSED);
        let ended = call(&session.bridge, "provider.shutdown", json!({ "provider": session.provider })).await;
        assert!(ended.expect("failed")["cancelled"].is_u64());
        let later = session.call("sandbox.info", json!({})).await.expect_err("it did not fail");
        assert_eq!((later.kind(), later.happened()), (CLOSED, "no"));
    });
}

/// `host/python/tests/test_provider.py` checks that the commands are killed, which needs a service.
#[test]
fn the_end_of_a_provider_closes_what_was_opened_through_it() {
    run(async {
        for method in ["close", "provider.shutdown"] {
            let (session, other) = (Session::new().await, Session::new().await);
            let opened = call(&session.bridge, "provider.open", json!({ "component": component() })).await;
            let second = opened.expect("no provider")["provider"].clone();
            let created = call(&session.bridge, "sandbox.create", json!({ "provider": second })).await;
            let place = json!({ "provider": second, "sandbox": created.expect("no sandbox")["info"]["id"] });
            let mut start = place.clone();
            start["command"] = json!({ "argv": ["sleep", "1000"], "id": "one" });
            let started = call(&session.bridge, "process.start", start).await.expect("not started")["process"].clone();
            let mut attach = place.clone();
            attach["exec"] = json!("one");
            let attached = call(&session.bridge, "process.attach", attach).await.expect("not attached");
            let (stays, stays_too) = (session.start(&["cat"]).await, other.start(&["cat"]).await);
            let waiting = call(&session.bridge, "process.wait", json!({ "process": started }));
            let closing = async {
                tokio::task::yield_now().await;
                let arguments =
                    if method == "close" { json!({ "object": second }) } else { json!({ "provider": second }) };
                call(&session.bridge, method, arguments).await.expect("not closed");
            };
            let (waited, ()) = tokio::join!(waiting, closing);
            let waited = waited.expect_err("it did not fail");
            // A shutdown cancels the call, and only then closes the process.
            let expected = if method == "close" { CLOSED } else { "conflict" };
            assert_eq!(waited.kind(), expected, "{waited}");
            for process in [&started, &attached["process"]] {
                let later = call(&session.bridge, "process.wait", json!({ "process": process })).await;
                assert_eq!(later.expect_err("it did not fail").kind(), CLOSED);
                call(&session.bridge, "close", json!({ "object": process })).await.expect("closing twice fails");
            }
            for (bridge, process) in [(&session.bridge, &stays), (&other.bridge, &stays_too)] {
                call(bridge, "process.kill", json!({ "process": process })).await.expect("not killed");
                let verdict = call(bridge, "process.wait", json!({ "process": process })).await.expect("failed");
                assert_eq!(verdict, json!({ "signaled": 9 }));
            }
        }
    });
}

/// Returns all that `transfer.next` returns.
async fn progress(session: &Session, transfer: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    loop {
        let next = json!({ "transfer": transfer, "interval_ms": 0 });
        match call(&session.bridge, "transfer.next", next).await.expect("no progress") {
            Value::Null => return found,
            next => found.push(next),
        }
    }
}

#[test]
fn transfers_run_in_the_background() {
    run(async {
        let session = Session::new().await;
        let folder = tempfile::tempdir().expect("no directory");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let content: Vec<u8> = (0..3_000_000_u32).map(|at| at.wrapping_mul(31).to_le_bytes()[1]).collect();
        std::fs::write(&from, &content).expect("not written");
        let size = content.len();
        let copies = [
            ("file.upload", json!({ "from": from, "path": "/large" }), Some(size)),
            // This provider does not tell the size of a file.
            ("file.download", json!({ "path": "/large", "to": to }), None),
        ];
        for (method, arguments, total) in copies {
            let start = json!({ "method": method, "arguments": session.at(arguments) });
            let started = call(&session.bridge, "transfer.start", start).await.expect("not started");
            let transfer = &started["transfer"];
            let seen = progress(&session, transfer).await;
            let counts: Vec<_> = seen.iter().map(|seen| seen["bytes"].as_u64().expect("no number")).collect();
            assert!(counts.is_sorted() && counts.last() == Some(&(size as u64)), "{method}: {counts:?}");
            assert_eq!(seen.last().expect("no progress")["total"], json!(total));
            assert_eq!(progress(&session, transfer).await, Vec::<Value>::new());
            for _ in 0..2 {
                let result = call(&session.bridge, "transfer.result", json!({ "transfer": transfer })).await;
                assert_eq!(result.expect("failed"), json!({ "bytes": size }));
            }
            call(&session.bridge, "close", json!({ "object": transfer })).await.expect("not closed");
            let later = call(&session.bridge, "transfer.next", json!({ "transfer": transfer })).await;
            assert_eq!(later.expect_err("it did not fail").kind(), CLOSED);
        }
        assert_eq!(std::fs::read(&to).expect("not read"), content);
        let missing = session.at(json!({ "from": folder.path().join("none"), "path": "/x" }));
        let start = json!({ "method": "file.upload", "arguments": missing });
        let started = call(&session.bridge, "transfer.start", start).await.expect("not started");
        assert_eq!(progress(&session, &started["transfer"]).await, Vec::<Value>::new());
        let failed = call(&session.bridge, "transfer.result", started).await.expect_err("it did not fail");
        assert_eq!(failed.kind(), "io:not-found");
    });
}

/// A pipe without a writer has no end, so its upload does not either.
#[cfg(unix)]
#[test]
fn a_closed_transfer_is_cancelled() {
    run(async {
        let session = Session::new().await;
        let folder = tempfile::tempdir().expect("no directory");
        let (pipe, file) = (folder.path().join("pipe"), "/from-a-pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("no mkfifo");
        assert!(made.success());
        // Open for reading too, so that neither side waits for the other.
        let mut writer = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("not opened");
        std::io::Write::write_all(&mut writer, b"begin").expect("not written");
        let arguments = session.at(json!({ "from": pipe, "path": file }));
        let start = json!({ "method": "file.upload", "arguments": arguments });
        let started = call(&session.bridge, "transfer.start", start).await.expect("not started");
        let next = call(&session.bridge, "transfer.next", started.clone()).await.expect("no progress");
        assert_eq!(next, json!({ "bytes": 5, "total": null }));
        let waiting = call(&session.bridge, "transfer.result", started.clone());
        let closing = async {
            tokio::task::yield_now().await;
            call(&session.bridge, "close", json!({ "object": started["transfer"] })).await.expect("not closed");
        };
        let (ended, ()) = tokio::join!(waiting, closing);
        assert_eq!(ended.expect_err("it did not fail").kind(), CLOSED);
        // Its thread waits for more, and would keep the runtime.
        drop(writer);
        let missing = session.call("file.read", json!({ "path": file })).await.expect_err("it was uploaded");
        assert_eq!(missing.kind(), "file:not-found");
    });
}

#[test]
fn the_end_of_a_bridge_ends_its_calls() {
    run(async {
        let session = Session::new().await;
        let wait = json!({ "command": { "argv": ["sleep", "1000"] } });
        let running = session.call("sandbox.run", wait);
        let closing = async {
            tokio::task::yield_now().await;
            session.bridge.close_all();
        };
        let (ended, ()) = tokio::join!(running, closing);
        assert_eq!(ended.expect_err("it did not fail").kind(), CLOSED);
        let later = call(&session.bridge, "version", json!({})).await.expect_err("it did not fail");
        assert_eq!(later.kind(), CLOSED);
    });
}

#[test]
fn a_cancelled_run_kills_its_command() {
    run(async {
        let session = Session::new().await;
        let command = json!({ "command": { "argv": ["sleep", "1000"], "id": "the-exec" } });
        let wait = {
            let mut running = std::pin::pin!(session.call("sandbox.run", command));
            let deadline = Instant::now() + Duration::from_secs(30);
            // The command has started when a wait for it does not fail.
            loop {
                assert!(Instant::now() < deadline, "the command does not start");
                let attached = session.call("process.attach", json!({ "exec": "the-exec" })).await;
                let wait = json!({ "process": attached.expect("not attached")["process"] });
                let waited = call(&session.bridge, "process.wait", wait.clone());
                tokio::select! {
                    ended = &mut running => panic!("it ended: {ended:?}"),
                    waited = tokio::time::timeout(Duration::from_millis(100), waited) => match waited {
                        Ok(Err(fault)) => assert_eq!(fault.kind(), "not-found"),
                        Ok(Ok(verdict)) => panic!("it ended: {verdict}"),
                        Err(_) => break wait,
                    }
                }
            }
        };
        let verdict = call(&session.bridge, "process.wait", wait).await.expect("failed");
        assert_eq!(verdict, json!({ "signaled": 9 }));
    });
}

#[test]
fn a_detached_process_continues() {
    run(async {
        let session = Session::new().await;
        let process = session.start(&["cat"]).await;
        let one = json!({ "process": process });
        full(&session.bridge, "process.write", one.clone(), b"kept").await.expect("not written");
        let stdout = |process: &Value| json!({ "process": process, "stream": "stdout" });
        full(&session.bridge, "process.read", stdout(&process), b"").await.expect("not read");
        let detached = call(&session.bridge, "process.detach", one).await.expect("not detached");
        let attached = session.call("process.attach", detached).await.expect("not attached");
        let process = attached["process"].clone();
        let read = full(&session.bridge, "process.read", stdout(&process), b"").await.expect("not read");
        assert_eq!(read.parts[0], b"kept");
        call(&session.bridge, "process.kill", json!({ "process": process })).await.expect("not killed");
        let verdict = call(&session.bridge, "process.wait", json!({ "process": process })).await.expect("failed");
        assert_eq!(verdict, json!({ "signaled": 9 }));
    });
}

#[test]
fn leases_and_lists() {
    run(async {
        let bridge = Bridge::new();
        let open =
            json!({ "component": component(), "owner": "test", "lease_ms": 60_000, "limits": { "call_time": 1000 } });
        let opened = call(&bridge, "provider.open", open).await.expect("no provider");
        let provider = opened["provider"].clone();
        let run = opened["run_id"].as_str().expect("no run").to_owned();
        let create = json!({ "provider": provider, "spec": { "tags": { "team": "evals" } } });
        let created = call(&bridge, "sandbox.create", create).await.expect("no sandbox");
        let tags: Vec<(String, String)> = serde_json::from_value(created["info"]["tags"].clone()).expect("no pairs");
        assert!(
            tags.contains(&("team".into(), "evals".into())) && tags.iter().any(|(_, value)| *value == run),
            "{tags:?}"
        );
        let free = json!({ "provider": provider, "spec": { "lease": false } });
        let free = call(&bridge, "sandbox.create", free).await.expect("no sandbox");
        assert_eq!(free["info"]["tags"], json!([]));
        let listed = call(&bridge, "sandbox.list", json!({ "provider": provider, "tags": [["team", "evals"]] })).await;
        let listed = listed.expect("no list");
        assert_eq!(listed.as_array().expect("no list").len(), 1);
        let metrics = call(&bridge, "provider.metrics", json!({ "provider": provider })).await.expect("no numbers");
        assert!(metrics["calls"].as_u64().is_some_and(|calls| calls >= 3), "{metrics}");
        assert!(metrics["prometheus"].as_str().is_some_and(|text| text.contains("sandbox_host_calls_total")));
        let lacking = call(&bridge, "volume.delete", json!({ "provider": provider, "name": "x" })).await;
        let lacking = lacking.expect_err("it has volumes");
        assert_eq!((lacking.kind(), lacking.subject()), ("unsupported", Some("volumes")));
    });
}
