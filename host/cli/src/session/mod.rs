//! State shared by all commands: the provider, and the list of what must be undone if the command is stopped.

pub mod emulator;
pub mod policy;
mod setup;
pub mod telemetry;
pub mod undo;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use sandbox_host::{Kind, Plugin, PluginFault, Provider, ProviderBuilder};

use self::emulator::Private;
use self::policy::PolicyFile;
use self::undo::Cleanup;
use crate::args::Global;
use crate::output::{Failure, Voice};
use crate::pull::registry;

/// Name of the bundled component that is used if the user names none.
const DEFAULT_PLUGIN: &str = "modal";

/// End of the file names of bundled components: `modal` is the name of `modal-provider.wasm`.
const BUNDLED_SUFFIX: &str = "-provider.wasm";

/// One run of this program. Clones share their state.
#[derive(Clone)]
pub struct Session {
    /// The output options.
    pub voice: Voice,
    /// The options that all commands have.
    pub global: Arc<Global>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cleanups: Mutex<Vec<(u64, Cleanup)>>,
    next: AtomicU64,
    emulator: Mutex<Option<Private>>,
    provider: Mutex<Option<Provider>>,
}

impl Session {
    /// Creates a session from the options.
    pub fn new(mut global: Global) -> Session {
        // An environment variable that is set to an empty value counts as unset.
        for path in [&mut global.plugin, &mut global.policy] {
            path.take_if(|path| path.as_os_str().is_empty());
        }
        let voice = Voice::new(global.json, global.quiet, global.no_color);
        Session { voice, global: Arc::new(global), shared: Arc::default() }
    }

    /// Returns whether the options select an emulator, private or by URL.
    pub fn with_emulator(&self) -> bool {
        self.global.emulator || self.global.emulator_url.is_some()
    }

