//! What a plugin that is not trusted learns when the program looks at it.

use std::sync::atomic::Ordering;

use crate::common::{Server, TOKEN};

/// The puppet's `describe` sends what it sees to every address that it can reach.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_is_looked_at_is_told_nothing_and_reaches_nothing() {
    let server = Server::echo().await;
    let puppet = tokio::task::spawn_blocking(crate::common::puppet).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let profile = directory.path().join("profiles.toml");
    std::fs::write(&profile, format!("[default]\nplain = 'of the file'\nurl = '{}'\n", server.url)).unwrap();
    let inspect = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sandbox"));
        command.args(arguments).arg(puppet).stdin(std::process::Stdio::null());
        command.env("PUPPET_TOKEN", TOKEN).env("PUPPET_URL", &server.url).env("PUPPET_PLAIN", "of the user");
        let output = command.env("PUPPET_CONFIG", &profile).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let text = tokio::task::block_in_place(|| inspect(&["--json", "plugin", "inspect"]));
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["name"], "puppet");
    // The plugin itself names none. These are the ones that every plugin of version 0.1 of the interface has.
    let capabilities: Vec<_> = told["capabilities"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(capabilities, ["create.command", "exec.idempotent"]);
    // What it would be granted is told all the same, and what it requests to read.
    assert_eq!(told["grants"][0]["origin"], server.url);
    assert_eq!(told["grants"][0]["credentials"][0], "x-puppet-token");
    let wishes = &told["wishes"];
    assert_eq!(wishes["profiles"]["path"], "~/.puppet.toml");
    assert_eq!(wishes["origins"][0]["setting"], "url");
    let setting = |name: &str, variable: &str, shown: bool| serde_json::json!({ "setting": name, "variable": variable, "shown": shown });
    let settings = [setting("plain", "PUPPET_PLAIN", true), setting("token", "PUPPET_TOKEN", false)];
    assert_eq!(wishes["settings"], serde_json::Value::from(settings.to_vec()));
    let shown = tokio::task::block_in_place(|| inspect(&["plugin", "inspect"]));
    for line in [
        "requests to read   PUPPET_PLAIN, or the setting plain",
        "settings file      ~/.puppet.toml, or the value of PUPPET_CONFIG; PUPPET_PROFILE selects a profile",
        "requests to send   token (PUPPET_TOKEN, or the setting token), added by the host",
        "requests to reach  main (https://puppet.invalid, or the value of PUPPET_URL, or the setting url), with x-puppet-token",
    ] {
        assert!(shown.contains(line), "{line} is missing in:\n{shown}");
    }
    assert!(!shown.contains("of the user") && !shown.contains("of the file") && !shown.contains(TOKEN), "{shown}");
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}
