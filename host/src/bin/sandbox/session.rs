//! What all commands need: the provider to talk to, and a list of what has to be undone if we are stopped.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use sandbox_host::types::ListFilter;
use sandbox_host::{Kind, Limits, Plugin, PluginFault, Provider, Sandbox};
use serde::Deserialize;

use crate::args::{Global, duration};
use crate::emulator::{self, Private};
use crate::report::{Failure, Voice};

/// The component that comes with this program.
pub const DEFAULT_PLUGIN: &str = "modal-provider.wasm";

/// What is left to be done when a command was stopped in the middle.
enum Debt {
    /// Terminate the sandbox.
    Sandbox(Sandbox),
    /// A create was under way: terminate what carries this tag.
    Creating(Provider, (String, String)),
    /// Kill the command.
    Exec(Sandbox, String),
}

/// One run of this program.
#[derive(Clone)]
pub struct Session {
    /// How to speak.
    pub voice: Voice,
    /// Options of all commands.
    pub global: Arc<Global>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    debts: Mutex<Vec<(u64, Debt)>>,
    next: AtomicU64,
    emulator: Mutex<Option<Private>>,
}

/// Takes a debt off the list when dropped by [`Owed::paid`]; stays on it otherwise.
#[must_use]
pub struct Owed {
    shared: Arc<Shared>,
    id: u64,
}

impl Owed {
    /// Nothing is left to do.
    pub fn paid(self) {
        self.shared.debts.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != self.id);
    }
}

