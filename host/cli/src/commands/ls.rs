//! `sandbox-host ls`: lists a directory of a sandbox.

use anyhow::Result;
use sandbox_host::types::{FileInfo, FileKind};

use crate::args::Ls;
use crate::output::results::Entry;
use crate::output::{self, text};
use crate::session::Session;
use crate::steps::place::remote;

/// Runs `sandbox-host ls`. Returns the exit code.
pub async fn ls(session: &Session, args: Ls) -> Result<i32> {
    let provider = session.provider().await?;
    let (sandbox, path) = remote(&provider, &args.path)?;
    let step = session.voice.step(format!("looking at {path}"));
    // A dangling link is listed itself.
    let info = match sandbox.stat(&path, true).await {
        Err(error) if error.is_not_found() => sandbox.stat(&path, false).await?,
        result => result?,
    };
    // One page at a time: a directory may have more entries than fit in memory.
    let mut pages = matches!(info.kind, FileKind::Directory).then(|| sandbox.directory_pages(&path));
    let mut page = match &mut pages {
        Some(pages) => pages.next().await?.unwrap_or_default(),
        None => vec![info],
    };
    drop(step);
    let mut rows = output::Rows::default();
    let mut array = session.voice.json.then(output::Array::begin).transpose()?;
    loop {
        if let Some(array) = &mut array {
            page.iter().try_for_each(|entry| array.add(&Entry::from(entry)))?;
        } else if args.long {
            rows.print(&page.iter().map(entry_row).collect::<Vec<_>>())?;
        } else {
            // One line per entry, whatever characters its name contains.
            output::print_lines(page.iter().map(|entry| &entry.name))?;
        }
        let following = match &mut pages {
            Some(pages) => pages.next().await,
            None => Ok(None),
        };
        match following {
            Ok(Some(following)) => page = following,
            // Ends the JSON array also after an error, so that the printed part is valid.
            ended => {
                array.map_or(Ok(()), output::Array::end)?;
                return Ok(ended.map(|_| 0)?);
            }
        }
    }
}

fn entry_row(entry: &FileInfo) -> Vec<String> {
    let letter = match &entry.kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink(_) => 'l',
        FileKind::Other(_) => '?',
    };
    let mut mode = String::from(letter);
    for shift in [6, 3, 0] {
        for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
            mode.push(if entry.mode >> shift & bit != 0 { letter } else { '-' });
        }
    }
    let name = match &entry.kind {
        FileKind::Symlink(target) => format!("{} -> {target}", entry.name),
        _ => entry.name.clone(),
    };
    vec![mode, entry.owner.clone(), entry.group.clone(), entry.size.to_string(), text::time(entry.modified), name]
}
