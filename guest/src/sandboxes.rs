//! Sandboxes: create, look up, list, wait, terminate, tags, tunnels, snapshots (fact sheet, sections 5 and 6).

use std::time::Duration;

use modal_proto::{
    client::{
        GenericResult, GpuConfig, NetworkAccess, PortSpec, PortSpecs, Probe, Resources, Sandbox,
        SandboxCreateV2Request, SandboxGetFromNameRequest, SandboxGetResourceUsageRequest, SandboxGetTunnelsRequest,
        SandboxInfo as WireInfo, SandboxListRequest, SandboxSetNameRequest, SandboxTag, SandboxTagsGetRequest,
        SandboxTagsSetRequest, SandboxTerminateRequest, SandboxWaitRequest, SchedulerPlacement, SecretSource,
        StringMap, TunnelData, TunnelType, generic_result::GenericStatus, network_access::NetworkAccessType, probe,
        sandbox, secret_source::Source,
    },
    rpc,
    task_command_router::{
        SandboxWaitUntilReadyTcrRequest, TaskReloadVolumesRequest, TaskSetNetworkAccessRequest,
        TaskSnapshotFilesystemRequest,
    },
};
use tonic::Code;

use crate::{
    bindings::{
        EndReason, ErrorKind, ListFilter, NetworkPolicy, Outbound, Port, PortKind, Readiness, Resources as Wanted,
        RetryAdvice, SandboxInfo, SandboxPage, SandboxSpec, SandboxState, Tunnel, Usage,
    },
    error::{Error, Result},
    execs::{bounded_wait, check_env, check_extra, pty_info, whole_seconds},
    ids,
    provider::Provider,
    retry,
};

/// Life of a sandbox that asks for none: Modal's own default (fact sheet, section 5.2), in seconds.
const DEFAULT_LIFETIME_SECS: u32 = 300;

/// How long one SandboxWait is held by the server, and how much longer its answer may take (fact sheet, section 1.5).
const WAIT_HOLD: Duration = Duration::from_secs(10);
const WAIT_SLACK: Duration = Duration::from_secs(5);

/// Longest command, in bytes in all (fact sheet, section 5.2).
const MAX_COMMAND_BYTES: usize = 65_536;

/// Largest page of `list`.
const MAX_PAGE: u32 = 1000;

