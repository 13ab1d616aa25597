//! `sandbox-host doctor`: checks plugin, credentials, service and emulator, and prints what to do about each failure.

use std::time::Instant;

use anyhow::Result;
use sandbox_host::{HeaderWish, Plugin, Provider};

use crate::output::failure::in_one_line;
use crate::output::results::{Check, Checks};
use crate::output::{self, FAILED};
use crate::session::Session;
use crate::session::emulator::Private;

/// Runs `sandbox-host doctor`. Returns the exit code.
pub async fn doctor(session: &Session) -> Result<i32> {
    let mut findings = Findings { json: session.voice.json, rows: Vec::new(), failed: false };
    if let Some(plugin) = plugin(session, &mut findings).await {
        service(session, &mut findings, &plugin).await;
        emulator(session, &mut findings).await;
    }
    if findings.json {
        output::print_json(&Checks { ok: !findings.failed, checks: findings.rows })?;
    }
    Ok(if findings.failed { FAILED } else { 0 })
}

struct Findings {
    json: bool,
    rows: Vec<Check>,
    failed: bool,
}

impl Findings {
    fn note(&mut self, check: &str, result: Result<String, String>) -> Result<()> {
        let (state, text) = match &result {
            Ok(text) => ("ok", text),
            Err(text) => ("failed", text),
        };
        self.failed |= result.is_err();
        if self.json {
            self.rows.push(Check { number: None, check: check.to_owned(), state, text: text.clone() });
            return Ok(());
        }
        output::print_text(format_args!("{state:6}  {check}: "), text)
    }
}

async fn plugin(session: &Session, findings: &mut Findings) -> Option<Plugin> {
    let started = Instant::now();
    match session.plugin().await {
        Ok(plugin) => {
            let how = if plugin.from_cache() { "from the cache" } else { "compiled" };
            let text =
                format!("{} ({} bytes, {how} in {} ms)", plugin.label(), plugin.size(), started.elapsed().as_millis());
            findings.note("plugin", Ok(text)).ok()?;
            Some(plugin)
        }
        Err(error) => {
            findings.note("plugin", Err(in_one_line(&error))).ok()?;
            None
        }
    }
}

async fn service(session: &Session, findings: &mut Findings, plugin: &Plugin) {
    if session.with_emulator() {
        match session.provider().await {
            Ok(provider) => answers(findings, &provider).await,
            Err(error) => {
                let _ = findings.note("settings", Err(in_one_line(&error)));
            }
        }
        return;
    }
    if let Err(error) = session.require_trusted(plugin).await {
        let _ = findings.note("plugin", Err(in_one_line(&error)));
        return;
    }
    let mut builder = Provider::builder(plugin).anonymous(true);
    if let Some(profile) = &session.global.profile {
        builder = builder.profile(profile);
    }
    let provider = match builder.build().await {
        Ok(provider) => provider,
        Err(error) => {
            let _ = findings.note("settings", Err(error.to_string()));
            return;
        }
    };
    for grant in provider.grants() {
        // A partial set of credentials was rejected when the provider was built.
        let result = if grant.credentials.is_empty() && !needs_credentials(plugin, &grant.name) {
            Ok(format!("{} needs none", grant.origin))
        } else if grant.credentials.is_empty() {
            Err(format!("none for {}; set {}, or use --emulator", grant.origin, needed(plugin)))
        } else {
            Ok(format!("{} with {}", grant.origin, grant.credentials.join(", ")))
        };
        let missing = result.is_err();
        let _ = findings.note("credentials", result);
        if missing {
            return;
        }
    }
    answers(findings, &provider).await;
}

async fn answers(findings: &mut Findings, provider: &Provider) {
    let started = Instant::now();
    let result = provider.check().await;
    let _ = findings.note(
        "service",
        result.map(|()| format!("answers in {} ms", started.elapsed().as_millis())).map_err(|error| error.to_string()),
    );
}

/// Returns the names of the variables of the first set of credentials.
fn needed(plugin: &Plugin) -> String {
    plugin.manifest().first_set().map(|wish| wish.env.as_str()).collect::<Vec<_>>().join(" and ")
}

/// Returns whether the host is meant to add credentials to all requests for the origin with this name.
fn needs_credentials(plugin: &Plugin, name: &str) -> bool {
    let wish = plugin.manifest().origin.iter().find(|wish| wish.name == name);
    let always = |header: &HeaderWish| header.on_request.is_none();
    wish.is_some_and(|wish| wish.headers.iter().any(always) || !wish.query.is_empty())
}

async fn emulator(session: &Session, findings: &mut Findings) {
    let started = Instant::now();
    let result = match Private::start(session.global.verbose > 0).await {
        Ok(emulator) => {
            emulator.stop().await;
            Ok(format!("starts and stops in {} ms", started.elapsed().as_millis()))
        }
        Err(error) => Err(in_one_line(&error)),
    };
    let _ = findings.note("emulator", result);
}