/// A policy file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PolicyFile {
    limits: LimitsFile,
    grants: GrantsFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsFile {
    memory_mib: Option<usize>,
    table_elements: Option<usize>,
    call_time: Option<String>,
    compute_time: Option<String>,
    resources: Option<usize>,
    header_bytes: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GrantsFile {
    /// Names of the manifest's origins.
    origins: Option<Vec<String>>,
    /// SHA-256 of plugins that are trusted with what they wish for.
    plugins: Vec<String>,
}

impl Session {
    /// From the options.
    pub fn new(global: Global) -> Session {
        let voice = Voice::new(global.json, global.quiet, global.no_color);
        Session { voice, global: Arc::new(global), shared: Arc::default() }
    }

    fn owe(&self, debt: Debt) -> Owed {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.debts.lock().unwrap_or_else(PoisonError::into_inner).push((id, debt));
        Owed { shared: self.shared.clone(), id }
    }

    /// The sandbox is to be terminated when we are stopped.
    pub fn owe_sandbox(&self, sandbox: &Sandbox) -> Owed {
        self.owe(Debt::Sandbox(sandbox.clone()))
    }

    /// A sandbox with this tag may come into being.
    pub fn owe_creation(&self, provider: &Provider, tag: (String, String)) -> Owed {
        self.owe(Debt::Creating(provider.clone(), tag))
    }

    /// The command is to be killed when we are stopped.
    pub fn owe_exec(&self, sandbox: &Sandbox, exec: &str) -> Owed {
        self.owe(Debt::Exec(sandbox.clone(), exec.to_owned()))
    }

    /// The file of the plugin.
    pub fn plugin_path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.global.plugin {
            return Ok(path.clone());
        }
        Ok(bundled()?)
    }

    /// Loads the plugin.
    pub async fn plugin(&self) -> Result<Plugin> {
        let path = self.plugin_path()?;
        let chosen = self.global.plugin.is_some();
        Plugin::load(&path).await.map_err(|error| match error.kind() {
            Kind::Plugin(PluginFault::Missing) if !chosen => Failure::new(
                format!("load the plugin {}", path.display()),
                "there is no provider component beside this program",
            )
            .hint("build it with `cargo xtask build`, or name one with --plugin FILE")
            .into(),
            _ => error.into(),
        })
    }

    /// Loads the plugin and sets up the provider, with a private emulator if that was asked for.
    pub async fn provider(&self) -> Result<Provider> {
        let verbose = self.global.verbose > 0;
        let (plugin, url) = if self.global.emulator {
            // Each takes its time, and neither needs the other.
            let (plugin, emulator) = tokio::join!(self.plugin(), Private::start(verbose));
            let emulator = emulator?;
            tracing::debug!(pid = emulator.pid(), url = %emulator.url, "emulator");
            let url = emulator.url.clone();
            *self.shared.emulator.lock().unwrap_or_else(PoisonError::into_inner) = Some(emulator);
            (plugin?, Some(url))
        } else {
            (self.plugin().await?, self.global.emulator_url.clone())
        };
        let policy = match &self.global.policy {
            Some(path) => read_policy(path)?,
            None => PolicyFile::default(),
        };
        // An emulator gets no credentials that are worth anything.
        if url.is_none() && !self.global.grant && !policy.grants.plugins.iter().any(|digest| digest == plugin.digest())
        {
            self.require_bundled(&plugin).await?;
        }
        let mut builder = Provider::builder(&plugin);
        if let Some(url) = url {
            let manifest = plugin.manifest();
            // No account of the user's has any business with an emulator.
            for (name, value) in emulator::CREDENTIALS {
                builder = builder.credential(name, value.to_owned());
            }
            if let Some(profiles) = &manifest.profiles {
                if let Some(variable) = &profiles.path.env {
                    builder = builder.env(variable, "/dev/null");
                }
                builder = builder.env(&profiles.select, "");
            }
            if let Some(variable) = manifest.origin.first().and_then(|origin| origin.url.env.as_ref()) {
                builder = builder.env(variable, url);
            }
        }
        if let Some(profile) = &self.global.profile {
            builder = builder.profile(profile);
        }
        if let Some(path) = &self.global.ca_file {
            builder = builder.ca_file(path);
        }
        builder = builder.limits(limits(policy.limits)?);
        if let Some(origins) = policy.grants.origins {
            builder = builder.grant_only(origins);
        }
        builder.build().await.map_err(|error| {
            let (what, why, hint) = error.parts();
            if error.is_unauthenticated() {
                let hint = format!("{}, or use --emulator", hint.unwrap_or("set the credentials"));
                return Failure::new(what, why).hint(hint).into();
            }
            error.into()
        })
    }

    /// A manifest says which environment variables and credentials go where; one that nobody has looked at could send
    /// them anywhere. The component that comes with this program is known; any other has to be granted.
    async fn require_bundled(&self, plugin: &Plugin) -> Result<()> {
        if self.global.plugin.is_none() || plugin.manifest().credential.is_empty() && plugin.manifest().env.is_empty() {
            return Ok(());
        }
        let same = match bundled() {
            Ok(path) => tokio::fs::read(path).await.is_ok_and(|bytes| sandbox_host::digest(&bytes) == plugin.digest()),
            Err(_) => false,
        };
        if same {
            return Ok(());
        }
        let wishes: Vec<_> = plugin
            .manifest()
            .origin
            .iter()
            .map(|origin| format!("{} ({})", origin.name, origin.url.default.as_deref().unwrap_or("no default")))
            .collect();
        Err(Failure::new(
            format!("trust the plugin {}", plugin.label()),
            format!(
                "it did not come with this program, and wants to be given credentials for {}",
                if wishes.is_empty() { "nothing in particular".to_owned() } else { wishes.join(", ") }
            ),
        )
        .hint(format!(
            "look at `sandbox plugin inspect {}`, then say --grant, or list its digest under grants.plugins in a --policy file",
            plugin.label()
        ))
        .into())
    }

    /// Undoes what was left behind, and says so. True if everything could be undone. `patience`: for each piece.
    pub async fn settle(&self, patience: Duration) -> bool {
        let debts = std::mem::take(&mut *self.shared.debts.lock().unwrap_or_else(PoisonError::into_inner));
        let mut clean = true;
        // A private emulator takes everything with it.
        let private = self.shared.emulator.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if private {
            return true;
        }
        for (_, debt) in debts.into_iter().rev() {
            clean &= self.settle_one(debt, patience).await;
        }
        clean
    }

    async fn settle_one(&self, debt: Debt, patience: Duration) -> bool {
        let (name, result) = match debt {
            Debt::Sandbox(sandbox) => {
                let _step = self.voice.step(format!("terminating {}", sandbox.id()));
                (format!("the sandbox {}", sandbox.id()), tokio::time::timeout(patience, sandbox.terminate()).await)
            }
            Debt::Exec(sandbox, exec) => {
                let killed = tokio::time::timeout(patience, sandbox.signal(&exec, 9)).await;
                (format!("the command {exec} in {}", sandbox.id()), killed)
            }
            Debt::Creating(provider, (key, value)) => {
                let name = format!("a sandbox with the tag {key}={value}");
                let search = async {
                    for info in provider.list(&ListFilter::default().tag(key, value), 10).await? {
                        provider.sandbox(info.id).terminate().await?;
                    }
                    Ok(())
                };
                (name, tokio::time::timeout(patience, search).await)
            }
        };
        match result {
            Ok(Ok(())) => true,
            Ok(Err(error)) if error.is_not_found() || error.is_sandbox_ended() => true,
            Ok(Err(error)) => {
                self.voice.say(format_args!("left behind: {name} ({error})"));
                false
            }
            Err(_) => {
                self.voice.say(format_args!("left behind: {name} (no answer)"));
                false
            }
        }
    }

    /// What would be left behind now, in words.
    pub fn left_behind(&self) -> Vec<String> {
        let debts = self.shared.debts.lock().unwrap_or_else(PoisonError::into_inner);
        debts
            .iter()
            .map(|(_, debt)| match debt {
                Debt::Sandbox(sandbox) => format!("the sandbox {}", sandbox.id()),
                Debt::Exec(sandbox, exec) => format!("the command {exec} in {}", sandbox.id()),
                Debt::Creating(_, (key, value)) => format!("perhaps a sandbox with the tag {key}={value}"),
            })
            .collect()
    }

    /// Stops the private emulator, if there is one.
    pub async fn close(&self) {
        let emulator = self.shared.emulator.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(emulator) = emulator {
            let _step = self.voice.step("stopping the emulator");
            emulator.stop().await;
        }
    }
}

/// Where the component that comes with this program lies.
pub fn bundled() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.parent().unwrap_or(Path::new(".")).join(DEFAULT_PLUGIN))
}

fn read_policy(path: &Path) -> Result<PolicyFile> {
    let what = format!("read the policy {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| Failure::new(&what, error.to_string()))?;
    toml::from_str(&text).map_err(|error| Failure::new(what, error.to_string()).into())
}

fn limits(file: LimitsFile) -> Result<Limits> {
    let mut limits = Limits::default();
    let time = |text: Option<String>, name: &str| {
        text.map(|text| duration(&text).map_err(|why| Failure::new(format!("use the policy's {name}"), why)))
            .transpose()
    };
    if let Some(value) = file.memory_mib {
        limits.memory = value.saturating_mul(1 << 20);
    }
    if let Some(value) = file.table_elements {
        limits.table_elements = value;
    }
    if let Some(value) = time(file.call_time, "call_time")? {
        limits.call_time = value;
    }
    if let Some(value) = time(file.compute_time, "compute_time")? {
        limits.compute_time = value;
    }
    if let Some(value) = file.resources {
        limits.resources = value;
    }
    if let Some(value) = file.header_bytes {
        limits.header_bytes = value;
    }
    Ok(limits)
}