impl Provider {
    /// See `create` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn create(&self, spec: SandboxSpec) -> Result<SandboxInfo> {
        check_spec(&spec)?;
        let app_id = self.app_id().await?;
        let image = self.ready_image(&spec.image).await?;
        let secret_ids = self.secret_ids(&spec.secrets).await?;
        let mut sources: Vec<SecretSource> =
            secret_ids.iter().map(|id| SecretSource { source: Some(Source::SecretId(id.clone())) }).collect();
        if !spec.env.is_empty() {
            let contents = spec.env.iter().cloned().collect();
            sources.push(SecretSource { source: Some(Source::Env(StringMap { contents })) });
        }
        let key = match &spec.key {
            Some(key) => ids::derived_uuid(&format!("create {key}")),
            None => self.new_uuid(),
        };
        let request = SandboxCreateV2Request {
            app_id,
            definition: Some(definition(&spec, &image.id, secret_ids)),
            tags: tags(&spec.tags),
            secret_sources: sources,
            ..Default::default()
        };
        let answer = self.control_keyed(&key, rpc::SANDBOX_CREATE_V2, &request).await?;
        let answer = match answer {
            Ok(answer) => answer,
            Err(status) => {
                let mut error = self.control_error(&status, "create the sandbox");
                if let Some(wait) = retry::server_wait(&status) {
                    error.retry = RetryAdvice::After(crate::execs::millis(wait));
                }
                return Err(error);
            }
        };
        if answer.sandbox_id.is_empty() {
            return Err(Error::internal("Modal answered a create without a sandbox id."));
        }
        self.remember_access(&answer.sandbox_id, &answer.task_id, answer.command_router_access);
        Ok(SandboxInfo {
            id: answer.sandbox_id,
            name: spec.name,
            state: if answer.task_id.is_empty() { SandboxState::Pending } else { SandboxState::Running },
            image: Some(image.id),
            created: None,
            tags: spec.tags,
            tunnels: answer.tunnels.iter().flat_map(tunnel).collect(),
            extra: vec![("backend".to_string(), "\"v2\"".to_string())],
        })
    }

    /// See `get` in the interface. One SandboxWait without waiting; Modal tells tags and name only by further calls.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn get(&self, sandbox: &str) -> Result<SandboxInfo> {
        let state = match self.poll_end(sandbox).await? {
            Some(reason) => SandboxState::Ended(reason),
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

    /// See `find` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn find(&self, name: &str) -> Result<SandboxInfo> {
        check_name(name)?;
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
        check_extra(&filter.extra)?;
        if max == 0 {
            return Err(Error::invalid("max is 0: ask for at least one sandbox."));
        }
        let before = match cursor {
            None => 0.0,
            Some(text) => {
                let bits = u64::from_str_radix(&text, 16)
                    .map_err(|_| Error::invalid(format!("`{}` is not a cursor of this list.", text.escape_debug())))?;
                f64::from_bits(bits)
            }
        };
        let request = SandboxListRequest {
            app_id: self.app_id().await?,
            before_timestamp: before,
            include_finished: filter.include_ended,
            tags: tags(&filter.tags),
            ..Default::default()
        };
        let v2 = self.config()?.v2;
        let answer = self
            .control("list the sandboxes", if v2 { rpc::SANDBOX_LIST_V2 } else { rpc::SANDBOX_LIST }, &request)
            .await?;
        let count = answer.sandboxes.len().min(max.min(MAX_PAGE) as usize);
        let next = answer.sandboxes.get(..count).and_then(|items| items.last()).map(|last| last.created_at);
        Ok(SandboxPage {
            items: answer.sandboxes.into_iter().take(count).map(info).collect(),
            next: next.map(|created| format!("{:x}", created.to_bits())),
        })
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
            let left = deadline.saturating_sub(self.now());
            let ended = self.sandbox_wait(sandbox, left.min(WAIT_HOLD)).await?;
            if ended.is_some() || left.is_zero() {
                return Ok(ended);
            }
        }
    }

    async fn sandbox_wait(&self, sandbox: &str, hold: Duration) -> Result<Option<EndReason>> {
        ids::check_sandbox(sandbox)?;
        let request = SandboxWaitRequest { sandbox_id: sandbox.to_string(), timeout: hold.as_secs_f32() };
        let v1 = ids::is_v1(sandbox);
        let limit = hold + WAIT_SLACK;
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
        let policy = retry::Policy { attempt: Some(wait + WAIT_SLACK), ..retry::ROUTER };
        let make = |task_id: String| SandboxWaitUntilReadyTcrRequest { task_id, timeout: wait.as_secs_f32() };
        let result = self
            .router(sandbox, &retry::Policy { retries: 0, ..policy }, rpc::SANDBOX_WAIT_UNTIL_READY_TCR, make)
            .await?;
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
        ids::check_sandbox(sandbox)?;
        let request = SandboxTerminateRequest { sandbox_id: sandbox.to_string() };
        let v1 = ids::is_v1(sandbox);
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
        ids::check_sandbox(sandbox)?;
        check_name(name)?;
        if ids::is_v1(sandbox) {
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
        ids::check_sandbox(sandbox)?;
        let request = SandboxTagsGetRequest { sandbox_id: sandbox.to_string() };
        let v1 = ids::is_v1(sandbox);
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
        ids::check_sandbox(sandbox)?;
        let v1 = ids::is_v1(sandbox);
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
        ids::check_sandbox(sandbox)?;
        let request =
            SandboxGetTunnelsRequest { sandbox_id: sandbox.to_string(), timeout: bounded_wait(wait).as_secs_f32() };
        let v1 = ids::is_v1(sandbox);
        let answer = self
            .control(
                "find the sandbox's tunnels",
                if v1 { rpc::SANDBOX_GET_TUNNELS } else { rpc::SANDBOX_GET_TUNNELS_V2 },
                &request,
            )
            .await
            .map_err(|error| unknown_sandbox(sandbox, error))?;
        if answer.result.is_some_and(|result| result.status() == GenericStatus::Timeout) {
            return Err(Error {
                retry: RetryAdvice::Maybe,
                ..Error::new(ErrorKind::TimedOut, "The tunnels were not assigned in time. Wait longer.")
            }
            .about(sandbox));
        }
        Ok(answer.tunnels.iter().flat_map(tunnel).collect())
    }

    /// See `stats` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn stats(&self, sandbox: &str) -> Result<Usage> {
        ids::check_sandbox(sandbox)?;
        let request = SandboxGetResourceUsageRequest { sandbox_id: sandbox.to_string() };
        let answer = self
            .control("read what the sandbox has used", rpc::SANDBOX_GET_RESOURCE_USAGE, &request)
            .await
            .map_err(|error| unknown_sandbox(sandbox, error))?;
        Ok(Usage {
            cpu_core_millis: answer.cpu_core_nanosecs / 1_000_000,
            memory_mib_millis: (u128::from(answer.mem_gib_nanosecs) * 1024 / 1_000_000).try_into().unwrap_or(u64::MAX),
            gpu_millis: answer.gpu_nanosecs / 1_000_000,
            extra: Vec::new(),
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
        let access = network_access(&policy.outbound);
        let make = |task_id: String| TaskSetNetworkAccessRequest { task_id, network_access: Some(access.clone()) };
        let result = self.router(sandbox, &retry::ROUTER, rpc::TASK_SET_NETWORK_ACCESS, make).await?;
        match result {
            Ok(_) => Ok(()),
            Err(status) => Err(self.explain(sandbox, &status, "change the sandbox's network").await),
        }
    }

    /// See `reload-volumes` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn reload_volumes(&self, sandbox: &str) -> Result<()> {
        let make = |task_id: String| TaskReloadVolumesRequest { task_id, container_id: String::new() };
        let result = self.router(sandbox, &retry::ROUTER, rpc::TASK_RELOAD_VOLUMES, make).await?;
        match result {
            Ok(_) => Ok(()),
            Err(status) => Err(self.explain(sandbox, &status, "reload the volumes").await),
        }
    }

    /// See `snapshot-filesystem` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn snapshot_filesystem(&self, sandbox: &str, key: &str, ttl: Option<u64>) -> Result<String> {
        ids::check_chosen("a snapshot key", key)?;
        let ttl_seconds = ttl.map_or(-1, |ttl| i64::from(whole_seconds(ttl)));
        let snapshot_id = ids::wire_uuid(key);
        let make = |task_id: String| TaskSnapshotFilesystemRequest {
            task_id,
            snapshot_id: snapshot_id.clone(),
            ttl_seconds: Some(ttl_seconds),
            ..Default::default()
        };
        // As long as the official clients give it (fact sheet, section 1.7).
        let policy = retry::Policy { attempt: Some(Duration::from_secs(55)), ..retry::ROUTER };
        let result = self.router(sandbox, &policy, rpc::TASK_SNAPSHOT_FILESYSTEM, make).await?;
        match result {
            Ok(answer) => Ok(answer.image_id),
            Err(status) => Err(self.explain(sandbox, &status, "snapshot the file system").await),
        }
    }
}

