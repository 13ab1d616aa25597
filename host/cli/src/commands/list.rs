//! `sandbox-host list`: lists sandboxes.

use anyhow::Result;
use sandbox_host::Provider;
use sandbox_host::types::ListFilter;
use serde::Deserialize;

use crate::args::List;
use crate::output;
use crate::output::results;
use crate::output::text::{state_text, time};
use crate::session::Session;

/// The extra field of a provider's description that says what a list of all sandboxes covers.
const LIST_SCOPE: &str = "list-scope";

/// How a provider groups sandboxes.
#[derive(Deserialize)]
struct ListScope {
    /// What the groups are called, such as `apps`.
    units: String,
    /// What contains the groups, such as `environment`.
    scope: String,
    /// The environment variable that chooses the scope.
    variable: String,
}

/// Runs `sandbox-host list`. Returns the exit code.
pub async fn list(session: &Session, args: List) -> Result<i32> {
    let provider = session.provider().await?;
    let mut filter = ListFilter { include_ended: args.all, ..ListFilter::default() };
    filter.tags = args.tag;
    let step = session.voice.step("listing sandboxes");
    let found = provider.list_all_apps(&filter, args.limit).await?;
    drop(step);
    if session.voice.json {
        let rows: Vec<_> = found.iter().map(results::Sandbox::from).collect();
        output::print_json(&rows)?;
        return Ok(0);
    }
    if let Some(searched) = searched(&provider).await? {
        session.voice.say(searched);
    }
    let mut rows = vec![["ID", "NAME", "STATE", "CREATED", "TAGS"].map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(|info| {
        let tags: Vec<_> = info.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            info.id.clone(),
            info.name.clone().unwrap_or_default(),
            state_text(&info.state),
            info.created.map(time).unwrap_or_default(),
            tags.join(","),
        ]
    }));
    output::table(&rows)?;
    Ok(0)
}

/// Returns what was searched, if the provider groups sandboxes: a list covers all groups of one scope, and not those of
/// others.
async fn searched(provider: &Provider) -> Result<Option<String>> {
    let described = provider.describe().await?;
    let scope = described.extra.iter().find(|(name, _)| name == LIST_SCOPE);
    let Some(ListScope { units, scope, variable }) = scope.and_then(|(_, json)| serde_json::from_str(json).ok()) else {
        return Ok(None);
    };
    let chosen = provider.environment().iter().find(|(name, value)| *name == variable && !value.is_empty());
    Ok(Some(match chosen {
        Some((_, name)) => format!("all {units} of the {scope} {name} were searched"),
        None => format!("all {units} of the default {scope} were searched"),
    }))
}
