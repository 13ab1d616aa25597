//! Sandboxes. A sandbox is a container whose first process is the helper program. Its labels mark it as a sandbox and hold
//! what the engine has no field for.

pub mod create;
pub mod list;
pub mod logs;
pub mod manage;
pub mod options;
pub mod snapshot;
pub mod usage;

use sandbox_provider_kit::{
    Error, Result,
    api::{
        error::{clip, shown},
        records,
        wit::{EndReason, Pair, PortKind, SandboxInfo, SandboxState, Tunnel},
    },
    call::json::Value,
};

use crate::{
    engine::{Call, Engine, failed, items, pairs},
    helper::{Helper, Notes},
};

/// The label of every sandbox. Its value is the version of what the other labels mean.
pub const LABEL: &str = "harness-sandbox";
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

/// The beginning of the names of containers whose sandbox has a name.
const NAME_PREFIX: &str = "sandbox.";

/// The note with the tags that replace those of the label.
const TAGS_NOTE: &str = "tags";

/// The note that says why a sandbox ended. The helper program writes it.
const END_NOTE: &str = "end";

/// The content of the note for a sandbox that was stopped.
const STOPPED: &str = "stopped";

/// Checks the form of a sandbox id, so that it can stand in a path.
///
/// # Errors
///
/// `not-found` for another form: this provider never assigned such an id.
pub fn check_id(id: &str) -> Result<()> {
    let good = id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if good { Ok(()) } else { Err(Error::not_found("sandbox", id)) }
}

/// The state of a container, as the engine reports it.
pub struct State(Value);

impl State {
    fn status(&self) -> &str {
        self.0.get("State").get("Status").text().unwrap_or_default()
    }

    /// Returns the state of the sandbox as far as the engine knows it: `None` if the container has ended.
    fn known(&self) -> Option<SandboxState> {
        let error = self.0.get("State").get("Error").text().unwrap_or_default();
        Some(match self.status() {
            "running" | "restarting" => SandboxState::Running,
            "paused" => SandboxState::Paused,
            _ if self.is_new() && error.is_empty() => SandboxState::Pending,
            _ if self.is_new() => SandboxState::Ended(EndReason::FailedToStart(clip(error))),
            _ => return None,
        })
    }

    /// Returns the state of a container that has ended. A process that was killed left no note.
    fn ended(&self, notes: &Notes) -> SandboxState {
        let details = self.0.get("State");
        let code = details.get("ExitCode").whole::<i32>().unwrap_or_default();
        match notes.get(END_NOTE).as_deref() {
            Some(STOPPED) => SandboxState::Stopped,
            said => {
                let no_memory = details.get("OOMKilled").flag().unwrap_or(false);
                SandboxState::Ended(reason(said.unwrap_or_default(), code, no_memory))
            }
        }
    }

    /// Returns whether its processes have ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.status(), "exited" | "dead" | "removing" | "stopped")
    }

    /// Returns whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.status() == "paused"
    }

    /// Returns whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.status() == "running"
    }

    /// Returns whether it was created and not started yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        matches!(self.status(), "created" | "configured" | "initialized")
    }

    /// Returns a label, or `None`.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.0.get("Config").get("Labels").get(name).text()
    }

    /// Returns the whole description of the engine.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// Returns the name of the sandbox, or `None` if it has none.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let name = self.0.get("Name").text()?;
        name.trim_start_matches('/').strip_prefix(NAME_PREFIX).map(str::to_string)
    }
}

/// Asks for the state of a sandbox.
///
/// # Errors
///
/// `not-found` if the engine has no such container or it is not a sandbox.
pub async fn state(engine: &Engine, id: &str) -> Result<State> {
    check_id(id)?;
    match engine.json(Call::get(format!("/containers/{id}/json"))).await? {
        Ok(value) => {
            let state = State(value);
            if state.label(LABEL).is_some() { Ok(state) } else { Err(Error::not_found("sandbox", id)) }
        }
        Err(refusal) if refusal.status() == Some(404) => Err(Error::not_found("sandbox", id)),
        Err(refusal) => Err(failed(&refusal, "look at the sandbox").about(id)),
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
    match state.known() {
        Some(known) => Ok(known),
        None => Ok(state.ended(&helper.notes(id, state).await?)),
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
    let value = &state.0;
    let image = value.get("Image").text().map(image_id);
    let created = value.get("Created").text().and_then(crate::time::parse);
    let notes = helper.notes(id, state).await?;
    Ok(SandboxInfo {
        name: state.name(),
        state: state.known().unwrap_or_else(|| state.ended(&notes)),
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

/// Returns the id of an image: the digest of the engine without its algorithm, because an id contains no colon.
#[must_use]
pub fn image_id(digest: &str) -> String {
    digest.strip_prefix("sha256:").unwrap_or(digest).to_string()
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
        tunnels.push(Tunnel { port: number, kind: PortKind::Tcp, public_host: host.to_string(), public_port });
    }
    tunnels.sort_by_key(|tunnel| tunnel.port);
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
        let text = r#"{"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"4000"}],"53/udp":null,"9/tcp":null}}}"#;
        let tunnels = tunnels_of(&Value::parse(text).expect("JSON"));
        assert_eq!(tunnels.len(), 1);
        assert_eq!((tunnels[0].port, tunnels[0].public_port, &tunnels[0].public_host[..]), (80, 4000, "127.0.0.1"));
    }
}
