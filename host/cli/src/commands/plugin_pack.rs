//! `sandbox-host plugin pack`: puts a manifest into a component.

use std::path::Path;

use anyhow::Result;

use crate::args::PluginPack;
use crate::output::Failure;
use crate::output::results::Packed;
use crate::session::Session;

/// Runs `sandbox-host plugin pack`. Returns the exit code.
pub fn pack(session: &Session, args: PluginPack) -> Result<i32> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| {
            let what = format!("read {}", path.display());
            Failure::new(what, sandbox_host::local_reason(&error)).hint("name a file that exists")
        })
    };
    let component = read(&args.file)?;
    let manifest = read(&args.manifest)?;
    let manifest = String::from_utf8(manifest)
        .map_err(|_| Failure::new(format!("read {}", args.manifest.display()), "it is not UTF-8"))?;
    let packed = sandbox_host::pack(&component, &manifest).map_err(|error| {
        let (what, why, hint) = error.parts();
        Failure::new(what, why).hint(hint.unwrap_or("docs/provider-guide.md lists what may stand in a manifest"))
    })?;
    crate::pull::store(&args.output, &packed)
        .map_err(|error| Failure::new(format!("write {}", args.output.display()), error.to_string()))?;
    let (file, sha256) = (args.output.to_string_lossy(), sandbox_host::digest(&packed));
    session.voice.show(
        &Packed { file: &args.output, size: packed.len(), sha256: &sha256 },
        [format!("{file}: {} bytes, sha256 {sha256}", packed.len())],
    )?;
    Ok(0)
}
