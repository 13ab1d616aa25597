//! Manages sandboxes: wait, end, remove, tags, names, pause and resume, readiness, tunnels.

use std::time::Duration;

use futures_util::future::{Either, select};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::shown,
        time::bounded_wait,
        wit::{EndReason, ErrorKind, Pair, SandboxInfo, SandboxState, Tunnel},
    },
    call::json::Value,
};

use super::{
    END_NOTE, PROBE_LABEL, STOPPED, TAGS_LABEL, TAGS_NOTE, USER_LABEL, info, sandbox_state, shown_id, tags_text,
    tunnels_of, usage,
};
use crate::{
    engine::{Call, Engine, failed, items, reason, strings},
    helper::{Helper, Verb},
    inspect::{LABEL, NAME_PREFIX, containers, remove, state},
};

/// How long a sandbox that has ended is kept, so that callers learn how it ended.
const KEPT: Duration = Duration::from_secs(600);

/// How many ended sandboxes are looked at in one go.
const LOOKED_AT: usize = 8;

/// The time between two looks at something that the engine does not report by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Implements `wait`.
///
/// # Errors
///
/// `not-found`, or the error of the failed request.
pub async fn wait(helper: &Helper, id: &str, wait: u64) -> Result<Option<EndReason>> {
    let engine = helper.engine();
    let until = engine.now() + bounded_wait(wait);
    loop {
        let found = state(engine, id).await?;
        match sandbox_state(helper, id, &found).await? {
            SandboxState::Ended(reason) => return Ok(Some(reason)),
            _ if engine.now() >= until => return Ok(None),
            _ => {}
        }
        // A stopped sandbox would be reported at once, again and again.
        let over = found.is_over() || found.is_new();
        let left = until.saturating_sub(engine.now());
        let condition = async {
            if over {
                engine.transport().sleep(LOOK_AGAIN).await;
                return Ok::<_, Error>(());
            }
            let call = Call::post(format!("/containers/{id}/wait")).with("condition", "not-running");
            if let Ok(response) = engine.open(call).await? {
                let _ = sandbox_provider_kit::call::http::read(response.body, 64 * 1024).await;
            }
            // The state follows the answer. A broken connection must not be repeated without a pause.
            engine.transport().sleep(Duration::from_millis(20)).await;
            Ok(())
        };
        match select(std::pin::pin!(condition), engine.transport().sleep(left)).await {
            Either::Left((result, _)) => result?,
            Either::Right(_) => {}
        }
    }
}

/// Implements `terminate`.
///
/// # Errors
///
/// `not-found`, or the error of the failed request.
pub async fn terminate(helper: &Helper, id: &str) -> Result<()> {
    let engine = helper.engine();
    let found = state(engine, id).await?;
    if found.is_new() {
        return remove(engine, id).await;
    }
    if let SandboxState::Stopped = sandbox_state(helper, id, &found).await? {
        // Its end is noted as a stop. The first process takes that back when it starts.
        let call = Call::post(format!("/containers/{id}/start"));
        let started = engine.ask(call).await?;
        started.map_err(|refusal| failed(&refusal, "terminate the sandbox").about(id))?;
    } else if found.is_over() {
        return Ok(());
    }
    usage::keep(helper, id).await;
    let call = Call::post(format!("/containers/{id}/kill")).with("signal", "SIGKILL");
    if let Err(refusal) = engine.ask(call).await? {
        // It may have ended in the meantime.
        if !state(engine, id).await?.is_over() {
            return Err(failed(&refusal, "terminate the sandbox").about(id));
        }
    }
    Ok(())
}

/// Removes sandboxes that ended ten minutes ago or earlier, and the images whose time has passed. Errors are left to the
/// next call: they concern another sandbox.
pub async fn remove_old(engine: &Engine) {
    let Ok(ended) = containers(engine, LABEL, &["exited"]).await else { return };
    let now = engine.now();
    // The oldest come last.
    for container in ended.iter().rev().take(LOOKED_AT) {
        let Some(id) = container.get("Id").text() else { continue };
        let Ok(found) = state(engine, id).await else { continue };
        let finished = found.value().get("State").get("FinishedAt").text().and_then(crate::time::parse);
        let old = finished.is_some_and(|at| Duration::from_millis(at) + KEPT < now);
        let helper = Helper::new(engine.clone());
        if old && matches!(sandbox_state(&helper, id, &found).await, Ok(SandboxState::Ended(_))) {
            let _ = remove(engine, id).await;
        }
    }
}

