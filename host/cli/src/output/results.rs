//! The results of commands as JSON.

use sandbox_host::types::{FileInfo, FileKind, PortKind, SandboxInfo, SandboxState, SidecarInfo, Tunnel};
use serde_json::{Value, json};

use super::text::{end_text, state_text};

pub fn tunnel_json(tunnel: &Tunnel) -> Value {
    let kind = match tunnel.kind {
        PortKind::Tls => "tls",
        PortKind::H2 => "h2",
        PortKind::Tcp => "tcp",
    };
    json!({ "port": tunnel.port, "kind": kind, "host": tunnel.public_host, "public_port": tunnel.public_port })
}

pub fn tags_json(tags: &[(String, String)]) -> Value {
    tags.iter().map(|(key, value)| (key.clone(), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

pub fn info_json(info: &SandboxInfo) -> Value {
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

pub fn sidecar_json(sidecar: &SidecarInfo) -> Value {
    json!({ "id": sidecar.id, "name": sidecar.name, "state": state_text(&sidecar.state) })
}

fn kind_name(kind: &FileKind) -> &str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink(_) => "symlink",
        FileKind::Other(name) => name,
    }
}

pub fn entry_json(entry: &FileInfo) -> serde_json::Value {
    let mut value = json!({
        "name": entry.name, "path": entry.path, "kind": kind_name(&entry.kind), "size": entry.size,
        "mode": format!("{:04o}", entry.mode), "owner": entry.owner, "group": entry.group,
        "modified_ms": entry.modified,
    });
    if let FileKind::Symlink(target) = &entry.kind {
        value["target"] = json!(target);
    }
    value
}