    /// Returns the file of the plugin.
    pub fn plugin_path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.global.plugin {
            return Ok(locate(path));
        }
        Ok(bundled(DEFAULT_PLUGIN)?)
    }

    /// Loads the plugin.
    pub async fn plugin(&self) -> Result<Plugin> {
        Session::load(self.plugin_path()?, self.global.plugin.is_some()).await
    }

    /// Loads a component. `chosen` is true if the user named it.
    pub async fn load(path: PathBuf, chosen: bool) -> Result<Plugin> {
        Plugin::load(&path).await.map_err(|error| match error.kind() {
            Kind::Plugin(PluginFault::Missing) if !chosen => Failure::new(
                format!("load the plugin {}", path.display()),
                "there is no provider component next to this program",
            )
            .hint("build it with `cargo xtask build`, or name one with --plugin FILE")
            .into(),
            Kind::Plugin(PluginFault::Missing) => {
                let names = bundled_names().join(", ");
                let names =
                    if names.is_empty() { names } else { format!(" the name of a bundled component ({names}),") };
                Failure::of(&error)
                    .hint(format!("give the path of a file,{names} or a name from `sandbox-host plugin pull`"))
                    .into()
            }
            _ => error.into(),
        })
    }

    /// Loads the plugin and builds the provider, and starts a private emulator if the options request it.
    ///
    /// # Errors
    ///
    /// Fails if the plugin cannot be loaded or is not trusted, the policy file is invalid, or credentials are missing.
    pub async fn provider(&self) -> Result<Provider> {
        self.build(setup::reporting(self.builders(&[]).await?(), self.voice)).await
    }

    /// Builds the provider that this session uses.
    ///
    /// # Errors
    ///
    /// Fails if credentials are missing.
    pub async fn build(&self, builder: ProviderBuilder) -> Result<Provider> {
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

    /// Loads the plugin, starts a private emulator if the options request it, and returns a function that makes builders
    /// of providers with the settings of this session. `env` are variables for the plugin in addition to those of the
    /// environment.
    ///
    /// # Errors
    ///
    /// Fails if the plugin cannot be loaded or is not trusted, or the policy file is invalid.
    pub async fn builders(
        &self,
        env: &[(String, String)],
    ) -> Result<impl Fn() -> ProviderBuilder + Send + Sync + use<>> {
        let (plugin, emulator) = self.plugin_and_emulator().await?;
        if let Some(url) = self.global.emulator_url.as_deref().filter(|url| sandbox_host::Origin::parse(url).is_err()) {
            return Err(Failure::new(format!("use the emulator at {url}"), "this is not the URL of an emulator")
                .hint("give the URL that `sandbox-host emulator` prints, such as http://127.0.0.1:7000")
                .into());
        }
        let policy = self.policy()?;
        let trusted = self.is_trusted(&plugin, &policy).await;
        if !trusted && emulator.is_none() {
            refuse_wishes(&plugin)?;
        }
        if let Some(path) = &self.global.ca_file {
            setup::require_certificate(path)?;
        }
        setup::require_wishes(plugin.manifest(), &policy.grants)?;
        let limits = policy::limits(policy.limits)?;
        let (global, env) = (self.global.clone(), env.to_vec());
        Ok(move || {
            let mut builder = Provider::builder(&plugin);
            for (name, value) in &env {
                builder = builder.env(name, value);
            }
            if let Some(emulator) = &emulator {
                let named = global.emulator_url.is_some() && is_loopback_url(&emulator.url);
                builder = setup::at_emulator(builder, plugin.manifest(), emulator, trusted, named);
            }
            if let Some(profile) = &global.profile {
                builder = builder.profile(profile);
            }
            if let Some(path) = &global.ca_file {
                builder = builder.ca_file(path);
            }
            setup::granting(builder.limits(limits.clone()), &policy.grants, trusted)
        })
    }

    /// Loads the plugin, and starts the private emulator or takes the URL of the named one.
    async fn plugin_and_emulator(&self) -> Result<(Plugin, Option<setup::Emulator>)> {
        if self.global.emulator {
            // Both take time and are independent, so they run concurrently.
            let (plugin, emulator) = tokio::join!(self.plugin(), Private::start(self.global.verbose > 0));
            let emulator = emulator?;
            tracing::debug!(pid = emulator.pid(), url = %emulator.url, "emulator");
            let used = setup::Emulator { url: emulator.url.clone(), credentials: emulator.credentials.clone() };
            *self.shared.emulator.lock().unwrap_or_else(PoisonError::into_inner) = Some(emulator);
            return Ok((plugin?, Some(used)));
        }
        let any = emulator::CREDENTIALS.map(|(name, value)| (name, value.to_owned()));
        let named = self.global.emulator_url.clone().map(|url| setup::Emulator { url, credentials: any });
        Ok((self.plugin().await?, named))
    }

    /// Checks that the plugin may have everything that its manifest requests. A manifest names the environment variables,
    /// credentials and origins that the plugin gets, and can name any.
    ///
    /// # Errors
    ///
    /// Fails with a [`Failure`] that names `--grant` if the plugin is not trusted, and if the policy file cannot be read.
    pub async fn require_trusted(&self, plugin: &Plugin) -> Result<()> {
        match self.is_trusted(plugin, &self.policy()?).await {
            true => Ok(()),
            false => refuse_wishes(plugin),
        }
    }

    fn policy(&self) -> Result<PolicyFile> {
        self.global.policy.as_deref().map_or_else(|| Ok(PolicyFile::default()), policy::read_policy)
    }

    /// Returns whether the plugin gets what its manifest requests: because of `--grant`, because the policy file lists
    /// its digest, or because it is a component that is bundled with this program.
    async fn is_trusted(&self, plugin: &Plugin, policy: &PolicyFile) -> bool {
        if self.global.plugin.is_none()
            || self.global.grant
            || policy.grants.plugins.iter().any(|digest| digest.eq_ignore_ascii_case(plugin.digest()))
        {
            return true;
        }
        for name in bundled_names() {
            let Ok(path) = bundled(&name) else { continue };
            if tokio::fs::read(path).await.is_ok_and(|bytes| sandbox_host::digest(&bytes) == plugin.digest()) {
                return true;
            }
        }
        false
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

/// Returns the file of the component that the user named: a pulled one, a file, or a bundled one. If there is none of
/// them, returns the name itself, so that loading it reports the error.
pub fn locate(name: &Path) -> PathBuf {
    if let Some(pulled) = crate::pull::find(name) {
        return pulled;
    }
    let file = || crate::pull::is_name(name).then(|| bundled(name.to_str()?).ok()).flatten();
    match file() {
        Some(bundled) if !name.exists() && bundled.is_file() => bundled,
        _ => name.to_owned(),
    }
}

/// Returns the path of the bundled component with this name, which is in the directory of this program.
fn bundled(name: &str) -> std::io::Result<PathBuf> {
    Ok(program_directory()?.join(format!("{name}{BUNDLED_SUFFIX}")))
}

/// Returns the names of the bundled components.
fn bundled_names() -> Vec<String> {
    let entries = program_directory().and_then(std::fs::read_dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(BUNDLED_SUFFIX).map(str::to_owned));
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn program_directory() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.parent().unwrap_or(Path::new(".")).to_owned())
}

/// Fails if the manifest requests anything: a plugin that is not trusted gets none of it.
fn refuse_wishes(plugin: &Plugin) -> Result<()> {
    let manifest = plugin.manifest();
    let places = manifest.origin.iter().map(|origin| {
        let url = origin.url.default.clone().or_else(|| origin.url.env.as_ref().map(|name| format!("${name}")));
        format!("to reach {} ({})", origin.name, url.as_deref().unwrap_or("no default"))
    });
    let files =
        manifest.origin.iter().flat_map(|origin| origin.files()).map(|file| format!("to use the file in {}", file.env));
    let credentials = manifest.credential.iter().map(|wish| format!("to send {}", wish.env));
    let variables = manifest.env.iter().map(|wish| format!("to read {}", wish.name));
    let profiles = manifest.profiles.iter().map(|profiles| format!("to read {}", profiles.path.default));
    let wishes: Vec<_> = places.chain(files).chain(credentials).chain(variables).chain(profiles).collect();
    if wishes.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        format!("trust the plugin {}", plugin.label()),
        format!("it did not come with this program, and it requests access: {}", wishes.join(", ")),
    )
    .hint(format!(
        "check it with `sandbox-host plugin inspect {}`; then use --grant, or list its digest under grants.plugins in a --policy file",
        plugin.label()
    ))
    .into())
}

/// Returns whether the host of a URL is this machine.
fn is_loopback_url(url: &str) -> bool {
    let uri = url.trim().parse::<http::Uri>().ok();
    uri.as_ref().and_then(http::Uri::host).is_some_and(registry::is_loopback)
}