/// Takes the name from a sandbox that has ended, so that another one can have it.
///
/// # Errors
///
/// The error of the failed request.
pub async fn free_name(engine: &Engine, id: &str) -> Result<()> {
    let call = Call::post(format!("/containers/{id}/rename")).with("name", format!("sandbox-ended.{id}"));
    match engine.ask(call).await? {
        Ok(_) => Ok(()),
        Err(refusal) => Err(failed(&refusal, "take the name from a sandbox that has ended")),
    }
}

/// Implements `get-tags`.
///
/// # Errors
///
/// `not-found`, or the error of the failed request.
pub async fn get_tags(helper: &Helper, id: &str) -> Result<Vec<Pair>> {
    let found = state(helper.engine(), id).await?;
    Ok(super::tags(&found, &helper.notes(id, &found).await?))
}

/// Implements `set-tags`. Labels cannot be changed, so the new tags are a file in the container.
///
/// # Errors
///
/// `not-found` or `sandbox-ended`, or the error of the failed request.
pub async fn set_tags(helper: &Helper, id: &str, tags: &[Pair]) -> Result<()> {
    let found = state(helper.engine(), id).await?;
    if found.is_over() {
        return Err(Error::ended(id));
    }
    let text = tags_text(tags);
    if found.label(TAGS_LABEL) == Some(text.as_str()) && helper.notes(id, &found).await?.get(TAGS_NOTE).is_none() {
        return Ok(());
    }
    helper.note(id, TAGS_NOTE, &text).await
}

/// Implements `find`.
///
/// # Errors
///
/// `not-found` if no running sandbox has the name.
pub async fn find(helper: &Helper, name: &str) -> Result<SandboxInfo> {
    check::name(name)?;
    let engine = helper.engine();
    let missing = || Error::not_found("running sandbox with the name", name);
    let found = engine.json(Call::get(format!("/containers/{NAME_PREFIX}{name}/json"))).await?;
    let found = match found {
        Ok(found) => found,
        Err(refusal) if refusal.status() == Some(404) => return Err(missing()),
        Err(refusal) => return Err(failed(&refusal, "look for the sandbox").about(name)),
    };
    let id = found.get("Id").text().unwrap_or_default();
    let found = state(engine, id).await.map_err(|error| if error.is_not_found() { missing() } else { error })?;
    if found.is_over() || found.name().as_deref() != Some(name) {
        return Err(missing());
    }
    info(helper, id, &found).await
}

/// Implements `set-name`.
///
/// # Errors
///
/// `conflict` if the sandbox has another name, `already-exists` if the name is taken.
pub async fn set_name(helper: &Helper, id: &str, name: &str) -> Result<()> {
    check::name(name)?;
    let engine = helper.engine();
    let found = state(engine, id).await?;
    match found.name() {
        Some(own) if own == name => return Ok(()),
        Some(own) => {
            let message = format!("The sandbox {} has the name `{own}` already.", shown_id(id));
            return Err(Error::new(ErrorKind::Conflict, message).about(name));
        }
        None if found.is_over() => return Err(Error::ended(id)),
        None => {}
    }
    let full = format!("{NAME_PREFIX}{name}");
    let rename = || Call::post(format!("/containers/{id}/rename")).with("name", full.as_str());
    let Err(refusal) = engine.ask(rename()).await? else { return Ok(()) };
    let taken = refusal.status() == Some(409) || reason(&refusal).contains("already in use");
    if !taken {
        return Err(failed(&refusal, "name the sandbox").about(name));
    }
    if let Ok(holder) = engine.json(Call::get(format!("/containers/{full}/json"))).await?
        && let Some(holder) = holder.get("Id").text()
        && state(engine, holder).await.is_ok_and(|held| held.is_over())
    {
        free_name(engine, holder).await?;
        if engine.ask(rename()).await?.is_ok() {
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::AlreadyExists, format!("The name `{name}` is taken by another sandbox.")).about(name))
}

