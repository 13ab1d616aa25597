//! Sandboxes. A sandbox is a container whose first process is the helper program. Its labels mark it as a sandbox and hold
//! what the engine has no field for.

pub mod create;
pub mod list;
pub mod logs;
pub mod manage;
pub mod snapshot;
pub mod usage;

use sandbox_provider_kit::{
    Result,
    api::{
        error::{clip, shown},
        records,
        wit::{EndReason, Pair, PortKind, SandboxInfo, SandboxState, Tunnel},
    },
    call::json::Value,
};

use crate::{
    engine::{items, pairs},
    helper::{Helper, Notes},
    image::image_id,
    inspect::{State, state},
};

/// The label with the key of the create request.
pub const KEY_LABEL: &str = "harness-sandbox.key";
/// The label with the tags of the create request, as JSON.
pub const TAGS_LABEL: &str = "harness-sandbox.tags";
/// The label with the user of all commands.
pub const USER_LABEL: &str = "harness-sandbox.user";
/// The label with the readiness probe, as JSON.
pub const PROBE_LABEL: &str = "harness-sandbox.probe";
/// The label with the time at which an image may be deleted, in milliseconds since the Unix epoch.
pub const EXPIRES_LABEL: &str = "harness-sandbox.expires";

/// The note with the tags that replace those of the label.
const TAGS_NOTE: &str = "tags";

/// The note that says why a sandbox ended. The helper program writes it.
const END_NOTE: &str = "end";

/// The content of the note for a sandbox that was stopped.
const STOPPED: &str = "stopped";

/// Returns the state of the sandbox as far as the engine knows it: `None` if the container has ended.
fn known(state: &State) -> Option<SandboxState> {
    let error = state.value().get("State").get("Error").text().unwrap_or_default();
    Some(match state.status() {
        "running" | "restarting" => SandboxState::Running,
        "paused" => SandboxState::Paused,
        _ if state.is_new() && error.is_empty() => SandboxState::Pending,
        _ if state.is_new() => SandboxState::Ended(EndReason::FailedToStart(clip(error))),
        _ => return None,
    })
}

/// Returns the state of a container that has ended. A process that was killed left no note.
fn ended(state: &State, notes: &Notes) -> SandboxState {
    let details = state.value().get("State");
    let code = details.get("ExitCode").whole::<i32>().unwrap_or_default();
    match notes.get(END_NOTE).as_deref() {
        Some(STOPPED) => SandboxState::Stopped,
        said => {
            let no_memory = details.get("OOMKilled").flag().unwrap_or(false);
            SandboxState::Ended(reason(said.unwrap_or_default(), code, no_memory))
        }
    }
}

/// Returns why a sandbox has ended, or `None` if it has not.
///
/// # Errors
///
/// As for [`state`].
pub async fn end(helper: &Helper, id: &str) -> Result<Option<EndReason>> {
    let state = state(helper.engine(), id).await?;
    Ok(match sandbox_state(helper, id, &state).await? {
        SandboxState::Ended(reason) => Some(reason),
        _ => None,
    })
}

/// Converts the state of a container. Reads its notes if it has ended.
///
/// # Errors
///
/// The error of the failed request.
pub async fn sandbox_state(helper: &Helper, id: &str, state: &State) -> Result<SandboxState> {
    match known(state) {
        Some(known) => Ok(known),
        None => Ok(ended(state, &helper.notes(id, state).await?)),
    }
}

/// Returns why a sandbox ended. `said` is what its first process wrote.
fn reason(said: &str, code: i32, no_memory: bool) -> EndReason {
    /// The exit codes of a process that SIGKILL or SIGTERM ended.
    const KILLED: [i32; 2] = [137, 143];
    let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
    match word {
        "lifetime" => EndReason::Lifetime,
        "idle" => EndReason::Idle,
        "out-of-memory" => EndReason::OutOfMemory,
        "finished" => EndReason::Finished(rest.trim().parse().unwrap_or(code)),
        "failed" => EndReason::FailedToStart(clip(rest)),
        _ if KILLED.contains(&code) => EndReason::Terminated,
        _ if no_memory => EndReason::OutOfMemory,
        _ => EndReason::Lost(format!("The first process of the container ended with code {code}.")),
    }
}

