//! Lists sandboxes.

use futures_util::future::join_all;
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        wit::{ListFilter, SandboxInfo, SandboxPage, SandboxState},
    },
};

use super::info;
use crate::{
    engine::{Engine, cursor_of, newest_first, position},
    helper::Helper,
    inspect::{LABEL, containers, state},
};

/// How many sandboxes are looked at together.
const BATCH: usize = 16;

/// Returns the id of the sandbox that has this value of a label, or `None`.
///
/// # Errors
///
/// The error of the failed request.
pub async fn with_label(engine: &Engine, label: &str, value: &str) -> Result<Option<String>> {
    let found = containers(engine, &format!("{label}={value}"), &[]).await?;
    Ok(found.first().and_then(|container| container.get("Id").text()).map(str::to_string))
}

/// Implements `list`. The cursor is the time of creation and the id of the last sandbox of a page.
///
/// # Errors
///
/// `invalid-argument` for a wrong cursor, 0 sandboxes or an extra field; otherwise the error of the failed request.
pub async fn list(helper: &Helper, filter: &ListFilter, cursor: Option<&str>, max: u32) -> Result<SandboxPage> {
    check::extra(&filter.extra)?;
    if max == 0 {
        return Err(Error::invalid("max is 0: ask for at least one sandbox.").about("max"));
    }
    let after = cursor.map(position).transpose()?;
    let mut found: Vec<(u64, String)> = containers(helper.engine(), LABEL, &[])
        .await?
        .iter()
        .filter_map(|container| Some((container.get("Created").whole()?, container.get("Id").text()?.to_string())))
        .collect();
    newest_first(&mut found);
    if let Some(after) = after {
        found.retain(|position| *position < after);
    }
    let mut items: Vec<((u64, String), SandboxInfo)> = Vec::new();
    for batch in found.chunks(BATCH) {
        let infos = join_all(batch.iter().map(|(_, id)| async move {
            let state = state(helper.engine(), id).await?;
            info(helper, id, &state).await
        }));
        for (position, info) in batch.iter().zip(infos.await) {
            // Between the two requests, a container may have been removed.
            let info = match info {
                Err(error) if error.is_not_found() => continue,
                info => info?,
            };
            let over = matches!(info.state, SandboxState::Ended(_));
            if (filter.include_ended || !over) && filter.tags.iter().all(|tag| info.tags.contains(tag)) {
                items.push((position.clone(), info));
            }
        }
        if items.len() > max as usize {
            break;
        }
    }
    let more = items.len() > max as usize;
    items.truncate(max as usize);
    let next = items.last().filter(|_| more).map(|(position, _)| cursor_of(position));
    Ok(SandboxPage { items: items.into_iter().map(|(_, info)| info).collect(), next })
}