fn unknown_sandbox(sandbox: &str, error: Error) -> Error {
    if !error.kind_is_not_found() {
        return error.about(sandbox);
    }
    Error {
        message: format!("Modal knows no sandbox {sandbox}. It may belong to another workspace, or be long gone."),
        ..error
    }
    .about(sandbox)
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

fn backend(sandbox: &str) -> (String, String) {
    ("backend".to_string(), if ids::is_v1(sandbox) { "\"v1\"" } else { "\"v2\"" }.to_string())
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
        created: Duration::try_from_secs_f64(wire.created_at).ok().map(crate::execs::millis),
        tags: wire.tags.into_iter().map(|tag| (tag.tag_name, tag.tag_value)).collect(),
        tunnels: wire.tunnels.iter().flat_map(tunnel).collect(),
    }
}

/// A tunnel record is one TLS address, or that and a plain one for an unencrypted port (fact sheet, section 6.3).
fn tunnel(data: &TunnelData) -> Option<Tunnel> {
    let port = u16::try_from(data.container_port).ok()?;
    let (kind, host, number) = match (&data.unencrypted_host, data.unencrypted_port) {
        (Some(host), Some(number)) => (PortKind::Tcp, host, number),
        _ => (PortKind::Tls, &data.host, data.port),
    };
    Some(Tunnel { port, kind, public_host: host.clone(), public_port: u16::try_from(number).ok()? })
}

