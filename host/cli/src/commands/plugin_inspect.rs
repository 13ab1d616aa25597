//! `sandbox-host plugin inspect`: prints what a plugin is, requests and would be granted.

use anyhow::Result;
use sandbox_host::types::Description;
use sandbox_host::{FileWish, Grant, InstancesWish, Manifest, Plugin, Provider};

use crate::args::PluginInspect;
use crate::output;
use crate::output::results::{OptionInfo, PluginInfo, support_name};
use crate::session::{Session, locate};

/// Runs `sandbox-host plugin inspect`. Returns the exit code.
pub async fn inspect(session: &Session, args: PluginInspect) -> Result<i32> {
    let plugin = match &args.file {
        Some(path) => Session::load(locate(path), true).await?,
        None => session.plugin().await?,
    };
    // Finds out what the plugin would be granted. No code of the plugin runs and nothing is sent for that; missing
    // credentials are shown as missing. An unreadable profile or an invalid URL does not hide what the manifest requests.
    let built = Provider::builder(&plugin).anonymous(true).build().await;
    let (grants, unusable) = match built {
        Ok(provider) => (provider.grants(), None),
        Err(error) => (vec![], Some(error)),
    };
    let described = described(&plugin).await;
    if session.voice.json {
        let described = described.as_ref().ok();
        output::print_json(&PluginInfo {
            name: described.map(|described| described.name.as_str()),
            version: described.map(|described| described.version.as_str()),
            capabilities: described.map(|described| described.capabilities.iter().map(Into::into).collect()),
            options: described.map(|described| OptionInfo::all(&described.options_schema)),
            grants: grants.iter().map(Into::into).collect(),
            grants_error: unusable.map(|error| error.to_string()),
            ..PluginInfo::new(&plugin)
        })?;
        return Ok(0);
    }
    let mut rows = facts(&plugin, described.as_ref());
    rows.extend(wishes(plugin.manifest()));
    rows.extend(grants.iter().map(granted));
    if let Some(error) = unusable {
        rows.push(vec!["granted".into(), format!("nothing: {error}")]);
    }
    output::table(&rows)?;
    Ok(0)
}

/// Returns the rows about the plugin itself: its file, interface and capabilities.
fn facts(plugin: &Plugin, described: Result<&Description, &sandbox_host::Error>) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    row("file", plugin.label().to_owned());
    row("sha256", plugin.digest().to_owned());
    row("size", format!("{} bytes", plugin.size()));
    let known = match sandbox_host::INTERFACE_VERSIONS.split_last() {
        Some((oldest, newer)) => format!("{} and {oldest}", newer.join(", ")),
        None => String::new(),
    };
    row("interface", format!("harness:sandbox {} (this host supports {known})", plugin.interface_version()));
    for name in plugin.exports() {
        row("exports", name.clone());
    }
    for name in plugin.imports() {
        row("imports", name.clone());
    }
    match described {
        Ok(described) => {
            row("provider", format!("{} {}", described.name, described.version));
            for variable in &described.environment {
                let default =
                    variable.default.as_ref().map_or_else(String::new, |value| format!(" [default: {value}]"));
                row("reads", format!("{}: {}{default}", variable.name, variable.purpose));
            }
            for option in OptionInfo::all(&described.options_schema) {
                row("option", option.to_string());
            }
            for capability in &described.capabilities {
                let note = if capability.note.is_empty() { String::new() } else { format!(": {}", capability.note) };
                let support = support_name(capability.support);
                row("capability", format!("{} ({support}){note}", capability.name));
            }
        }
        Err(error) => row("provider", format!("the plugin does not describe itself: {error}")),
    }
    rows
}

/// Returns the rows about the requests in the manifest.
fn wishes(manifest: &Manifest) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    if manifest.instances == InstancesWish::One {
        row("requests to be", "a single instance: all calls run in it, one after another".to_owned());
    }
    for wish in &manifest.env {
        row("requests to read", sources(Some(&wish.name), wish.setting.as_deref()));
    }
    if let Some(profiles) = &manifest.profiles {
        let elsewhere = profiles.path.env.as_ref().map_or_else(String::new, |name| format!(", or the value of {name}"));
        row("settings file", format!("{}{elsewhere}; {} selects a profile", profiles.path.default, profiles.select));
    }
    for wish in &manifest.credential {
        let sources = sources(Some(&wish.env), wish.setting.as_deref());
        row("requests to send", format!("{} ({sources}), added by the host", wish.name));
    }
    for wish in &manifest.origin {
        let additions = wish.additions();
        let with = if additions.is_empty() {
            String::new()
        } else {
            format!(", with {} added by the host", additions.join(" and "))
        };
        let place = match sources(wish.url.env.as_deref(), wish.url.setting.as_deref()) {
            sources if sources.is_empty() => String::new(),
            sources => format!(", or the value of {sources}"),
        };
        let default = wish.url.default.as_deref().unwrap_or("no default");
        row("requests to reach", format!("{} ({default}{place}){with}", wish.name));
        for header in &wish.headers {
            if let Some(name) = &header.on_request {
                row("adds on request", format!("{}, if the plugin names the credential {name}", header.name));
            }
        }
        if let Some(switch) = wish.switch() {
            row("requests to use", format!("{switch}, which turns TLS on for {}", wish.name));
        }
        for file in wish.files() {
            row("requests to use", format!("{}, for TLS with {}", file_text(file), wish.name));
        }
        for rule in &wish.learn {
            row("learns origins", format!("{} from {}", rule.name, rule.path));
        }
    }
    for (name, value) in &manifest.gateway.env {
        row("gateway variables", format!("{name}={value}"));
    }
    rows
}

fn granted(grant: &Grant) -> Vec<String> {
    let with = if grant.credentials.is_empty() { "no credentials".to_owned() } else { grant.credentials.join(", ") };
    let socket = grant.socket.as_ref().map(|path| format!(" by the Unix socket {}", path.display()));
    vec!["granted".to_owned(), format!("{}{} ({}; {with})", grant.origin, socket.unwrap_or_default(), grant.name)]
}

/// Describes a file by the variable that names it.
fn file_text(file: &FileWish) -> String {
    let place = match &file.file {
        Some(name) => format!("the file {name} in the directory {}", file.env),
        None => format!("the file in {}", file.env),
    };
    file.default.as_ref().map_or(place.clone(), |default| format!("{place}, or {default}"))
}

/// Returns the plugin's description of itself. The plugin gets no settings and no network access for it, because a plugin
/// that is inspected is not trusted yet.
pub async fn described(plugin: &Plugin) -> sandbox_host::Result<Description> {
    let nothing = || std::iter::empty::<String>();
    let builder = Provider::builder(plugin).anonymous(true).inherit_env(false);
    builder.grant_only(nothing()).show_only(nothing()).build().await?.describe().await
}

/// Returns the sources of a value: an environment variable and the setting that replaces it.
fn sources(variable: Option<&str>, setting: Option<&str>) -> String {
    let setting = setting.map(|key| format!("the setting {key}"));
    variable.map(str::to_owned).into_iter().chain(setting).collect::<Vec<_>>().join(", or ")
}
