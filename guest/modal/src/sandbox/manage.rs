//! Operations on existing sandboxes: wait, terminate, names, tags, tunnels, usage, network, volumes
//! (docs/modal-protocol.md, section 6).

use modal_proto::{
    client::{
        SandboxCreateConnectTokenRequest, SandboxGetResourceUsageRequest, SandboxGetTunnelsRequest,
        SandboxSetNameRequest, SandboxTagsGetRequest, SandboxTagsSetRequest, SandboxTerminateRequest,
        generic_result::GenericStatus,
    },
    rpc,
    task_command_router::{SandboxWaitUntilReadyTcrRequest, TaskReloadVolumesRequest, TaskSetNetworkAccessRequest},
};

use crate::{
    sandbox::find::tunnel,
    service::{
        Service, ended,
        ended::HOLD_SLACK,
        id, policy,
        wire::{check_outbound, network_access, tags},
    },
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        time::bounded_wait,
        wit::{AllowList, ConnectToken, EndReason, ErrorKind, NetworkPolicy, Outbound, RetryAdvice, Tunnel, Usage},
    },
    call::{grpc::Code, json, retry::Policy},
};

/// Implements `wait` of the interface. Waits up to `wait` milliseconds for the end of a sandbox.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox; otherwise the error of the failed request.
pub async fn wait(service: &Service, sandbox: &str, wait: u64) -> Result<Option<EndReason>> {
    ended::wait(&service.control, sandbox, bounded_wait(wait)).await
}

/// Implements `wait-ready` of the interface. Waits up to `wait` milliseconds until the readiness probe succeeds.
///
/// # Errors
///
/// `conflict` if the sandbox has no probe, `sandbox-ended` if it has ended, `not-found` for an unknown sandbox;
/// otherwise the error of the failed request.
pub async fn wait_ready(service: &Service, sandbox: &str, wait: u64) -> Result<bool> {
    let wait = bounded_wait(wait);
    let policy = Policy { attempt: Some(wait + HOLD_SLACK), ..policy::ROUTER };
    let make = |task_id: String| SandboxWaitUntilReadyTcrRequest { task_id, timeout: wait.as_secs_f32() };
    let result =
        service.router.call(sandbox, &Policy { retries: 0, ..policy }, rpc::SANDBOX_WAIT_UNTIL_READY_TCR, make).await?;
    match result {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::DeadlineExceeded => Ok(false),
        Err(status) => Err(service.router.explain(sandbox, &status, "wait until the sandbox is ready").await),
    }
}

/// Implements `terminate` of the interface. Terminates a sandbox and returns when the service has accepted that.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox; otherwise the error of the failed request.
pub async fn terminate(service: &Service, sandbox: &str) -> Result<()> {
    id::check_sandbox(sandbox)?;
    let request = SandboxTerminateRequest { sandbox_id: sandbox.to_string() };
    let v1 = id::is_v1(sandbox);
    service
        .control
        .call("terminate the sandbox", if v1 { rpc::SANDBOX_TERMINATE } else { rpc::SANDBOX_TERMINATE_V2 }, &request)
        .await
        .map(drop)
        .map_err(|error| ended::unknown(sandbox, error))
}

/// Implements `set-name` of the interface. Sets the name of a sandbox that has none.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox, `unsupported` on the V1 backend; otherwise
/// the error of the failed request.
pub async fn set_name(service: &Service, sandbox: &str, name: &str) -> Result<()> {
    id::check_sandbox(sandbox)?;
    check::name(name)?;
    if id::is_v1(sandbox) {
        return Err(Error::unsupported("create.names", "Sandboxes on Modal's V1 backend get a name only at creation."));
    }
    let request = SandboxSetNameRequest { sandbox_id: sandbox.to_string(), name: name.to_string() };
    service
        .control
        .call("set the name of the sandbox", rpc::SANDBOX_SET_NAME, &request)
        .await
        .map(drop)
        .map_err(|error| ended::unknown(sandbox, error))
}

/// Implements `get-tags` of the interface. Returns the tags of a sandbox.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox; otherwise the error of the failed request.
pub async fn get_tags(service: &Service, sandbox: &str) -> Result<Vec<(String, String)>> {
    id::check_sandbox(sandbox)?;
    let request = SandboxTagsGetRequest { sandbox_id: sandbox.to_string() };
    let v1 = id::is_v1(sandbox);
    let answer = service
        .control
        .call("read the sandbox's tags", if v1 { rpc::SANDBOX_TAGS_GET } else { rpc::SANDBOX_TAGS_GET_V2 }, &request)
        .await
        .map_err(|error| ended::unknown(sandbox, error))?;
    Ok(answer.tags.into_iter().map(|tag| (tag.tag_name, tag.tag_value)).collect())
}

/// Implements `set-tags` of the interface. Replaces all tags of a sandbox.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox; otherwise the error of the failed request.
pub async fn set_tags(service: &Service, sandbox: &str, new: &[(String, String)]) -> Result<()> {
    id::check_sandbox(sandbox)?;
    let v1 = id::is_v1(sandbox);
    let environment_name = if v1 { service.config()?.environment.clone() } else { String::new() };
    let request = SandboxTagsSetRequest { environment_name, sandbox_id: sandbox.to_string(), tags: tags(new) };
    service
        .control
        .call("set the sandbox's tags", if v1 { rpc::SANDBOX_TAGS_SET } else { rpc::SANDBOX_TAGS_SET_V2 }, &request)
        .await
        .map(drop)
        .map_err(|error| ended::unknown(sandbox, error))
}

