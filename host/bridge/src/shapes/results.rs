//! The records that calls return.

use super::basic::{Extras, Pairs};
use super::spec::PortKind;

variant! {
    Support { Absent, Emulated, Native }
    EndReason {
        Finished(code: i32), Terminated, Lifetime, Idle, OutOfMemory, FailedToStart(why: String), Lost(why: String),
        Other(name: String),
    }
    SandboxState { Pending, Running, Paused, Stopped, Ended(reason: EndReason), Unknown, Other(name: String) }
    OutputStream { Stdout, Stderr }
    Verdict {
        Exited(code: i32), Signaled(signal: u32), Deadline, SandboxEnded(reason: EndReason), OutOfMemory, Lost(why: String),
        Other(name: String),
    }
    FileKind { File, Directory, Symlink(target: String), Other(name: String) }
    FileEventKind { Created, Modified, Removed, Accessed, Other(name: String) }
}

record! {
    Capability { name: String, support: Support, note: String }
    EnvVar { name: String, purpose: String, default: Option<String>, secret: bool }
    Description {
        name: String,
        version: String,
        capabilities: Vec<Capability>,
        options_schema: String,
        environment: Vec<EnvVar>,
        digests: Vec<String>,
        extra: Extras,
    }
    LogChunk { stream: Option<OutputStream>, text: String, at: Option<u64> }
    LogPage { items: Vec<LogChunk>, next: Option<String> }
    BuiltImage { id: String, workdir: Option<String>, extra: Extras }
    Tunnel { port: u16, kind: PortKind, public_host: String, public_port: u16 }
    SandboxInfo {
        id: String,
        name: Option<String>,
        state: SandboxState,
        image: Option<String>,
        created: Option<u64>,
        tags: Pairs,
        tunnels: Vec<Tunnel>,
        extra: Extras,
    }
    SidecarInfo { id: String, name: String, state: SandboxState }
    Usage { cpu_core_millis: u64, memory_mib_millis: u64, gpu_millis: u64, extra: Extras }
    Distribution {
        name: String,
        unit: String,
        mean: Option<f64>,
        max: Option<f64>,
        percentiles: Vec<(f64, f64)>,
    }
    UsageReport {
        totals: Usage,
        cost: Option<f64>,
        cost_by_resource: Vec<(String, f64)>,
        billed_cpu_core_millis: Option<u64>,
        billed_memory_mib_millis: Option<u64>,
        running: Option<u64>,
        distributions: Vec<Distribution>,
        extra: Extras,
    }
    ConnectToken { url: String, headers: Pairs, expires: Option<u64> }
    ExecInfo {
        id: String,
        argv: Vec<String>,
        started: Option<u64>,
        verdict: Option<Verdict>,
        container: Option<String>,
    }
    FileInfo {
        name: String,
        path: String,
        kind: FileKind,
        size: u64,
        mode: u32,
        owner: String,
        group: String,
        modified: u64,
    }
    FileEvent { kind: FileEventKind, paths: Vec<String> }
}

#[cfg(test)]
mod tests {
    use sandbox_host::types;
    use serde_json::json;

    use super::*;
    use crate::shapes::basic::Shape;

    #[test]
    fn variants_have_the_names_of_the_interface() {
        let write = |verdict| serde_json::to_value(Verdict::from_wit(verdict)).expect("cannot be written");
        assert_eq!(write(types::Verdict::Exited(3)), json!({ "exited": 3 }));
        assert_eq!(write(types::Verdict::OutOfMemory), json!("out-of-memory"));
        let ended = types::Verdict::SandboxEnded(types::EndReason::FailedToStart("x".into()));
        assert_eq!(write(ended), json!({ "sandbox-ended": { "failed-to-start": "x" } }));
        let state = SandboxState::from_wit(types::SandboxState::Ended(types::EndReason::Lifetime));
        assert_eq!(serde_json::to_value(state).expect("cannot be written"), json!({ "ended": "lifetime" }));
    }

    #[test]
    fn a_sandbox_is_written_as_it_is() {
        let info = types::SandboxInfo {
            id: "sb".into(),
            name: None,
            state: types::SandboxState::Running,
            image: Some("im".into()),
            created: Some(5),
            tags: vec![("a".into(), "b".into())],
            tunnels: vec![types::Tunnel {
                port: 1,
                kind: types::PortKind::Tcp,
                public_host: "h".into(),
                public_port: 2,
            }],
            extra: vec![("backend".into(), "\"v2\"".into())],
        };
        let expected = json!({
            "id": "sb",
            "name": null,
            "state": "running",
            "image": "im",
            "created": 5,
            "tags": [["a", "b"]],
            "tunnels": [{ "port": 1, "kind": "tcp", "public_host": "h", "public_port": 2 }],
            "extra": [["backend", "\"v2\""]],
        });
        assert_eq!(serde_json::to_value(SandboxInfo::from_wit(info)).expect("cannot be written"), expected);
    }
}
