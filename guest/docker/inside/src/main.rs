//! The helper program inside a Docker sandbox: it runs commands and moves files where the image has no programs for that.
//!
//! A provider puts it into each container, starts it as process 1, and calls its verbs through the engine's `exec`.
//! `PROTOCOL.md` beside this crate describes the verbs, their arguments and their answers.
//!
//! | module | what it does |
//! |---|---|
//! | [`args`], [`answer`], [`json`] | the arguments of a call, and the frames of its answer |
//! | [`base`], [`context`] | the directory `/.sandbox`, and the lock by which process 1 knows that the sandbox is idle |
//! | [`user`] | users and groups of the container |
//! | [`exec`] | commands: one supervisor process for each, and process 1 |
//! | [`files`] | files, trees and watches, with the rights of a user |
//! | [`sys`] | the system calls that need unsafe code |
//!
//! Each call is a process with one thread. Calls and supervisors meet in files: the state of a command is a page of shared
//! memory with a futex, on which any number of readers wait without a connection to the supervisor.

mod answer;
mod args;
mod base;
mod context;
mod exec;
mod files;
mod json;
mod sys;
mod user;

use std::{fs, process::ExitCode};

use answer::{Answer, Failure, send};
use args::Args;
use context::Context;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let verb = words.next().and_then(|verb| verb.into_string().ok()).unwrap_or_default();
    match perform(&verb, words) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            // The exit code says the same to callers that do not read frames.
            let _ = send(b'E', failure.payload());
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: &str, words: impl Iterator<Item = std::ffi::OsString>) -> Answer<u8> {
    let (mut args, base) = Args::parse(words)?;
    let mut context = Context { base, activity: None };
    if verb != "init" {
        args.adopt(&fs::read_to_string(context.base.file("settings")).unwrap_or_default());
    } else {
        let code = exec::init(&args, &mut context)?;
        return Ok(u8::try_from(code).unwrap_or(1));
    }
    let verb: fn(&Args, &mut Context) -> Answer = match verb {
        "start" => exec::start,
        "run" => exec::run,
        "read" => exec::read,
        "wait" => exec::wait,
        "signal" => exec::signal,
        "input" => exec::input,
        "resize" => exec::resize,
        "execs" => exec::execs,
        "probe" => exec::probe,
        "note" => exec::note,
        "extend" => exec::extend,
        "stat" => files::stat,
        "list" => files::list,
        "mkdir" => files::mkdir,
        "remove" => files::remove,
        "rename" => files::rename,
        "symlink" => files::symlink,
        "chmod" => files::chmod,
        "read-file" => files::read_file,
        "write-file" => files::write_file,
        "read-tree" => files::read_tree,
        "write-tree" => files::write_tree,
        "watch" => files::watch,
        _ => return Err(Failure::invalid("verb", format_args!("The helper has no verb {verb:?}."))),
    };
    context.activity = Some(context.base.activity().map_err(|error| Failure::internal("activity", error))?);
    let result = verb(&args, &mut context);
    if let Some(activity) = &context.activity {
        let _ = activity.stamp();
    }
    result.map(|()| 0)
}
