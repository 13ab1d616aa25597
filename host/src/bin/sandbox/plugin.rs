//! `plugin inspect`, and what the program says of itself: `completions`, `man`.

use anyhow::Result;
use clap::CommandFactory;
use sandbox_host::Provider;
use serde_json::json;

use crate::args::{Cli, Completions, Man, PluginInspect};
use crate::report;
use crate::session::Session;

/// `sandbox plugin inspect`
pub async fn inspect(session: &Session, args: PluginInspect) -> Result<i32> {
    let plugin = match &args.file {
        Some(path) => Session::load(crate::pull::find(path).unwrap_or_else(|| path.clone()), true).await?,
        None => session.plugin().await?,
    };
    let manifest = plugin.manifest();
    // Sends nothing; credentials that are missing are shown as missing.
    let provider = Provider::builder(&plugin).anonymous(true).build().await?;
    let described = provider.describe().await;
    let grants = provider.grants();
    if session.voice.json {
        let described = described.as_ref().ok();
        report::print(json!({
            "file": plugin.label(),
            "sha256": plugin.digest(),
            "size": plugin.size(),
            "from_cache": plugin.from_cache(),
            "interface": plugin.interface_version(),
            "host_interfaces": sandbox_host::INTERFACE_VERSIONS,
            "exports": plugin.exports(),
            "imports": plugin.imports(),
            "name": described.map(|d| d.name.clone()),
            "version": described.map(|d| d.version.clone()),
            "capabilities": described.map(|d| d.capabilities.iter().map(|c| json!({
                "name": c.name, "support": format!("{:?}", c.support).trim_start_matches("Support::").to_lowercase(),
                "note": c.note,
            })).collect::<Vec<_>>()),
            "wishes": {
                "env": manifest.env.iter().map(|wish| &wish.name).collect::<Vec<_>>(),
                "credentials": manifest.credential.iter().map(|wish| &wish.env).collect::<Vec<_>>(),
                "origins": manifest.origin.iter().map(|wish| json!({
                    "name": wish.name, "variable": wish.url.env, "default": wish.url.default,
                    "headers": wish.headers.iter().map(|header| &header.name).collect::<Vec<_>>(),
                    "learn": wish.learn.iter().map(|rule| json!({ "path": rule.path, "field": rule.field, "name": rule.name })).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
            },
            "gateway": manifest.gateway.env,
            "grants": grants.iter().map(|grant| json!({
                "origin": grant.origin.to_string(), "name": grant.name, "credentials": grant.credentials,
                "private_addresses": grant.private_addresses,
            })).collect::<Vec<_>>(),
        }))?;
        return Ok(0);
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    row("file", plugin.label().to_owned());
    row("sha256", plugin.digest().to_owned());
    row("size", format!("{} bytes", plugin.size()));
    let known = sandbox_host::INTERFACE_VERSIONS.join(" and ");
    row("interface", format!("harness:sandbox {} (this host speaks {known})", plugin.interface_version()));
    for name in plugin.exports() {
        row("exports", name.clone());
    }
    for name in plugin.imports() {
        row("imports", name.clone());
    }
    match &described {
        Ok(described) => {
            row("provider", format!("{} {}", described.name, described.version));
            for capability in &described.capabilities {
                let note = if capability.note.is_empty() { String::new() } else { format!(": {}", capability.note) };
                let support = format!("{:?}", capability.support);
                let support = support.rsplit("::").next().unwrap_or_default().to_lowercase();
                row("capability", format!("{} ({support}){note}", capability.name));
            }
        }
        Err(error) => row("provider", format!("does not describe itself: {error}")),
    }
    for wish in &manifest.env {
        row("wishes to read", wish.name.clone());
    }
    for wish in &manifest.origin {
        let headers: Vec<_> = wish.headers.iter().map(|header| header.name.as_str()).collect();
        let with = if headers.is_empty() {
            String::new()
        } else {
            format!(", with {} added by the host", headers.join(" and "))
        };
        row(
            "wishes to reach",
            format!("{} ({}){with}", wish.name, wish.url.default.as_deref().unwrap_or("no default")),
        );
        for rule in &wish.learn {
            row("wishes to learn", format!("{} from {}", rule.name, rule.path));
        }
    }
    for (name, value) in &manifest.gateway.env {
        row("behind a gateway", format!("{name}={value}"));
    }
    for grant in &grants {
        let with =
            if grant.credentials.is_empty() { "no credentials".to_owned() } else { grant.credentials.join(", ") };
        row("granted", format!("{} ({}; {with})", grant.origin, grant.name));
    }
    report::table(&rows)?;
    Ok(0)
}

/// `sandbox completions`
pub fn completions(args: Completions) -> Result<i32> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sandbox", &mut script);
    report::print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(0)
}

/// `sandbox man`
pub fn man(args: Man) -> Result<i32> {
    match &args.directory {
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            clap_mangen::generate_to(Cli::command(), directory)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            report::print(String::from_utf8_lossy(&page).trim_end())?;
        }
    }
    Ok(0)
}