/// Implements `wait-running`.
///
/// # Errors
///
/// `sandbox-ended`, `not-found`, or the error of the failed request.
pub async fn wait_running(helper: &Helper, id: &str, wait: u64) -> Result<bool> {
    let engine = helper.engine();
    let until = engine.now() + bounded_wait(wait);
    loop {
        let found = state(engine, id).await?;
        match sandbox_state(helper, id, &found).await? {
            SandboxState::Running => return Ok(true),
            SandboxState::Ended(_) => return Err(Error::ended(id)),
            _ if engine.now() >= until => return Ok(false),
            _ => engine.transport().sleep(LOOK_AGAIN.min(until.saturating_sub(engine.now()))).await,
        }
    }
}

/// Implements `extend`.
///
/// # Errors
///
/// `invalid-argument` for no time, `sandbox-ended`, `conflict` if it does not run, `not-found`, or the error of the helper.
pub async fn extend(helper: &Helper, id: &str, lifetime: u64) -> Result<u64> {
    if lifetime == 0 {
        return Err(Error::invalid("The lifetime is 0: give a positive time.").about("lifetime"));
    }
    let found = state(helper.engine(), id).await?;
    match sandbox_state(helper, id, &found).await? {
        SandboxState::Ended(_) => return Err(Error::ended(id)),
        SandboxState::Stopped => {
            let message = "The sandbox is stopped: resume it before you extend its lifetime.";
            return Err(Error::new(ErrorKind::Conflict, message).about(id));
        }
        _ => {}
    }
    let answer = helper.json(id, &Verb::new("extend").with("lifetime", lifetime)).await?;
    answer.get("end").whole().ok_or_else(|| Error::internal("The helper program returned no time."))
}

/// Implements `pause`.
///
/// # Errors
///
/// `sandbox-ended`, `conflict` if it does not run, `not-found`, or the error of the failed request.
pub async fn pause(helper: &Helper, id: &str) -> Result<()> {
    change(helper, id, "pause", |state| matches!(state, SandboxState::Paused)).await
}

