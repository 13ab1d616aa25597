//! `sandbox-host gateway`: opens a gateway to the service and prints its settings as environment variables.

use std::collections::BTreeMap;

use anyhow::Result;
use sandbox_host::Gateway as Open;
use tokio::io::AsyncReadExt;

use crate::args::Gateway;
use crate::output::{self, Failure};
use crate::session::Session;

/// Runs `sandbox-host gateway`. Returns the exit code.
pub async fn gateway(session: &Session, args: Gateway) -> Result<i32> {
    let provider = session.provider().await?;
    let gateway = Open::open_for_pages(&provider, args.listen, &args.allow_origin).await?;
    // The names of the variables come from the manifest, so that another host with this plugin reads them. One set of
    // credentials is enough, because the token replaces any of them.
    let manifest = provider.plugin().manifest();
    let address = manifest.origin.first().and_then(|origin| origin.url.env.clone()).unwrap_or_else(|| "URL".into());
    let mut lines = vec![(address, gateway.url())];
    lines.extend(manifest.gateway.env.clone());
    let credentials = manifest.first_set().map(|credential| credential.env.clone());
    if let Some(path) = &args.token_file {
        write_token(path, gateway.token().expose())?;
        let names: Vec<_> = credentials.collect();
        if !names.is_empty() {
            session.voice.say(format_args!("set {} to the content of {}", names.join(" and "), path.display()));
        }
    } else {
        lines.extend(credentials.map(|name| (name, gateway.token().expose().to_owned())));
    }
    if session.voice.json {
        output::print_json(&lines.into_iter().collect::<BTreeMap<_, _>>())?;
    } else {
        for (name, value) in lines {
            output::print(format_args!("{name}={value}"))?;
        }
    }
    if args.exit_with_stdin {
        let mut stdin = tokio::io::stdin();
        let mut piece = [0; 1024];
        while let Ok(1..) = stdin.read(&mut piece).await {}
    } else {
        std::future::pending::<()>().await;
    }
    drop(gateway);
    Ok(0)
}

/// Writes the token to a file that only this user may read.
fn write_token(path: &std::path::Path, token: &str) -> Result<()> {
    use std::io::Write;

    let what = format!("write the token to {}", path.display());
    let failed = |error: std::io::Error| Failure::new(&what, error.to_string());
    // An existing file may be readable by others, so it is replaced instead of overwritten. Devices and pipes are
    // rejected, because another program uses them.
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() && !found.is_symlink())
        || std::fs::metadata(path).is_ok_and(|found| !found.is_file())
    {
        return Err(Failure::new(&what, "it is not a regular file")
            .hint("give a regular file, or omit --token-file")
            .into());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(".".as_ref());
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    writeln!(file, "{token}").map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
