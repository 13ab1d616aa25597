//! Functions that configure a provider: its emulator, certificate authorities, progress messages and grants.

use std::path::Path;

use anyhow::Result;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sandbox_host::{Manifest, ProviderBuilder};

use super::policy::GrantsFile;
use crate::output::{Failure, Voice};

/// The emulator that a provider uses.
pub(super) struct Emulator {
    pub(super) url: String,
    /// Credentials that the emulator accepts, by their names in the manifest.
    pub(super) credentials: [(&'static str, String); 2],
}

/// Makes the provider use an emulator. `named` is true if the user named the emulator and it is on this machine.
pub(super) fn at_emulator(
    mut builder: ProviderBuilder,
    manifest: &Manifest,
    emulator: &Emulator,
    trusted: bool,
    named: bool,
) -> ProviderBuilder {
    // An emulator on this machine may have been started with its own credentials (`--token`), which are taken from the
    // environment. In all other cases, no credentials of the user are sent to an emulator.
    let of_environment = |name: &str| {
        let wish = manifest.credential.iter().find(|wish| wish.name == name)?;
        std::env::var(&wish.env).ok().filter(|value| !value.is_empty())
    };
    let given: Option<Vec<String>> = emulator.credentials.iter().map(|(name, _)| of_environment(name)).collect();
    let given = given.filter(|_| named && trusted).unwrap_or_default();
    for (index, (name, value)) in emulator.credentials.iter().enumerate() {
        builder = builder.credential(*name, given.get(index).unwrap_or(value).clone());
    }
    if let Some(profiles) = &manifest.profiles {
        if let Some(variable) = &profiles.path.env {
            builder = builder.env(variable, "/dev/null");
        }
        builder = builder.env(&profiles.select, "");
    }
    let first = manifest.origin.first().filter(|origin| origin.url.env.is_some());
    if !trusted {
        // The plugin can reach only the emulator, and gets no data of this machine: it could pass data on to a process in
        // a sandbox, which may have access to the internet.
        builder = builder.inherit_env(false).read_profiles(false).anonymous(true);
        builder = builder.show_only(std::iter::empty::<String>()).grant_only(first.map(|origin| &origin.name));
    }
    if let Some(variable) = first.and_then(|origin| origin.url.env.as_ref()) {
        builder = builder.env(variable, &emulator.url);
    }
    builder
}

/// Checks that a file contains a certificate. Reads the file now, and not when the first TLS connection is made.
///
/// # Errors
///
/// Fails if the file cannot be read or contains no certificate.
pub(super) fn require_certificate(path: &Path) -> Result<()> {
    let what = format!("use the certificate authorities in {}", path.display());
    let bytes = std::fs::read(path).map_err(|error| Failure::io(&what, &error))?;
    if CertificateDer::pem_slice_iter(&bytes).next().is_none_or(|first| first.is_err()) {
        return Err(Failure::new(what, "the file contains no certificate in PEM format")
            .hint("give a file that contains `-----BEGIN CERTIFICATE-----`")
            .into());
    }
    Ok(())
}

/// Prints a message when the provider asks to wait or the service does not respond.
pub(super) fn reporting(builder: ProviderBuilder, voice: Voice) -> ProviderBuilder {
    let builder = builder.on_wait(move |waiting| {
        voice.say(format_args!(
            "the provider asks to wait: {}; trying again in {:.0?} (waiting for {:.0?} so far)",
            waiting.reason, waiting.pause, waiting.elapsed
        ));
    });
    builder.on_silence(move |silence| {
        let method = silence.path.rsplit('/').next().unwrap_or_default();
        voice.say(format_args!("waiting for {} to answer {method:?} ({:.0?} so far)", silence.origin, silence.elapsed));
    })
}

/// Checks that the policy grants only what the manifest requests.
///
/// # Errors
///
/// Fails if the policy grants something that the manifest does not request.
pub(super) fn require_wishes(manifest: &Manifest, grants: &GrantsFile) -> Result<()> {
    let known = |granted: &Option<Vec<String>>, wishes: Vec<&str>, what: &str| {
        let Some(name) = granted.iter().flatten().find(|name| !wishes.contains(&name.as_str())) else {
            return Ok(());
        };
        Err(Failure::new(format!("grant the {what} {name}"), "the plugin does not request it")
            .hint(format!("it requests: [{}]", wishes.join(", "))))
    };
    known(&grants.origins, manifest.origin.iter().map(|wish| &*wish.name).collect(), "origin")?;
    // The addresses of origins are shown to the plugin in their variables.
    let addresses = manifest.origin.iter().filter_map(|wish| wish.url.env.as_deref());
    let mut variables: Vec<_> = manifest.env.iter().map(|wish| &*wish.name).chain(addresses).collect();
    variables.sort_unstable();
    variables.dedup();
    known(&grants.env, variables, "variable")?;
    Ok(())
}

/// Applies the grants of the policy. Does not grant anything to a plugin that is not trusted.
pub(super) fn granting(mut builder: ProviderBuilder, grants: &GrantsFile, trusted: bool) -> ProviderBuilder {
    if let Some(variables) = grants.env.as_ref().filter(|_| trusted) {
        builder = builder.show_only(variables);
    }
    if let Some(origins) = grants.origins.as_ref().filter(|_| trusted) {
        builder = builder.grant_only(origins);
    }
    builder
}