/// Implements `tunnels` of the interface. Returns the public addresses of the ports.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox, `timed-out` if the addresses are not
/// assigned in time; otherwise the error of the failed request.
pub async fn tunnels(service: &Service, sandbox: &str, wait: u64) -> Result<Vec<Tunnel>> {
    id::check_sandbox(sandbox)?;
    let request =
        SandboxGetTunnelsRequest { sandbox_id: sandbox.to_string(), timeout: bounded_wait(wait).as_secs_f32() };
    let v1 = id::is_v1(sandbox);
    let answer = service
        .control
        .call(
            "find the sandbox's tunnels",
            if v1 { rpc::SANDBOX_GET_TUNNELS } else { rpc::SANDBOX_GET_TUNNELS_V2 },
            &request,
        )
        .await
        .map_err(|error| ended::unknown(sandbox, error))?;
    if answer.result.is_some_and(|result| result.status() == GenericStatus::Timeout) {
        let message = "The tunnels were not assigned in time. Wait longer.";
        return Err(Error::new(ErrorKind::TimedOut, message).with_retry(RetryAdvice::Maybe).about(sandbox));
    }
    Ok(answer.tunnels.iter().flat_map(tunnel).collect())
}

/// Implements `stats` of the interface. Returns the resources that a sandbox has used so far.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox; otherwise the error of the failed request.
pub async fn stats(service: &Service, sandbox: &str) -> Result<Usage> {
    id::check_sandbox(sandbox)?;
    let request = SandboxGetResourceUsageRequest { sandbox_id: sandbox.to_string() };
    let answer = service
        .control
        .call("read the usage of the sandbox", rpc::SANDBOX_GET_RESOURCE_USAGE, &request)
        .await
        .map_err(|error| ended::unknown(sandbox, error))?;
    Ok(Usage {
        cpu_core_millis: answer.cpu_core_nanosecs / 1_000_000,
        memory_mib_millis: (u128::from(answer.mem_gib_nanosecs) * 1024 / 1_000_000).try_into().unwrap_or(u64::MAX),
        gpu_millis: answer.gpu_nanosecs / 1_000_000,
        extra: answer.gpu_type.map(|gpu| ("gpu".to_string(), json::Value::Text(gpu).to_string())).into_iter().collect(),
    })
}

/// Implements `set-network` of the interface. Replaces the network policy of a running sandbox.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox, `sandbox-ended` if it has ended,
/// `unsupported` for a policy with inbound addresses; otherwise the error of the failed request.
pub async fn set_network(service: &Service, sandbox: &str, policy: &NetworkPolicy) -> Result<()> {
    if !policy.inbound_cidrs.is_empty() {
        return Err(Error::unsupported(
            "network.inbound",
            "Modal does not support changing the inbound address ranges of a running sandbox.",
        ));
    }
    // A running sandbox can be opened or get an allow-list (docs/modal-protocol.md, section 6.6). An empty allow-list
    // blocks everything.
    check_outbound(&policy.outbound)?;
    let nothing = Outbound::Allowed(AllowList { cidrs: Vec::new(), domains: Vec::new() });
    let outbound = if matches!(policy.outbound, Outbound::Blocked) { &nothing } else { &policy.outbound };
    let network_access = Some(network_access(outbound));
    let make = |task_id| TaskSetNetworkAccessRequest { task_id, network_access };
    let what = "change the sandbox's network";
    service.router.ask(sandbox, &policy::ROUTER, what, rpc::TASK_SET_NETWORK_ACCESS, make).await.map(drop)
}

/// Implements `create-connect-token` of the interface. Creates a token for HTTP connections to `port`.
///
/// # Errors
///
/// `invalid-argument` for an invalid id or port 0, `not-found` for an unknown sandbox; otherwise the error of the
/// failed request.
pub async fn create_connect_token(
    service: &Service,
    sandbox: &str,
    port: u16,
    metadata: String,
) -> Result<ConnectToken> {
    id::check_sandbox(sandbox)?;
    if port == 0 {
        return Err(Error::invalid("0 is not a port: ports are 1 to 65535.").about("port"));
    }
    let request = SandboxCreateConnectTokenRequest {
        sandbox_id: sandbox.to_string(),
        user_metadata: metadata,
        port: Some(port.into()),
    };
    let v1 = id::is_v1(sandbox);
    let rpc = if v1 { rpc::SANDBOX_CREATE_CONNECT_TOKEN } else { rpc::SANDBOX_CREATE_CONNECT_TOKEN_V2 };
    let answer = service
        .control
        .call("create a token for the sandbox", rpc, &request)
        .await
        .map_err(|error| ended::unknown(sandbox, error))?;
    let headers = vec![("authorization".to_string(), format!("Bearer {}", answer.token))];
    Ok(ConnectToken { url: answer.url, headers, expires: None })
}

/// Implements `reload-volumes` of the interface. Makes the changes of other sandboxes to the mounted volumes visible.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox, `sandbox-ended` if it has ended; otherwise
/// the error of the failed request.
pub async fn reload_volumes(service: &Service, sandbox: &str) -> Result<()> {
    let make = |task_id| TaskReloadVolumesRequest { task_id, container_id: String::new() };
    let what = "reload the volumes";
    service.router.ask(sandbox, &policy::ROUTER, what, rpc::TASK_RELOAD_VOLUMES, make).await.map(drop)
}
