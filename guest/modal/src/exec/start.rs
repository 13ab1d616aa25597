//! Makes the request that starts a command: environment, user and an argv of any length.

use std::collections::HashMap;

use modal_proto::{
    client::{SecretSource, StringMap, secret_source::Source},
    task_command_router::{TaskExecStartRequest, TaskExecStderrConfig, TaskExecStdoutConfig},
};
use sandbox_provider_kit::{
    Result,
    api::{
        check, ids,
        wit::{ExecSpec, Location, OutputMode},
    },
    inside::{argv, script::SHELL, signal::MARKER, user::Switch},
};

use super::{
    helper::{Helper, tool_argv},
    script::{Scripts, time_limit},
    stdin,
    user::Users,
};
use crate::service::{container, id, wire::pty_info};

/// Longest argv that Modal accepts, in bytes (docs/modal-protocol.md, section 7.4).
const MAX_ARGV_BYTES: usize = 65_536;

/// Returns the request that starts a command.
pub(crate) async fn request(
    scripts: &Scripts,
    users: &Users,
    sandbox: &str,
    spec: ExecSpec,
) -> Result<TaskExecStartRequest> {
    let service = scripts.service();
    id::check_sandbox(sandbox)?;
    check::exec_spec(&spec)?;
    let exec_id = ids::wire_uuid(&spec.id);
    let container = spec.container.as_deref();
    let container_id = container::id(&service.router, sandbox, container).await?;
    let mut sources: Vec<SecretSource> = service
        .names
        .secret_ids(&spec.secrets)
        .await?
        .into_iter()
        .map(|id| SecretSource { source: Some(Source::SecretId(id)) })
        .collect();
    let switch = match &spec.user {
        Some(user) => Some(users.switch(scripts, sandbox, container, user).await?),
        None => None,
    };
    let mut env: HashMap<_, _> = switch.iter().flat_map(Switch::environment).chain(spec.env).collect();
    let (mut argv, mut workdir) = (spec.argv, spec.cwd);
    let relative = workdir.take_if(|cwd| !cwd.starts_with('/'));
    if relative.is_some()
        || argv::is_long(&argv, MAX_ARGV_BYTES)
        || switch.as_ref().is_some_and(|switch| switch.needs_shell(&env))
    {
        argv = argv::past_a_shell(&env, argv);
    }
    if let Some(cwd) = relative {
        argv = argv::in_directory(&cwd, argv);
    }
    if let Some(switch) = &switch {
        argv = switch.wrap(argv, &mut env);
    }
    env.insert(MARKER.to_string(), exec_id.clone());
    sources.push(SecretSource { source: Some(Source::Env(StringMap { contents: env })) });
    let argv = bootstrap(scripts.helper(), sandbox, container, &exec_id, argv).await?;
    Ok(TaskExecStartRequest {
        exec_id,
        container_id,
        command_args: argv,
        stdout_config: match spec.stdout {
            OutputMode::Keep => TaskExecStdoutConfig::Pipe,
            OutputMode::Discard => TaskExecStdoutConfig::Devnull,
        }
        .into(),
        stderr_config: match spec.stderr {
            _ if spec.merge_stderr => TaskExecStderrConfig::Stdout,
            OutputMode::Keep => TaskExecStderrConfig::Pipe,
            OutputMode::Discard => TaskExecStderrConfig::Devnull,
        }
        .into(),
        timeout_secs: spec.timeout.map(time_limit),
        workdir,
        pty_info: spec.pty.map(pty_info),
        secret_sources: sources,
        ..Default::default()
    })
}

/// Returns the argv itself, or, if Modal would not accept it, the argv of a shell that reads it from a file.
///
/// # Errors
///
/// The error of writing the file.
async fn bootstrap(
    helper: &Helper,
    sandbox: &str,
    container: Option<&str>,
    exec_id: &str,
    argv: Vec<String>,
) -> Result<Vec<String>> {
    if !argv::is_long(&argv, MAX_ARGV_BYTES) {
        return Ok(argv);
    }
    let at = Location {
        sandbox: sandbox.to_string(),
        container: container.map(str::to_string),
        path: format!("/tmp/.{exec_id}.sh"),
        user: None,
    };
    // Derived from the exec's id, so that a repeated start does not write the file again.
    let transfer = ids::derived_uuid(&format!("argv {exec_id}"));
    helper.begin(&at, &transfer, tool_argv("WriteFile", &at.path)).await?;
    stdin::feed(helper.service(), sandbox, &transfer, argv::script(&argv).into_bytes().into()).await?;
    helper.finish(&at, &transfer).await?;
    Ok(helper.places().placed(sandbox, container, vec![SHELL.to_string(), at.path]))
}
