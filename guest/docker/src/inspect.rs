//! Containers as the engine reports them: their states, lists and removal. A sandbox is a container with the label [`LABEL`].

use sandbox_provider_kit::{Error, Result, call::json::Value};

use crate::engine::{Call, Engine, failed, items, map, texts};

/// The label of every sandbox. Its value is the version of what the other labels mean.
pub const LABEL: &str = "harness-sandbox";

/// The beginning of the names of containers whose sandbox has a name.
pub const NAME_PREFIX: &str = "sandbox.";

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
    /// Returns the engine's word for it.
    #[must_use]
    pub fn status(&self) -> &str {
        self.0.get("State").get("Status").text().unwrap_or_default()
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
    match engine.json(Call::get(format!("/containers/{id}/json")).quick()).await? {
        Ok(value) => {
            let state = State(value);
            if state.label(LABEL).is_some() { Ok(state) } else { Err(Error::not_found("sandbox", id)) }
        }
        Err(refusal) if refusal.status() == Some(404) => Err(Error::not_found("sandbox", id)),
        Err(refusal) => Err(failed(&refusal, "look at the sandbox").about(id)),
    }
}

/// Asks for the containers that have a label, also for ended ones, newest first.
///
/// # Errors
///
/// The error of the failed request.
pub async fn containers(engine: &Engine, label: &str, statuses: &[&str]) -> Result<Vec<Value>> {
    let mut filters = vec![("label", texts([label]))];
    if !statuses.is_empty() {
        filters.push(("status", texts(statuses)));
    }
    let call = Call::get("/containers/json").with("all", "1").with("filters", map(filters).to_string());
    let found = engine.json(call).await?.map_err(|refusal| failed(&refusal, "list the sandboxes"))?;
    let mut found = items(&found).to_vec();
    found.sort_by_key(|container| std::cmp::Reverse(container.get("Created").whole::<u64>().unwrap_or_default()));
    Ok(found)
}

/// Removes a container with its anonymous volumes.
///
/// # Errors
///
/// The error of the failed request. A container that does not exist is none.
pub async fn remove(engine: &Engine, id: &str) -> Result<()> {
    let call = Call::delete(format!("/containers/{id}")).with("force", "1").with("v", "1");
    match engine.ask(call).await? {
        Ok(_) => Ok(()),
        Err(refusal) if matches!(refusal.status(), Some(404 | 409)) => Ok(()),
        Err(refusal) => Err(failed(&refusal, "remove the sandbox").about(id)),
    }
}
