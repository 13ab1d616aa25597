//! `sandbox-host inspect`: prints the properties of a sandbox.

use anyhow::Result;
use sandbox_host::types::{ListFilter, SandboxState};

use crate::args::Id;
use crate::output;
use crate::output::results;
use crate::output::text::{state_text, time, tunnel_text};
use crate::session::Session;

/// Maximum number of sandboxes with the same tags that are searched for the one to inspect.
const NAMESAKES: usize = 1000;

/// Runs `sandbox-host inspect`. Returns the exit code.
pub async fn inspect(session: &Session, args: Id) -> Result<i32> {
    let provider = session.provider().await?;
    let sandbox = provider.sandbox(args.id);
    let mut info = sandbox.info().await?;
    let lives = !matches!(info.state, SandboxState::Ended(_));
    if info.tags.is_empty() && lives {
        info.tags = sandbox.tags().await.unwrap_or_default();
    }
    // Some providers return more properties of a sandbox in a list than in a single request. The filter by its tags keeps
    // the list short.
    if info.created.is_none() && lives && !info.tags.is_empty() {
        let filter = ListFilter { tags: info.tags.clone(), ..ListFilter::default() };
        let listed = provider.list(&filter, NAMESAKES).await.unwrap_or_default();
        if let Some(listed) = listed.into_iter().find(|listed| listed.id == info.id) {
            info.name = info.name.or(listed.name);
            info.image = info.image.or(listed.image);
            info.created = listed.created;
            if info.tunnels.is_empty() {
                info.tunnels = listed.tunnels;
            }
        }
    }
    if session.voice.json {
        output::print_json(&results::Sandbox::from(&info))?;
        return Ok(0);
    }
    let mut rows = vec![
        vec!["id".to_owned(), info.id.clone()],
        vec!["name".to_owned(), info.name.clone().unwrap_or_else(|| "-".into())],
        vec!["state".to_owned(), state_text(&info.state)],
        vec!["image".to_owned(), info.image.clone().unwrap_or_else(|| "-".into())],
        vec!["created".to_owned(), info.created.map(time).unwrap_or_else(|| "-".into())],
    ];
    rows.extend(info.tags.iter().map(|(key, value)| vec!["tag".to_owned(), format!("{key}={value}")]));
    rows.extend(info.tunnels.iter().map(|tunnel| vec!["tunnel".to_owned(), tunnel_text(tunnel)]));
    rows.extend(info.extra.iter().map(|(key, value)| vec![key.clone(), value.clone()]));
    output::table(&rows)?;
    Ok(0)
}
