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
