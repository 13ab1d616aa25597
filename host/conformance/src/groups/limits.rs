//! Group `limits`: invalid arguments, values out of range, and maxima.

use std::sync::Arc;

use sandbox_host::types::{ExecSpec, ListFilter, SandboxSpec};
use sandbox_host::{Error, Happened, Kind, Retry};

use crate::check::{Outcome, Stop, ensure, failed, refused};
use crate::table::checks;
use crate::world::Case;

checks! {
    "limits.unknown-option" [] "sandbox-spec: unknown options are errors" => unknown_option;
    "limits.unknown-extra" [] "extra: an unknown name in a request is `invalid-argument`" => unknown_extra;
    "limits.unknown-filter" [] "list-filter: an unknown name in `extra` is `invalid-argument`" => unknown_filter;
    "limits.bad-workdir" ["create.workdir"] "sandbox-spec: `workdir` is absolute" => bad_workdir;
    "limits.bad-env" ["create.env"] "sandbox-spec: a name of a variable has no `=`, and no text has NUL" => bad_env;
    "limits.bad-name" ["create.names"] "sandbox-spec: `name` is 1 to 64 characters of `[A-Za-z0-9._-]`" => bad_name;
    "limits.bad-key" ["create.idempotent"] "sandbox-spec: `key` is 1 to 64 characters of `[A-Za-z0-9_-]`" => bad_key;
    "limits.limit-below-request" ["create.cpu", "create.memory"] "resources: a limit below its request is an error" => limit_below_request;
    "limits.check-spec-accepts" [] "check-spec: accepts what `create` accepts, and creates nothing" => check_spec_accepts;
    "limits.check-spec-sends-nothing" [] "check-spec: checks without a request" => check_spec_sends_nothing;
    "limits.list-max" [] "list: `max` is between 1 and 1000" => list_max;
    "limits.list-cursor" [] "sandbox-page: a cursor that the provider did not return is an error" => list_cursor;
    "limits.exec-id" ["exec"] "exec-id: 1 to 64 characters of `[A-Za-z0-9_-]`, and not `main`" => exec_id;
    "limits.exec-argv" ["exec"] "exec-spec: at least one word, the first one not empty, and no NUL" => exec_argv;
    "limits.exec-env" ["exec"] "exec-spec: a name of a variable has no `=` and is not empty, and no text has NUL" => exec_env;
    "limits.exec-extra" ["exec"] "exec-spec: an unknown name in `extra` is `invalid-argument`" => exec_extra;
    "limits.exec-timeout" ["exec", "exec.deadline"] "exec-spec: a time limit of 0 is an error" => exec_timeout;
    "limits.error-texts" [] "error: has a message, and advises not to repeat an invalid request" => error_texts;
}

/// Checks that `check-spec` and `create` refuse a specification as invalid.
async fn invalid(case: &Case, what: &str, spec: SandboxSpec) -> Outcome {
    let checked = case.provider.check_spec(&spec).await;
    if !checked.as_ref().is_err_and(is_missing) {
        refused(&format!("`check-spec` with {what}"), checked, &Kind::InvalidArgument)?;
    }
    let error = refused(&format!("`create` with {what}"), case.try_create(spec).await, &Kind::InvalidArgument)?;
    ensure!(error.happened() == Happened::No, "an invalid `create` has happened: {:?}", error.happened());
    Ok(())
}

/// Returns whether the error says that an old plugin has no `check-spec`.
fn is_missing(error: &Error) -> bool {
    *error.kind() == Kind::Unsupported && error.subject() == Some("check-spec")
}

async fn unknown_option(case: Arc<Case>) -> Outcome {
    invalid(&case, "an unknown option", case.spec().option("conformance-unknown", "1")).await
}

async fn unknown_extra(case: Arc<Case>) -> Outcome {
    let mut spec = case.spec();
    spec.extra.push(("conformance-unknown".to_owned(), "1".to_owned()));
    invalid(&case, "an unknown name in `extra`", spec).await
}

async fn unknown_filter(case: Arc<Case>) -> Outcome {
    let extra = vec![("conformance-unknown".to_owned(), "1".to_owned())];
    let filter = ListFilter { extra, ..ListFilter::default() };
    let listed = case.provider.list_page(&filter, None, 10).await;
    refused("`list` with an unknown name in `extra`", listed, &Kind::InvalidArgument)?;
    Ok(())
}

async fn bad_workdir(case: Arc<Case>) -> Outcome {
    invalid(&case, "a relative working directory", case.spec().workdir("tmp")).await
}

async fn bad_env(case: Arc<Case>) -> Outcome {
    invalid(&case, "a variable with `=` in its name", case.spec().env("A=B", "x")).await?;
    invalid(&case, "a variable with NUL in its value", case.spec().env("A", "x\0")).await
}

async fn bad_name(case: Arc<Case>) -> Outcome {
    for name in ["two words", "a/b", "ü", &"x".repeat(65)] {
        invalid(&case, &format!("the name {name:?}"), case.spec().name(name)).await?;
    }
    Ok(())
}

