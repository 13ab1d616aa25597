//! `sandbox-host plugin check`: checks a component for its author.

use anyhow::Result;
use sandbox_host::{Plugin, Problem, check_component};

use super::plugin_inspect::described;
use crate::args::PluginCheck;
use crate::output::results::{ComponentCheck, ComponentChecks};
use crate::output::{self, Failure};
use crate::session::Session;

/// The exit code if there are problems.
const PROBLEMS: i32 = 1;

/// Runs `sandbox-host plugin check`. Returns the exit code: 1 if there are problems.
pub async fn check(session: &Session, args: PluginCheck) -> Result<i32> {
    let bytes = tokio::fs::read(&args.file).await.map_err(|error| {
        Failure::new(format!("read {}", args.file.display()), sandbox_host::local_reason(&error))
            .hint("name the .wasm file of a component")
    })?;
    let checked = bytes.clone();
    let mut rows: Vec<_> = tokio::task::spawn_blocking(move || check_component(&checked))
        .await?
        .into_iter()
        .map(|finding| row(finding.check, finding.result))
        .collect();
    // A component that can be loaded is asked for its description, which needs no settings and no network.
    if rows.iter().any(|row| row.check == "code" && row.ok) {
        let plugin = Plugin::from_bytes(bytes).await?;
        rows.push(row("description", description(&plugin).await));
    }
    let ok = rows.iter().all(|row| row.ok);
    if session.voice.json {
        output::print_json(&ComponentChecks { ok, checks: rows })?;
    } else {
        for row in &rows {
            output::print_text(format_args!("{:8} {}: ", if row.ok { "ok" } else { "problem" }, row.check), &row.text)?;
            if let Some(hint) = &row.hint {
                output::print_text(format_args!("{:8} try: ", ""), hint)?;
            }
        }
    }
    Ok(if ok { 0 } else { PROBLEMS })
}

fn row(check: &'static str, result: Result<String, Problem>) -> ComponentCheck {
    match result {
        Ok(text) => ComponentCheck { check, ok: true, text, hint: None },
        Err(Problem { why, hint }) => ComponentCheck { check, ok: false, text: why, hint: Some(hint) },
    }
}

/// Compares what the plugin says about itself with its manifest.
async fn description(plugin: &Plugin) -> Result<String, Problem> {
    let problem = |why: String, hint: &str| Problem { why, hint: hint.to_owned() };
    let described = described(plugin)
        .await
        .map_err(|error| problem(error.to_string(), "`describe` must work without settings and without a request"))?;
    let options: Result<serde_json::Value, _> = serde_json::from_str(&described.options_schema);
    if !options.is_ok_and(|options| options.is_object()) {
        return Err(problem(
            "options-schema is no JSON object".to_owned(),
            "return a JSON Schema, or `{}` for a provider without options",
        ));
    }
    let manifest = plugin.manifest();
    if described.name != manifest.name {
        return Err(problem(
            format!("its name is {:?}, and its manifest is that of {:?}", described.name, manifest.name),
            "use one name in both",
        ));
    }
    let wished = |name: &str| {
        manifest.env.iter().any(|wish| wish.name == name)
            || manifest.credential.iter().any(|wish| wish.env == name)
            || manifest.origin.iter().any(|wish| wish.url.env.as_deref() == Some(name))
    };
    if let Some(variable) = described.environment.iter().find(|variable| !wished(&variable.name)) {
        return Err(problem(
            format!("it reads the variable {}, which its manifest does not ask for", variable.name),
            "add an [[env]] entry to the manifest, or a [[credential]] entry for a secret",
        ));
    }
    let (name, version) = (&described.name, &described.version);
    Ok(format!("{name} {version} with {} capabilities", described.capabilities.len()))
}
