//! The verb `execs`.

use std::{fs, sync::atomic::Ordering};

use crate::{
    answer::{Answer, Failure, send_json},
    args::Args,
    context::Context,
    exec::{
        start::MAIN,
        state::{Exec, FAILED},
    },
    json,
};

/// Lists the commands that were started, the newest first.
///
/// # Errors
///
/// Fails if the directory of the helper cannot be read.
pub fn execs(_: &Args, context: &mut Context) -> Answer {
    let entries = match fs::read_dir(context.base.execs()) {
        Ok(entries) => Some(entries),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::internal("execs", error)),
    };
    let mut items = Vec::new();
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().filter(|id| *id != MAIN && !id.starts_with('.')) else { continue };
        let Some(exec) = Exec::open(&entry.path())? else { continue };
        exec.check();
        if exec.phase() == FAILED {
            continue;
        }
        let argv = fs::read_to_string(entry.path().join("spec")).unwrap_or_else(|_| "[]".into());
        let started = exec.page().started.load(Ordering::SeqCst);
        let verdict = exec.verdict().map(|verdict| verdict.text());
        let item = json::Object::new().text("id", id).raw("argv", &argv).number("started", started);
        items.push((started, item.maybe("verdict", verdict.as_deref()).end()));
    }
    items.sort_by(|left, right| right.cmp(left));
    let items = json::array(items.into_iter().map(|(_, item)| item));
    send_json(&json::Object::new().raw("execs", &items).end())
}
