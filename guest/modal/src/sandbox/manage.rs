//! Sandboxes once they are there: look up, list, wait, terminate, names, tags, tunnels, network (fact sheet, section 6).

use std::time::Duration;

use modal_proto::{
    client::{
        GenericResult, SandboxCreateConnectTokenRequest, SandboxGetFromNameRequest, SandboxGetResourceUsageRequest,
        SandboxGetTaskIdRequest, SandboxGetTunnelsRequest, SandboxInfo as WireInfo, SandboxListRequest,
        SandboxSetNameRequest, SandboxTagsGetRequest, SandboxTagsSetRequest, SandboxTerminateRequest,
        SandboxWaitRequest, TunnelData, generic_result::GenericStatus,
    },
    rpc,
    task_command_router::{SandboxWaitUntilReadyTcrRequest, TaskReloadVolumesRequest, TaskSetNetworkAccessRequest},
};

use crate::{
    provider::Provider,
    sandbox::create::{network_access, tags},
    service::{id, policy},
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::shown,
        time::{bounded_wait, millis},
        wit::{
            AllowList, ConnectToken, EndReason, ErrorKind, ListFilter, NetworkPolicy, Outbound, PortKind, RetryAdvice,
            SandboxInfo, SandboxPage, SandboxState, Tunnel, Usage,
        },
    },
    call::{
        grpc::Code,
        json,
        retry::{Policy, not_yet},
    },
};

/// How long one SandboxWait is held by the server, and how much longer its answer may take (fact sheet, section 1.5).
pub(crate) const WAIT_HOLD: Duration = Duration::from_secs(10);
pub(crate) const HOLD_SLACK: Duration = Duration::from_secs(5);

/// Largest page of `list`.
const MAX_PAGE: u32 = 1000;

/// Sandboxes made at one moment cannot be told apart by the server's cursor, a time: the next page begins this much
/// later, in seconds, and what has been given already is left out.
const TIE: f64 = 1e-6;