/// Implements `stop`: notes that the end is a stop, and ends all processes.
///
/// # Errors
///
/// `sandbox-ended`, `not-found`, or the error of the failed request.
pub async fn stop(helper: &Helper, id: &str) -> Result<()> {
    let engine = helper.engine();
    let found = state(engine, id).await?;
    match sandbox_state(helper, id, &found).await? {
        SandboxState::Stopped => return Ok(()),
        SandboxState::Ended(_) => return Err(Error::ended(id)),
        _ => {}
    }
    helper.note(id, END_NOTE, STOPPED).await?;
    let call = Call::post(format!("/containers/{id}/kill")).with("signal", "SIGKILL");
    if let Err(refusal) = engine.ask(call).await? {
        let now = state(engine, id).await?;
        if !now.is_over() {
            let _ = helper.note(id, END_NOTE, "").await;
            return Err(failed(&refusal, "stop the sandbox").about(id));
        }
    }
    // The state follows the answer.
    let until = engine.now() + Duration::from_secs(10);
    while !state(engine, id).await?.is_over() && engine.now() < until {
        engine.transport().sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Implements `resume`.
///
/// # Errors
///
/// `sandbox-ended`, `not-found`, or the error of the failed request.
pub async fn resume(helper: &Helper, id: &str) -> Result<()> {
    let engine = helper.engine();
    let found = state(engine, id).await?;
    if let SandboxState::Stopped = sandbox_state(helper, id, &found).await? {
        // The first process notes that the end was none.
        return match engine.ask(Call::post(format!("/containers/{id}/start"))).await? {
            Ok(_) => Ok(()),
            Err(refusal) => Err(failed(&refusal, "resume the sandbox").about(id)),
        };
    }
    change(helper, id, "unpause", |state| matches!(state, SandboxState::Running)).await
}

/// Sends a change of the state, unless the sandbox `is` in that state.
async fn change(helper: &Helper, id: &str, what: &str, is: fn(&SandboxState) -> bool) -> Result<()> {
    let engine = helper.engine();
    let found = state(engine, id).await?;
    let now = sandbox_state(helper, id, &found).await?;
    if is(&now) {
        return Ok(());
    }
    if let SandboxState::Ended(_) = now {
        return Err(Error::ended(id));
    }
    let Err(refusal) = engine.ask(Call::post(format!("/containers/{id}/{what}"))).await? else { return Ok(()) };
    // Another caller may have done it in the meantime.
    let found = state(engine, id).await?;
    if is(&sandbox_state(helper, id, &found).await?) {
        return Ok(());
    }
    let mut error = failed(&refusal, &format!("{what} the sandbox")).about(id);
    if refusal.status() == Some(409) {
        error.kind = ErrorKind::Conflict;
    }
    Err(error)
}

/// Implements `wait-ready`.
///
/// # Errors
///
/// `conflict` if the sandbox has no probe, `sandbox-ended`, `not-found`, or the error of the helper.
pub async fn wait_ready(helper: &Helper, id: &str, wait: u64) -> Result<bool> {
    let engine = helper.engine();
    let until = engine.now() + bounded_wait(wait);
    let found = state(engine, id).await?;
    let Some(probe) = found.label(PROBE_LABEL).and_then(Value::parse) else {
        return Err(Error::new(ErrorKind::Conflict, "The sandbox has no readiness probe.").about(id));
    };
    if found.is_over() {
        return Err(Error::ended(id));
    }
    let verb = match probe.get("port").whole::<u16>() {
        Some(port) => Verb::new("probe").with("port", port),
        None => Verb::new("probe").maybe("user", found.label(USER_LABEL)).words(&strings(probe.get("argv"))),
    };
    let interval = Duration::from_millis(probe.get("interval").whole().unwrap_or(super::create::DEFAULT_INTERVAL_MS));
    loop {
        if helper.json(id, &verb).await?.get("ready").flag() == Some(true) {
            return Ok(true);
        }
        let left = until.saturating_sub(engine.now());
        if left.is_zero() {
            return Ok(false);
        }
        engine.transport().sleep(interval.min(left)).await;
    }
}

/// Implements `tunnels`.
///
/// # Errors
///
/// `sandbox-ended`, `timed-out` if ports are not assigned, `not-found`, or the error of the failed request.
pub async fn tunnels(helper: &Helper, id: &str, wait: u64) -> Result<Vec<Tunnel>> {
    let engine = helper.engine();
    let until = engine.now() + bounded_wait(wait);
    loop {
        let found = state(engine, id).await?;
        if found.is_over() {
            return Err(Error::ended(id));
        }
        let tunnels = tunnels_of(found.value());
        let wanted = match found.value().get("HostConfig").get("PortBindings") {
            Value::Map(ports) => ports.len(),
            _ => 0,
        };
        if tunnels.len() >= wanted {
            return Ok(tunnels);
        }
        if engine.now() >= until {
            let message = format!("The engine has not published all ports of the sandbox {}.", shown(&shown_id(id)));
            return Err(Error::new(ErrorKind::TimedOut, message).about(id));
        }
        engine.transport().sleep(LOOK_AGAIN.min(until.saturating_sub(engine.now()))).await;
    }
}

/// Implements `delete-volume`.
///
/// # Errors
///
/// `conflict` if a container uses the volume, `invalid-argument` for a name that cannot be one, or the error of the failed
/// request.
pub async fn delete_volume(helper: &Helper, volume: &str) -> Result<()> {
    check::name(volume)?;
    let engine = helper.engine();
    let delete = || Call::delete(format!("/volumes/{volume}"));
    let refusal = match engine.ask(delete()).await? {
        Ok(_) => return Ok(()),
        Err(refusal) if refusal.status() == Some(404) => return Ok(()),
        Err(refusal) => refusal,
    };
    // A sandbox that has ended is kept for a while, and holds its volumes.
    let mut removed = false;
    for container in containers(engine, LABEL, &["exited"]).await? {
        let mounts = items(container.get("Mounts")).iter().filter_map(|mount| mount.get("Name").text());
        let Some(id) = container.get("Id").text().filter(|_| mounts.into_iter().any(|name| name == volume)) else {
            continue;
        };
        let found = state(engine, id).await?;
        if matches!(sandbox_state(helper, id, &found).await?, SandboxState::Ended(_)) {
            remove(engine, id).await?;
            removed = true;
        }
    }
    let refusal = match removed {
        true => match engine.ask(delete()).await? {
            Ok(_) => return Ok(()),
            Err(refusal) => refusal,
        },
        false => refusal,
    };
    let mut error = failed(&refusal, "delete the volume").about(volume);
    // Podman answers 409 or 500.
    if reason(&refusal).contains("in use") || reason(&refusal).contains("being used") {
        error.kind = ErrorKind::Conflict;
    }
    Err(error)
}