async fn bad_key(case: Arc<Case>) -> Outcome {
    for key in ["two words", "a.b", &"x".repeat(65)] {
        invalid(&case, &format!("the key {key:?}"), case.spec().key(key)).await?;
    }
    Ok(())
}

async fn limit_below_request(case: Arc<Case>) -> Outcome {
    invalid(&case, "a processor limit below the request", case.spec().cpu(2.0).cpu_limit(1.0)).await?;
    invalid(&case, "a memory limit below the request", case.spec().memory_mib(512).memory_limit_mib(256)).await
}

async fn check_spec_accepts(case: Arc<Case>) -> Outcome {
    match case.provider.check_spec(&case.spec()).await {
        Err(error) if is_missing(&error) => Err(Stop::Skipped("an old plugin without it".to_owned())),
        checked => Ok(checked?),
    }
}

async fn check_spec_sends_nothing(case: Arc<Case>) -> Outcome {
    let provider = case.fresh().await?;
    let _ = provider.check_spec(&case.spec()).await;
    let _ = provider.check_spec(&case.spec().option("conformance-unknown", "1")).await;
    let sent = provider.metrics().requests;
    ensure!(sent == 0, "`check-spec` sent {sent} requests");
    Ok(())
}

async fn list_max(case: Arc<Case>) -> Outcome {
    let listed = case.provider.list_page(&case.filter(), None, 0).await;
    refused("`list` with `max` 0", listed, &Kind::InvalidArgument)?;
    case.provider.list_page(&case.filter(), None, 1).await?;
    case.provider.list_page(&case.filter(), None, 1000).await?;
    Ok(())
}

async fn list_cursor(case: Arc<Case>) -> Outcome {
    let cursor = Some("conformance-no-cursor".to_owned());
    let listed = case.provider.list_page(&case.filter(), cursor, 10).await;
    refused("`list` with a cursor that nothing returned", listed, &Kind::InvalidArgument)?;
    Ok(())
}

/// Checks that `run` and, if the provider has it, `start` refuse a command as invalid.
async fn invalid_command(case: &Case, what: &str, command: ExecSpec) -> Outcome {
    let sandbox = case.shared().await?;
    let error = refused(&format!("`run` with {what}"), sandbox.run(command.clone()).await, &Kind::InvalidArgument)?;
    ensure!(error.happened() == Happened::No, "an invalid `run` has happened: {:?}", error.happened());
    if case.declares("processes") {
        refused(&format!("`start` with {what}"), sandbox.spawn(command).await, &Kind::InvalidArgument)?;
    }
    Ok(())
}

async fn exec_id(case: Arc<Case>) -> Outcome {
    for id in ["", "two words", "a.b", "ü", "main", &"x".repeat(65)] {
        let command = ExecSpec { id: id.to_owned(), ..ExecSpec::new(["echo"]) };
        invalid_command(&case, &format!("the id {id:?}"), command).await?;
    }
    let longest = ExecSpec { id: format!("{:-<64}", sandbox_host::fresh_id()), ..ExecSpec::new(["echo"]) };
    case.shared().await?.run(longest).await?;
    Ok(())
}

async fn exec_argv(case: Arc<Case>) -> Outcome {
    invalid_command(&case, "no word", ExecSpec::new([""; 0])).await?;
    invalid_command(&case, "an empty word for the program", ExecSpec::new([""])).await?;
    invalid_command(&case, "NUL in an argument", ExecSpec::new(["echo", "a\0b"])).await
}

async fn exec_env(case: Arc<Case>) -> Outcome {
    invalid_command(&case, "`=` in the name of a variable", ExecSpec::new(["echo"]).env("A=B", "x")).await?;
    invalid_command(&case, "an empty name of a variable", ExecSpec::new(["echo"]).env("", "x")).await?;
    invalid_command(&case, "NUL in a variable", ExecSpec::new(["echo"]).env("A", "x\0y")).await
}

async fn exec_extra(case: Arc<Case>) -> Outcome {
    let extra = vec![("conformance-unknown".to_owned(), "1".to_owned())];
    invalid_command(&case, "an unknown name in `extra`", ExecSpec { extra, ..ExecSpec::new(["echo"]) }).await
}

async fn exec_timeout(case: Arc<Case>) -> Outcome {
    let command = ExecSpec { timeout: Some(0), ..ExecSpec::new(["echo"]) };
    invalid_command(&case, "a time limit of 0", command).await
}

async fn error_texts(case: Arc<Case>) -> Outcome {
    let Err(error) = case.try_create(case.spec().option("conformance-unknown", "1")).await else {
        return failed("an unknown option was accepted");
    };
    let (_, why, _) = error.parts();
    ensure!(why.len() >= 10, "the message is {why:?}");
    ensure!(error.retry() == Retry::Never, "the advice about repeating an invalid request is {:?}", error.retry());
    Ok(())
}