impl Provider {
    /// See `get` in the interface. One SandboxWait without waiting; Modal tells tags and name only by further calls.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn get(&self, sandbox: &str) -> Result<SandboxInfo> {
        let state = match self.poll_end(sandbox).await? {
            Some(reason) => SandboxState::Ended(reason),
            None if id::is_v1(sandbox) && !self.has_machine(sandbox).await? => SandboxState::Pending,
            None => SandboxState::Running,
        };
        Ok(SandboxInfo {
            id: sandbox.to_string(),
            name: None,
            state,
            image: None,
            created: None,
            tags: Vec::new(),
            tunnels: Vec::new(),
            extra: vec![backend(sandbox)],
        })
    }

    /// Whether a sandbox of the older backend, which are made before there is a machine for them, has one.
    async fn has_machine(&self, sandbox: &str) -> Result<bool> {
        let request = SandboxGetTaskIdRequest { sandbox_id: sandbox.to_string(), ..Default::default() };
        let answer = self.control("look at the sandbox", rpc::SANDBOX_GET_TASK_ID, &request).await?;
        Ok(answer.task_id.is_some_and(|id| !id.is_empty()))
    }

    /// See `find` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn find(&self, name: &str) -> Result<SandboxInfo> {
        check::name(name)?;
        let config = self.config()?;
        let request = SandboxGetFromNameRequest {
            sandbox_name: name.to_string(),
            environment_name: config.environment.clone(),
            app_name: config.app.clone(),
            include_terminated: false,
        };
        let result = self.control_keyed(&self.new_uuid(), rpc::SANDBOX_GET_FROM_NAME_V2, &request).await?;
        let answer = match result {
            // Names of the older backend are looked up on their own (fact sheet, section 6.2).
            Err(status) if status.code() == Code::NotFound => {
                self.control_keyed(&self.new_uuid(), rpc::SANDBOX_GET_FROM_NAME, &request).await?
            }
            other => other,
        }
        .map_err(|status| match status.code() {
            Code::NotFound => Error::new(
                ErrorKind::NotFound,
                format!("No live sandbox is named `{name}` in the app `{}`.", config.app),
            )
            .about(name),
            _ => self.control_error(&status, "find the sandbox").about(name),
        })?;
        Ok(SandboxInfo { name: Some(name.to_string()), ..self.get(&answer.sandbox_id).await? })
    }

    /// See `list` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn list(&self, filter: ListFilter, cursor: Option<String>, max: u32) -> Result<SandboxPage> {
        let all_apps = match &filter.extra[..] {
            [(name, value)] if name == "all-apps" && value == "true" => true,
            other => check::extra(other).map(|()| false)?,
        };
        if max == 0 {
            return Err(Error::invalid("max is 0: ask for at least one sandbox."));
        }
        let after = cursor.map(|text| ListCursor::parse(&text)).transpose()?;
        let mut before = after.as_ref().map_or(0.0, |after| after.created + TIE);
        let mut request = SandboxListRequest {
            // Without an app: those of the whole environment (fact sheet, section 6.2).
            app_id: if all_apps { String::new() } else { self.app_id().await? },
            environment_name: if all_apps { self.config()?.environment.clone() } else { String::new() },
            include_finished: filter.include_ended,
            tags: tags(&filter.tags),
            ..Default::default()
        };
        loop {
            request.before_timestamp = before;
            // Whatever is configured for new ones: this method lists the sandboxes of both backends.
            let answer = self.control("list the sandboxes", rpc::SANDBOX_LIST_V2, &request).await?;
            let mut found = answer.sandboxes;
            settle(&mut found, |a, b| (b.created_at, &b.id) < (a.created_at, &a.id));
            let Some(oldest) = found.last().map(|last| last.created_at) else {
                return Ok(SandboxPage { items: Vec::new(), next: None });
            };
            found.retain(|sandbox| after.as_ref().is_none_or(|after| after.precedes(sandbox)));
            if found.is_empty() {
                // All of this page was made at one moment, and given already.
                before = if before > oldest { oldest } else { oldest - TIE };
                continue;
            }
            found.truncate(max.min(MAX_PAGE) as usize);
            let next = found.last().map(|last| ListCursor { created: last.created_at, id: last.id.clone() }.text());
            return Ok(SandboxPage { items: found.into_iter().map(info).collect(), next });
        }
    }

    /// The reason why the sandbox is over; none if it lives.
    pub(crate) async fn poll_end(&self, sandbox: &str) -> Result<Option<EndReason>> {
        self.sandbox_wait(sandbox, Duration::ZERO).await
    }

    /// See `wait` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn wait(&self, sandbox: &str, wait: u64) -> Result<Option<EndReason>> {
        self.wait_end(sandbox, bounded_wait(wait)).await
    }

    pub(crate) async fn wait_end(&self, sandbox: &str, wait: Duration) -> Result<Option<EndReason>> {
        let deadline = self.now() + wait;
        loop {
            let asked = self.now();
            let left = deadline.saturating_sub(asked);
            let hold = left.min(WAIT_HOLD);
            let ended = self.sandbox_wait(sandbox, hold).await?;
            if ended.is_some() || left.is_zero() {
                return Ok(ended);
            }
            not_yet(self.transport(), asked, hold).await;
        }
    }

    async fn sandbox_wait(&self, sandbox: &str, hold: Duration) -> Result<Option<EndReason>> {
        id::check_sandbox(sandbox)?;
        let request = SandboxWaitRequest { sandbox_id: sandbox.to_string(), timeout: hold.as_secs_f32() };
        let v1 = id::is_v1(sandbox);
        let limit = hold + HOLD_SLACK;
        let answer = self
            .control_within(
                "look at the sandbox",
                if v1 { rpc::SANDBOX_WAIT } else { rpc::SANDBOX_WAIT_V2 },
                &request,
                limit,
            )
            .await
            .map_err(|error| unknown_sandbox(sandbox, error))?;
        Ok(answer.result.as_ref().and_then(end_reason))
    }

    /// See `wait-ready` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn wait_ready(&self, sandbox: &str, wait: u64) -> Result<bool> {
        let wait = bounded_wait(wait);
        let policy = Policy { attempt: Some(wait + HOLD_SLACK), ..policy::ROUTER };
        let make = |task_id: String| SandboxWaitUntilReadyTcrRequest { task_id, timeout: wait.as_secs_f32() };
        let result =
            self.router(sandbox, &Policy { retries: 0, ..policy }, rpc::SANDBOX_WAIT_UNTIL_READY_TCR, make).await?;
        match result {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::DeadlineExceeded => Ok(false),
            Err(status) => Err(self.explain(sandbox, &status, "wait until the sandbox is ready").await),
        }
    }

    /// See `terminate` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn terminate(&self, sandbox: &str) -> Result<()> {
        id::check_sandbox(sandbox)?;
        let request = SandboxTerminateRequest { sandbox_id: sandbox.to_string() };
        let v1 = id::is_v1(sandbox);
        self.control(
            "terminate the sandbox",
            if v1 { rpc::SANDBOX_TERMINATE } else { rpc::SANDBOX_TERMINATE_V2 },
            &request,
        )
        .await
        .map(drop)
        .map_err(|error| unknown_sandbox(sandbox, error))
    }

    /// See `set-name` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn set_name(&self, sandbox: &str, name: &str) -> Result<()> {
        id::check_sandbox(sandbox)?;
        check::name(name)?;
        if id::is_v1(sandbox) {
            return Err(Error::unsupported(
                "create.names",
                "Modal names sandboxes of its V1 backend at creation only.",
            ));
        }
        let request = SandboxSetNameRequest { sandbox_id: sandbox.to_string(), name: name.to_string() };
        self.control("name the sandbox", rpc::SANDBOX_SET_NAME, &request)
            .await
            .map(drop)
            .map_err(|error| unknown_sandbox(sandbox, error))
    }

    /// See `get-tags` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn get_tags(&self, sandbox: &str) -> Result<Vec<(String, String)>> {
        id::check_sandbox(sandbox)?;
        let request = SandboxTagsGetRequest { sandbox_id: sandbox.to_string() };
        let v1 = id::is_v1(sandbox);
        let answer = self
            .control(
                "read the sandbox's tags",
                if v1 { rpc::SANDBOX_TAGS_GET } else { rpc::SANDBOX_TAGS_GET_V2 },
                &request,
            )
            .await
            .map_err(|error| unknown_sandbox(sandbox, error))?;
        Ok(answer.tags.into_iter().map(|tag| (tag.tag_name, tag.tag_value)).collect())
    }

    /// See `set-tags` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn set_tags(&self, sandbox: &str, new: &[(String, String)]) -> Result<()> {
        id::check_sandbox(sandbox)?;
        let v1 = id::is_v1(sandbox);
        let environment_name = if v1 { self.config()?.environment.clone() } else { String::new() };
        let request = SandboxTagsSetRequest { environment_name, sandbox_id: sandbox.to_string(), tags: tags(new) };
        self.control(
            "set the sandbox's tags",
            if v1 { rpc::SANDBOX_TAGS_SET } else { rpc::SANDBOX_TAGS_SET_V2 },
            &request,
        )
        .await
        .map(drop)
        .map_err(|error| unknown_sandbox(sandbox, error))
    }

    /// See `tunnels` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn tunnels(&self, sandbox: &str, wait: u64) -> Result<Vec<Tunnel>> {
        id::check_sandbox(sandbox)?;
        let request =
            SandboxGetTunnelsRequest { sandbox_id: sandbox.to_string(), timeout: bounded_wait(wait).as_secs_f32() };
        let v1 = id::is_v1(sandbox);
        let answer = self
            .control(
                "find the sandbox's tunnels",
                if v1 { rpc::SANDBOX_GET_TUNNELS } else { rpc::SANDBOX_GET_TUNNELS_V2 },
                &request,
            )
            .await
            .map_err(|error| unknown_sandbox(sandbox, error))?;
        if answer.result.is_some_and(|result| result.status() == GenericStatus::Timeout) {
            let message = "The tunnels were not assigned in time. Wait longer.";
            return Err(Error::new(ErrorKind::TimedOut, message).with_retry(RetryAdvice::Maybe).about(sandbox));
        }
        Ok(answer.tunnels.iter().flat_map(tunnel).collect())
    }

    /// See `stats` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn stats(&self, sandbox: &str) -> Result<Usage> {
        id::check_sandbox(sandbox)?;
        let request = SandboxGetResourceUsageRequest { sandbox_id: sandbox.to_string() };
        let answer = self
            .control("read what the sandbox has used", rpc::SANDBOX_GET_RESOURCE_USAGE, &request)
            .await
            .map_err(|error| unknown_sandbox(sandbox, error))?;
        Ok(Usage {
            cpu_core_millis: answer.cpu_core_nanosecs / 1_000_000,
            memory_mib_millis: (u128::from(answer.mem_gib_nanosecs) * 1024 / 1_000_000).try_into().unwrap_or(u64::MAX),
            gpu_millis: answer.gpu_nanosecs / 1_000_000,
            extra: answer
                .gpu_type
                .map(|gpu| ("gpu".to_string(), json::Value::Text(gpu).to_string()))
                .into_iter()
                .collect(),
        })
    }

    /// See `set-network` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn set_network(&self, sandbox: &str, policy: &NetworkPolicy) -> Result<()> {
        if !policy.inbound_cidrs.is_empty() {
            return Err(Error::unsupported(
                "network.inbound",
                "Modal fixes who may connect to a sandbox when it is made.",
            ));
        }
        // A running sandbox can be opened or given an allow-list (fact sheet, section 6.6). An empty one blocks.
        let nothing = Outbound::Allowed(AllowList { cidrs: Vec::new(), domains: Vec::new() });
        let outbound = if matches!(policy.outbound, Outbound::Blocked) { &nothing } else { &policy.outbound };
        let network_access = Some(network_access(outbound));
        let make = |task_id| TaskSetNetworkAccessRequest { task_id, network_access };
        let what = "change the sandbox's network";
        self.ask_router(sandbox, &policy::ROUTER, what, rpc::TASK_SET_NETWORK_ACCESS, make).await.map(drop)
    }

    /// See `create-connect-token` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn create_connect_token(&self, sandbox: &str, port: u16, metadata: String) -> Result<ConnectToken> {
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
        let answer = self
            .control("make a token for the sandbox", rpc, &request)
            .await
            .map_err(|error| unknown_sandbox(sandbox, error))?;
        Ok(ConnectToken { url: answer.url, token: answer.token })
    }

    /// See `reload-volumes` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn reload_volumes(&self, sandbox: &str) -> Result<()> {
        let make = |task_id| TaskReloadVolumesRequest { task_id, container_id: String::new() };
        let what = "reload the volumes";
        self.ask_router(sandbox, &policy::ROUTER, what, rpc::TASK_RELOAD_VOLUMES, make).await.map(drop)
    }
}

