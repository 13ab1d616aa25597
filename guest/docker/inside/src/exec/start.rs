//! The verbs `start` and `run`.

use crate::{
    answer::{Answer, Failure, send},
    args::Args,
    context::Context,
    exec::{
        command::Command,
        feed::accept,
        follow::{Range, follow},
        launch::launch,
        state::Exec,
        supervise::Extras,
    },
};

/// The name of the command that `init` starts.
pub const MAIN: &str = "main";

fn launched(args: &Args, context: &mut Context) -> Answer<Exec> {
    let id = args.required("id")?;
    if id == MAIN {
        return Err(Failure::invalid("id", "The id main belongs to the first command of the container."));
    }
    // It is taken before the start, so that a failure is one of the start.
    let mut input = args.data(&context.base)?;
    let exec = launch(&context.base, id, || Command::of(args), Extras::default(), &mut context.activity)?;
    let eof = args.flag("eof");
    if eof || args.text("data").or(args.text("file")).is_some() {
        accept(&exec, 0, &mut input, eof)?;
    }
    Ok(exec)
}

/// Starts a command.
///
/// # Errors
///
/// Fails if it cannot be started.
pub fn start(args: &Args, context: &mut Context) -> Answer {
    launched(args, context)?;
    send(b'.', "")
}

/// Starts a command and follows it until its end.
///
/// # Errors
///
/// Fails if it cannot be started.
pub fn run(args: &Args, context: &mut Context) -> Answer {
    let exec = launched(args, context)?;
    let range = Range { follow: true, wait: args.duration("wait")?, ..Range::default() };
    follow(&exec, range)
}
