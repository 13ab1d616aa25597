//! What all commands need: the provider to talk to, and a list of what has to be undone if we are stopped.

pub mod emulator;
pub mod policy;
pub mod telemetry;
pub mod undo;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sandbox_host::{Kind, Plugin, PluginFault, Provider};

use self::emulator::Private;
use self::policy::PolicyFile;
use self::undo::Debt;
use crate::args::Global;
use crate::output::{Failure, Voice};
use crate::pull::registry;

/// The component that comes with this program.
pub const DEFAULT_PLUGIN: &str = "modal-provider.wasm";

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
    provider: Mutex<Option<Provider>>,
}

impl Session {
    /// From the options.
    pub fn new(mut global: Global) -> Session {
        // A variable that is set to nothing is as good as not set.
        for path in [&mut global.plugin, &mut global.policy] {
            path.take_if(|path| path.as_os_str().is_empty());
        }
        let voice = Voice::new(global.json, global.quiet, global.no_color);
        Session { voice, global: Arc::new(global), shared: Arc::default() }
    }

    /// Whether an emulator is worked with that was named as one.
    pub fn with_emulator(&self) -> bool {
        self.global.emulator || self.global.emulator_url.is_some()
    }

    /// The file of the plugin.
    pub fn plugin_path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.global.plugin {
            return Ok(crate::pull::find(path).unwrap_or_else(|| path.clone()));
        }
        Ok(bundled()?)
    }

    /// Loads the plugin.
    pub async fn plugin(&self) -> Result<Plugin> {
        Session::load(self.plugin_path()?, self.global.plugin.is_some()).await
    }

    /// Loads a component; `chosen`: whether the user named it.
    pub async fn load(path: PathBuf, chosen: bool) -> Result<Plugin> {
        Plugin::load(&path).await.map_err(|error| match error.kind() {
            Kind::Plugin(PluginFault::Missing) if !chosen => Failure::new(
                format!("load the plugin {}", path.display()),
                "there is no provider component beside this program",
            )
            .hint("build it with `cargo xtask build`, or name one with --plugin FILE")
            .into(),
            Kind::Plugin(PluginFault::Missing) => {
                Failure::of(&error).hint("name a file, or what `sandbox plugin pull` has fetched").into()
            }
            _ => error.into(),
        })
    }

    /// Loads the plugin and sets up the provider, with a private emulator if that was asked for.
    pub async fn provider(&self) -> Result<Provider> {
        let verbose = self.global.verbose > 0;
        let (plugin, url, credentials) = if self.global.emulator {
            // Each takes its time, and neither needs the other.
            let (plugin, emulator) = tokio::join!(self.plugin(), Private::start(verbose));
            let emulator = emulator?;
            tracing::debug!(pid = emulator.pid(), url = %emulator.url, "emulator");
            let (url, credentials) = (emulator.url.clone(), emulator.credentials.clone());
            *self.shared.emulator.lock().unwrap_or_else(PoisonError::into_inner) = Some(emulator);
            (plugin?, Some(url), credentials)
        } else {
            let any = emulator::CREDENTIALS.map(|(name, value)| (name, value.to_owned()));
            (self.plugin().await?, self.global.emulator_url.clone(), any)
        };
        if let Some(url) = self.global.emulator_url.as_deref().filter(|url| sandbox_host::Origin::parse(url).is_err()) {
            return Err(Failure::new(format!("use the emulator at {url}"), "that is no address of one")
                .hint("give what `sandbox emulator` prints, such as http://127.0.0.1:7000")
                .into());
        }
        let policy = self.policy()?;
        let trusted = self.is_trusted(&plugin, &policy).await;
        if !trusted && url.is_none() {
            refuse_wishes(&plugin)?;
        }
        let mut builder = Provider::builder(&plugin);
        if let Some(url) = url {
            let manifest = plugin.manifest();
            // An emulator on this machine may have been started with credentials of its own (`--token`), which the environment
            // gives. Otherwise no account of the user's has any business with an emulator.
            let named = self.global.emulator_url.is_some() && trusted && is_loopback_url(&url);
            let of_environment = |name: &str| {
                let wish = manifest.credential.iter().find(|wish| wish.name == name)?;
                std::env::var(&wish.env).ok().filter(|value| !value.is_empty())
            };
            let given: Option<Vec<String>> = credentials.iter().map(|(name, _)| of_environment(name)).collect();
            let given = given.filter(|_| named).unwrap_or_default();
            for (index, (name, value)) in credentials.into_iter().enumerate() {
                builder = builder.credential(name, given.get(index).cloned().unwrap_or(value));
            }
            if let Some(profiles) = &manifest.profiles {
                if let Some(variable) = &profiles.path.env {
                    builder = builder.env(variable, "/dev/null");
                }
                builder = builder.env(&profiles.select, "");
            }
            let first = manifest.origin.first().filter(|origin| origin.url.env.is_some());
            if !trusted {
                // It reaches the emulator and nothing else, and learns nothing of this machine: what it knows it can tell
                // a process in a sandbox, which may reach the internet.
                builder = builder.inherit_env(false).read_profiles(false).anonymous(true);
                builder = builder.show_only(std::iter::empty::<String>()).grant_only(first.map(|origin| &origin.name));
            }
            if let Some(variable) = first.and_then(|origin| origin.url.env.as_ref()) {
                builder = builder.env(variable, url);
            }
        }
        if let Some(profile) = &self.global.profile {
            builder = builder.profile(profile);
        }
        if let Some(path) = &self.global.ca_file {
            // Said now, and not when the first connection with TLS is made.
            let what = format!("use the certificate authorities in {}", path.display());
            let bytes = std::fs::read(path).map_err(|error| Failure::io(&what, &error))?;
            if CertificateDer::pem_slice_iter(&bytes).next().is_none_or(|first| first.is_err()) {
                return Err(Failure::new(what, "no certificate in PEM form is in it")
                    .hint("give a file with a line `-----BEGIN CERTIFICATE-----`")
                    .into());
            }
            builder = builder.ca_file(path);
        }
        builder = builder.limits(policy::limits(policy.limits)?);
        let voice = self.voice;
        builder = builder.on_wait(move |waiting| {
            voice.say(format_args!(
                "the provider asks to wait: {}; trying again in {:.0?} (waiting for {:.0?} so far)",
                waiting.reason, waiting.pause, waiting.elapsed
            ));
        });
        builder = builder.on_silence(move |silence| {
            let method = silence.path.rsplit('/').next().unwrap_or_default();
            voice.say(format_args!(
                "waiting for {} to answer {method:?} ({:.0?} so far)",
                silence.origin, silence.elapsed
            ));
        });
        let known = |granted: &Option<Vec<String>>, wishes: Vec<&str>, what: &str| {
            let Some(name) = granted.iter().flatten().find(|name| !wishes.contains(&name.as_str())) else {
                return Ok(());
            };
            Err(Failure::new(format!("grant the {what} {name}"), "the plugin has no such wish")
                .hint(format!("its wishes are [{}]", wishes.join(", "))))
        };
        let (manifest, grants) = (plugin.manifest(), &policy.grants);
        known(&grants.origins, manifest.origin.iter().map(|wish| &*wish.name).collect(), "origin")?;
        known(&grants.env, manifest.env.iter().map(|wish| &*wish.name).collect(), "variable")?;
        if let Some(variables) = policy.grants.env.filter(|_| trusted) {
            builder = builder.show_only(variables);
        }
        if let Some(origins) = policy.grants.origins.filter(|_| trusted) {
            builder = builder.grant_only(origins);
        }
        let provider = builder.build().await.map_err(|error| -> anyhow::Error {
            if error.is_unauthenticated() {
                let hint = format!("{}, or use --emulator", error.parts().2.unwrap_or("set the credentials"));
                return Failure::of(&error).hint(hint).into();
            }
            error.into()
        })?;
        telemetry::watch(&provider);
        *self.shared.provider.lock().unwrap_or_else(PoisonError::into_inner) = Some(provider.clone());
        Ok(provider)
    }

    /// Fails unless the plugin may have what its manifest wishes for. A manifest says which environment variables,
    /// credentials and origins the plugin gets, and can name any.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that names `--grant`, and an error if the policy file cannot be read.
    pub async fn require_trusted(&self, plugin: &Plugin) -> Result<()> {
        match self.is_trusted(plugin, &self.policy()?).await {
            true => Ok(()),
            false => refuse_wishes(plugin),
        }
    }

    fn policy(&self) -> Result<PolicyFile> {
        self.global.policy.as_deref().map_or_else(|| Ok(PolicyFile::default()), policy::read_policy)
    }

    /// Whether the plugin is granted what it wishes for: by `--grant`, by its digest in the policy file, or because it is
    /// the component that comes with this program.
    async fn is_trusted(&self, plugin: &Plugin, policy: &PolicyFile) -> bool {
        if self.global.plugin.is_none()
            || self.global.grant
            || policy.grants.plugins.iter().any(|digest| digest.eq_ignore_ascii_case(plugin.digest()))
        {
            return true;
        }
        match bundled() {
            Ok(path) => tokio::fs::read(path).await.is_ok_and(|bytes| sandbox_host::digest(&bytes) == plugin.digest()),
            Err(_) => false,
        }
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

/// Fails if the manifest wishes for anything: a plugin that is not trusted gets none of it.
fn refuse_wishes(plugin: &Plugin) -> Result<()> {
    let manifest = plugin.manifest();
    let places = manifest.origin.iter().map(|origin| {
        let url = origin.url.default.clone().or_else(|| origin.url.env.as_ref().map(|name| format!("${name}")));
        format!("to reach {} ({})", origin.name, url.as_deref().unwrap_or("no default"))
    });
    let credentials = manifest.credential.iter().map(|wish| format!("to send {}", wish.env));
    let variables = manifest.env.iter().map(|wish| format!("to read {}", wish.name));
    let profiles = manifest.profiles.iter().map(|profiles| format!("to read {}", profiles.path.default));
    let wishes: Vec<_> = places.chain(credentials).chain(variables).chain(profiles).collect();
    if wishes.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        format!("trust the plugin {}", plugin.label()),
        format!("it did not come with this program, and wishes {}", wishes.join(", ")),
    )
    .hint(format!(
        "look at `sandbox plugin inspect {}`, then say --grant, or list its digest under grants.plugins in a --policy file",
        plugin.label()
    ))
    .into())
}

/// Whether a URL leads to this machine.
fn is_loopback_url(url: &str) -> bool {
    let uri = url.trim().parse::<http::Uri>().ok();
    uri.as_ref().and_then(http::Uri::host).is_some_and(registry::is_loopback)
}