pub(crate) fn unknown_sandbox(sandbox: &str, error: Error) -> Error {
    if !error.is_not_found() {
        return error.about(sandbox);
    }
    let message = format!("Modal knows no sandbox {sandbox}. It may belong to another workspace, or be long gone.");
    error.with_message(message).about(sandbox)
}

/// Why a result says that the sandbox is over; none if it does not (fact sheet, section 6.1).
pub(crate) fn end_reason(result: &GenericResult) -> Option<EndReason> {
    Some(match result.status() {
        GenericStatus::Unspecified => return None,
        GenericStatus::Success | GenericStatus::Failure => EndReason::Finished(result.exitcode),
        GenericStatus::Terminated => EndReason::Terminated,
        GenericStatus::Timeout => EndReason::Lifetime,
        GenericStatus::IdleTimeout => EndReason::Idle,
        GenericStatus::InitFailure => EndReason::FailedToStart(result.exception.clone()),
        GenericStatus::InternalFailure => EndReason::Lost(result.exception.clone()),
        GenericStatus::MemoryManagerEviction
        | GenericStatus::MemoryThrashingEviction
        | GenericStatus::KernelOomKill => EndReason::OutOfMemory,
    })
}

/// An end in words.
pub(crate) fn describe_end(reason: &EndReason) -> String {
    match reason {
        EndReason::Finished(code) => format!("its command exited with code {code}"),
        EndReason::Terminated => "it was terminated".to_string(),
        EndReason::Lifetime => "its lifetime was over".to_string(),
        EndReason::Idle => "it was idle for too long".to_string(),
        EndReason::OutOfMemory => "it ran out of memory".to_string(),
        EndReason::FailedToStart(text) => format!("it did not start ({text})"),
        EndReason::Lost(text) => format!("the provider lost it ({text})"),
        EndReason::Other(text) => text.clone(),
    }
}

