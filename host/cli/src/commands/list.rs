//! `sandbox list`: lists sandboxes.

use anyhow::Result;
use sandbox_host::types::ListFilter;

use crate::args::List;
use crate::output;
use crate::output::results;
use crate::output::text::{state_text, time};
use crate::session::Session;

/// Runs `sandbox list`. Returns the exit code.
pub async fn list(session: &Session, args: List) -> Result<i32> {
    let provider = session.provider().await?;
    let mut filter = ListFilter { include_ended: args.all, ..ListFilter::default() };
    filter.tags = args.tag;
    let step = session.voice.step("listing sandboxes");
    let found = provider.list_all_apps(&filter, args.limit).await?;
    drop(step);
    if !session.voice.json {
        let environment = provider.environment().iter().find(|(name, _)| name == "MODAL_ENVIRONMENT");
        session.voice.say(match environment {
            Some((_, name)) if !name.is_empty() => format!("all apps of the environment {name} were searched"),
            _ => "all apps of the default environment were searched".to_owned(),
        });
    }
    if session.voice.json {
        let rows: Vec<_> = found.iter().map(results::Sandbox::from).collect();
        output::print_json(&rows)?;
        return Ok(0);
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
