//! `sandbox-host plugin pull`: downloads a plugin and stores it under a name.

use std::path::Path;

use anyhow::Result;
use sandbox_host::Plugin;

use crate::args::PluginPull;
use crate::output::results::Pulled;
use crate::output::{self, Failure};
use crate::pull::registry::{Digest, Fetcher, WHOLE};
use crate::pull::{directory, fetch, is_name, name_of, parse, store, without_user};
use crate::session::Session;

/// Runs `sandbox-host plugin pull`. Returns the exit code.
pub async fn pull(session: &Session, args: PluginPull) -> Result<i32> {
    let what = format!("pull {}", without_user(&args.reference));
    let (source, pin) = parse(&what, &args.reference, args.digest.as_deref())?;
    let name = match args.name {
        Some(name) => name,
        None => name_of(&source).ok_or_else(|| {
            Failure::new(&what, "the reference does not end in a usable name").hint("choose a name with --name")
        })?,
    };
    if !is_name(Path::new(&name)) {
        return Err(Failure::new(&what, format!("{name:?} is not a valid plugin name"))
            .hint("choose a name of letters, digits, `.`, `_` and `-` with --name")
            .into());
    }
    let file = directory()?.join(format!("{name}.wasm"));
    let fetcher = Fetcher::new(session.global.ca_file.as_deref()).await?;
    let shown = session.voice.transfer(format!("pulling {name}"), None);
    let progress = |position, size: Option<u64>| match size {
        Some(size) => shown.at(position, size),
        None => shown.to(position),
    };
    let (bytes, manifest) = fetch(&fetcher, &what, &source, progress, WHOLE).await?;
    drop(shown);
    if let Some(pin) = &pin {
        pin.verify(&what, &bytes)?;
    }
    let digest = Digest::of(&bytes);
    let size = bytes.len();
    // Compiles the plugin before it is stored, so that unusable plugins are not stored.
    let step = session.voice.step("compiling the plugin");
    let plugin = Plugin::from_bytes(bytes.to_vec()).await.map_err(|error| {
        let (_, why, hint) = error.parts();
        let failure = Failure::new(&what, why);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    drop(step);
    debug_assert_eq!(plugin.digest(), digest.hex());
    store(&file, &bytes).map_err(|error| Failure::new(format!("write {}", file.display()), error.to_string()))?;
    let manifest = manifest.map(|manifest| format!("sha256:{}", manifest.hex()));
    if session.voice.json {
        output::print_json(&Pulled {
            name: &name,
            file: &file,
            sha256: digest.hex(),
            size,
            source: &args.reference,
            manifest: manifest.as_deref(),
        })?;
        return Ok(0);
    }
    let mut rows = vec![["name", &name], ["file", &file.to_string_lossy()], ["sha256", digest.hex()]]
        .into_iter()
        .map(|row| row.map(str::to_owned).to_vec())
        .collect::<Vec<_>>();
    rows.push(vec!["size".into(), format!("{size} bytes")]);
    rows.extend(manifest.map(|manifest| vec!["manifest".into(), manifest]));
    output::table(&rows)?;
    session.voice.say(format_args!("use it with --plugin {name}"));
    Ok(0)
}