/// Which backend a sandbox runs on, as a further field.
pub(crate) fn backend(sandbox: &str) -> (String, String) {
    ("backend".to_string(), if id::is_v1(sandbox) { "\"v1\"" } else { "\"v2\"" }.to_string())
}

/// Sorts, stably, what the service sorts but for ties: fast where little has to be moved, and a few hundred bytes, where
/// the library's sort is three thousand for each type.
pub(crate) fn settle<T>(items: &mut [T], before: impl Fn(&T, &T) -> bool) {
    for end in 1..items.len() {
        let mut at = end;
        while at > 0 && before(&items[at], &items[at - 1]) {
            items.swap(at, at - 1);
            at -= 1;
        }
    }
}

/// Where a list goes on: behind this sandbox, by time and then by id.
struct ListCursor {
    created: f64,
    id: String,
}

impl ListCursor {
    fn text(&self) -> String {
        format!("{:x}.{}", self.created.to_bits(), self.id)
    }

    fn parse(text: &str) -> Result<ListCursor> {
        let parts = text.split_once('.').and_then(|(bits, id)| Some((u64::from_str_radix(bits, 16).ok()?, id)));
        match parts.map(|(bits, id)| (f64::from_bits(bits), id)) {
            Some((created, id)) if created.is_finite() && created > 0.0 => {
                Ok(ListCursor { created, id: id.to_string() })
            }
            _ => Err(Error::invalid(format!("`{}` is not a cursor of this list.", shown(text)))),
        }
    }