fn tags(pairs: &[(String, String)]) -> Vec<SandboxTag> {
    pairs.iter().map(|(name, value)| SandboxTag { tag_name: name.clone(), tag_value: value.clone() }).collect()
}

fn definition(spec: &SandboxSpec, image_id: &str, secret_ids: Vec<String>) -> Sandbox {
    Sandbox {
        entrypoint_args: spec.command.clone(),
        image_id: image_id.to_string(),
        secret_ids,
        resources: Some(resources(&spec.resources)),
        timeout_secs: spec.lifetime.map_or(DEFAULT_LIFETIME_SECS, whole_seconds),
        workdir: spec.workdir.clone(),
        pty_info: spec.pty.clone().map(pty_info),
        scheduler_placement: (!spec.regions.is_empty())
            .then(|| SchedulerPlacement { regions: spec.regions.clone(), ..Default::default() }),
        open_ports_oneof: Some(open_ports(&spec.ports)),
        network_access: Some(network_access(&spec.network.outbound)),
        name: spec.name.clone(),
        idle_timeout_secs: spec.idle_timeout.map(whole_seconds),
        readiness_probe: spec.readiness.as_ref().map(|wanted| Probe {
            probe_oneof: Some(match &wanted.check {
                Readiness::Tcp(port) => probe::ProbeOneof::TcpPort((*port).into()),
                Readiness::Exec(argv) => probe::ProbeOneof::ExecCommand(probe::ExecCommand { argv: argv.clone() }),
            }),
            interval_ms: wanted.interval.map(|interval| u32::try_from(interval).unwrap_or(u32::MAX)),
        }),
        inbound_cidr_allowlist: spec.network.inbound_cidrs.clone(),
        ..Default::default()
    }
}

fn resources(wanted: &Wanted) -> Resources {
    Resources {
        memory_mb: wanted.memory_request_mib.unwrap_or_default(),
        milli_cpu: wanted.cpu_request_millicores.unwrap_or_default(),
        gpu_config: Some(GpuConfig::default()),
        memory_mb_max: wanted.memory_limit_mib.unwrap_or_default(),
        milli_cpu_max: wanted.cpu_limit_millicores.unwrap_or_default(),
        ..Default::default()
    }
}

fn network_access(outbound: &Outbound) -> NetworkAccess {
    match outbound {
        Outbound::Open => NetworkAccess { network_access_type: NetworkAccessType::Open.into(), ..Default::default() },
        Outbound::Blocked => {
            NetworkAccess { network_access_type: NetworkAccessType::Blocked.into(), ..Default::default() }
        }
        Outbound::Allowed(list) => NetworkAccess {
            network_access_type: NetworkAccessType::Allowlist.into(),
            allowed_cidrs: list.cidrs.clone(),
            allowed_domains: list.domains.clone(),
        },
    }
}