/// Describes a sandbox.
///
/// # Errors
///
/// The error of a failed request for its tags or the reason of its end.
pub async fn info(helper: &Helper, id: &str, state: &State) -> Result<SandboxInfo> {
    let value = state.value();
    let image = value.get("Image").text().map(image_id);
    let created = value.get("Created").text().and_then(crate::time::parse);
    let notes = helper.notes(id, state).await?;
    Ok(SandboxInfo {
        name: state.name(),
        state: known(state).unwrap_or_else(|| ended(state, &notes)),
        image,
        created,
        tags: tags(state, &notes),
        tunnels: tunnels_of(value),
        ..records::sandbox_info(id)
    })
}

/// Returns the tags of a sandbox: those that replaced the first ones, or the first ones.
#[must_use]
pub fn tags(state: &State, notes: &Notes) -> Vec<Pair> {
    let newer = notes.get(TAGS_NOTE);
    let text = newer.as_deref().or(state.label(TAGS_LABEL)).unwrap_or("{}");
    pairs(&Value::parse(text).unwrap_or(Value::Null))
}

/// Returns where the published ports of a container are reached.
#[must_use]
pub fn tunnels_of(container: &Value) -> Vec<Tunnel> {
    let Value::Map(ports) = container.get("NetworkSettings").get("Ports") else { return Vec::new() };
    let mut tunnels: Vec<Tunnel> = Vec::new();
    for (port, bindings) in ports {
        let Some(number) = port.strip_suffix("/tcp").and_then(|number| number.parse().ok()) else { continue };
        // A port has a binding for each address family. The first one is enough.
        let Some(binding) = items(bindings).first() else { continue };
        let Some(public_port) = binding.get("HostPort").text().and_then(|port| port.parse().ok()) else { continue };
        let host = match binding.get("HostIp").text() {
            None | Some("" | "0.0.0.0" | "::") => "127.0.0.1",
            Some(host) => host,
        };
        // In the order of the ports. They are few, and a sort is much code.
        let place = tunnels.partition_point(|tunnel| tunnel.port < number);
        tunnels.insert(place, Tunnel { port: number, kind: PortKind::Tcp, public_host: host.to_string(), public_port });
    }
    tunnels
}

/// Returns the tags of a request as they are stored: JSON, the last value of each name.
fn tags_text(tags: &[Pair]) -> String {
    let mut members: Vec<(String, Value)> = Vec::new();
    for (name, value) in tags {
        members.retain(|(other, _)| other != name);
        members.push((name.clone(), Value::Text(value.clone())));
    }
    Value::Map(members).to_string()
}

/// Returns the error for an id in a message.
fn shown_id(id: &str) -> String {
    shown(&id.chars().take(12).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        assert!(matches!(reason("", 137, false), EndReason::Terminated));
        assert!(matches!(reason("", 137, true), EndReason::Terminated));
        assert!(matches!(reason("", 1, true), EndReason::OutOfMemory));
        assert!(matches!(reason("", 1, false), EndReason::Lost(text) if text.contains("code 1")));
        assert!(matches!(reason("lifetime", 0, false), EndReason::Lifetime));
        assert!(matches!(reason("idle", 0, false), EndReason::Idle));
        assert!(matches!(reason("finished 3", 3, false), EndReason::Finished(3)));
        assert!(
            matches!(reason("failed no such program", 127, false), EndReason::FailedToStart(text) if text.starts_with("no"))
        );
    }

    #[test]
    fn the_last_value_of_a_tag_counts() {
        let tags = [("a", "1"), ("b", "x\"y"), ("a", "2")].map(|(name, value)| (name.to_string(), value.to_string()));
        let text = tags_text(&tags);
        assert_eq!(text, r#"{"b":"x\"y","a":"2"}"#);
        assert_eq!(pairs(&Value::parse(&text).expect("JSON")).len(), 2);
    }

    #[test]
    fn published_ports_are_found() {
        let text = r#"{"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"4000"}],"7/tcp":[{"HostIp":"::1","HostPort":"4001"}],"90/tcp":[{"HostPort":"2"}],"53/udp":null,"9/tcp":null}}}"#;
        let tunnels = tunnels_of(&Value::parse(text).expect("JSON"));
        let found: Vec<_> = tunnels.iter().map(|it| (it.port, it.public_port, &it.public_host[..])).collect();
        assert_eq!(found, [(7, 4001, "::1"), (80, 4000, "127.0.0.1"), (90, 2, "127.0.0.1")]);
    }
}