    /// Whether this sandbox comes behind.
    fn precedes(&self, sandbox: &WireInfo) -> bool {
        sandbox.created_at < self.created || sandbox.created_at == self.created && sandbox.id < self.id
    }
}

fn info(wire: WireInfo) -> SandboxInfo {
    let ended = wire.task_info.as_ref().and_then(|task| task.result.as_ref()).and_then(end_reason);
    let started = wire.task_info.as_ref().is_some_and(|task| task.started_at > 0.0);
    SandboxInfo {
        extra: vec![backend(&wire.id)],
        id: wire.id,
        name: Some(wire.name).filter(|name| !name.is_empty()),
        state: match ended {
            Some(reason) => SandboxState::Ended(reason),
            None if started => SandboxState::Running,
            None => SandboxState::Pending,
        },
        image: Some(wire.image_id).filter(|id| !id.is_empty()),
        created: Duration::try_from_secs_f64(wire.created_at).ok().map(millis),
        tags: wire.tags.into_iter().map(|tag| (tag.tag_name, tag.tag_value)).collect(),
        tunnels: wire.tunnels.iter().flat_map(tunnel).collect(),
    }
}

/// A tunnel record is one TLS address, or that and a plain one for an unencrypted port (fact sheet, section 6.3).
pub(crate) fn tunnel(data: &TunnelData) -> Option<Tunnel> {
    let port = u16::try_from(data.container_port).ok()?;
    let (kind, host, number) = match (&data.unencrypted_host, data.unencrypted_port) {
        (Some(host), Some(number)) => (PortKind::Tcp, host, number),
        _ => (PortKind::Tls, &data.host, data.port),
    };
    Some(Tunnel { port, kind, public_host: host.clone(), public_port: u16::try_from(number).ok()? })
}