fn open_ports(ports: &[Port]) -> sandbox::OpenPortsOneof {
    let ports = ports
        .iter()
        .map(|port| PortSpec {
            port: port.number.into(),
            unencrypted: port.kind == PortKind::Tcp,
            tunnel_type: (port.kind == PortKind::H2).then_some(TunnelType::H2.into()),
        })
        .collect();
    sandbox::OpenPortsOneof::OpenPorts(PortSpecs { ports })
}

fn check_name(name: &str) -> Result<()> {
    let good = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` cannot name a sandbox: use 1 to 64 letters, digits, `.`, `_` and `-`.",
        name.escape_debug()
    ))
    .about("name"))
}

/// Refuses what is wrong or not to be had before anything is sent.
fn check_spec(spec: &SandboxSpec) -> Result<()> {
    let bytes: usize = spec.command.iter().map(String::len).sum();
    if bytes > MAX_COMMAND_BYTES {
        return Err(Error::invalid(format!(
            "The command has {bytes} bytes and Modal takes {MAX_COMMAND_BYTES}: pass the rest by a file."
        ))
        .about("command"));
    }
    if spec.command.iter().any(|argument| argument.contains('\0')) {
        return Err(Error::invalid("An argument of the command contains a NUL character.").about("command"));
    }
    check_env(&spec.env)?;
    if let Some(workdir) = spec.workdir.as_deref().filter(|path| !path.starts_with('/')) {
        return Err(Error::invalid(format!(
            "The working directory `{}` is not an absolute path.",
            workdir.escape_debug()
        ))
        .about("workdir"));
    }
    if let Some(name) = &spec.name {
        check_name(name)?;
    }
    if let Some(key) = &spec.key {
        ids::check_chosen("a key", key)?;
    }
    for (what, span) in [("lifetime", spec.lifetime), ("idle-timeout", spec.idle_timeout)] {
        if span == Some(0) {
            return Err(
                Error::invalid(format!("A {what} of 0 makes no sense: leave it out for the default.")).about(what)
            );
        }
    }
    let wanted = &spec.resources;
    for (what, request, limit) in [
        ("cpu", wanted.cpu_request_millicores, wanted.cpu_limit_millicores),
        ("memory", wanted.memory_request_mib, wanted.memory_limit_mib),
    ] {
        if let (Some(request), Some(limit)) = (request, limit)
            && limit < request
        {
            return Err(Error::invalid(format!("The {what} limit {limit} is below the request {request}.")).about(what));
        }
    }
    if !spec.ports.is_empty() && matches!(spec.network.outbound, Outbound::Blocked) {
        return Err(Error::invalid("A sandbox without network cannot have ports: open the network or drop the ports.")
            .about("ports"));
    }
    if let Some(port) = spec.ports.iter().find(|port| port.number == 0) {
        return Err(Error::invalid(format!("{} is not a port: ports are 1 to 65535.", port.number)).about("ports"));
    }
    let missing: [(&str, bool); 6] = [
        ("create.gpu", wanted.gpu.is_some()),
        ("create.volumes", !spec.volumes.is_empty()),
        ("create.buckets", !spec.buckets.is_empty()),
        ("create.proxy", spec.proxy.is_some()),
        ("sidecars", !spec.sidecars.is_empty()),
        ("create.disk", wanted.disk_mib.is_some()),
    ];
    if let Some((name, _)) = missing.iter().find(|(_, asked)| *asked) {
        return Err(Error::unsupported(
            name,
            format!("This version cannot do that ({name}); `describe` lists what it can."),
        ));
    }
    if let Some((name, _)) = spec.options.first() {
        return Err(Error::invalid(format!(
            "There is no option `{}`: this version has no provider options.",
            name.escape_debug()
        ))
        .about(name));
    }
    check_extra(&spec.extra)
}
