//! Finds sandboxes by id, by name and in lists (docs/modal-protocol.md, section 6).

use std::time::Duration;

use crate::{
    sandbox::sort::insertion_sort,
    service::{Service, ended, id, wire::tags},
};
use modal_proto::{
    client::{
        SandboxGetFromNameRequest, SandboxGetTaskIdRequest, SandboxInfo as WireInfo, SandboxListRequest, TunnelData,
    },
    rpc,
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::shown,
        time::millis,
        wit::{ErrorKind, ListFilter, PortKind, SandboxInfo, SandboxPage, SandboxState, Tunnel},
    },
    call::grpc::Code,
};

/// Maximum number of sandboxes in one page of `list`.
const MAX_PAGE: u32 = 1000;

/// The server's cursor is a time, so it cannot separate sandboxes that were created at the same moment. The next page
/// begins this much later, in seconds, and skips sandboxes that were returned before.
const TIE: f64 = 1e-6;

/// Implements `get` of the interface. Returns the state of a sandbox, also after its end. Sends one `SandboxWait`
/// request with no wait. Tags and name are left out, because they need further requests.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox; otherwise the error of the failed request.
pub async fn get(service: &Service, sandbox: &str) -> Result<SandboxInfo> {
    let state = match ended::poll(&service.control, sandbox).await? {
        Some(reason) => SandboxState::Ended(reason),
        None if id::is_v1(sandbox) && !has_machine(service, sandbox).await? => SandboxState::Pending,
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

/// Returns whether a sandbox of the older backend has a machine. These sandboxes are created before a machine is
/// assigned.
async fn has_machine(service: &Service, sandbox: &str) -> Result<bool> {
    let request = SandboxGetTaskIdRequest { sandbox_id: sandbox.to_string(), ..Default::default() };
    let answer = service.control.call("look up the sandbox", rpc::SANDBOX_GET_TASK_ID, &request).await?;
    Ok(answer.task_id.is_some_and(|id| !id.is_empty()))
}

/// Implements `find` of the interface. Returns the running sandbox with this name.
///
/// # Errors
///
/// `invalid-argument` for an invalid name, `not-found` if no running sandbox of the app has this name; otherwise the
/// error of the failed request.
pub async fn find(service: &Service, name: &str) -> Result<SandboxInfo> {
    check::name(name)?;
    let config = service.config()?;
    let request = SandboxGetFromNameRequest {
        sandbox_name: name.to_string(),
        environment_name: config.environment.clone(),
        app_name: config.app.clone(),
        include_terminated: false,
    };
    let result = service.control.keyed(&service.new_uuid(), rpc::SANDBOX_GET_FROM_NAME_V2, &request).await?;
    let answer = match result {
        // The names of the older backend are looked up separately (docs/modal-protocol.md, section 6.2).
        Err(status) if status.code() == Code::NotFound => {
            service.control.keyed(&service.new_uuid(), rpc::SANDBOX_GET_FROM_NAME, &request).await?
        }
        other => other,
    }
    .map_err(|status| match status.code() {
        Code::NotFound => Error::new(
            ErrorKind::NotFound,
            format!("No running sandbox of the app `{}` is named `{name}`.", config.app),
        )
        .about(name),
        _ => service.control.error(&status, "find the sandbox").about(name),
    })?;
    Ok(SandboxInfo { name: Some(name.to_string()), ..get(service, &answer.sandbox_id).await? })
}

/// Implements `list` of the interface. Lists sandboxes with their tags, newest first: one page of at most `max` (1 to
/// 1000) sandboxes, beginning at `cursor`.
///
/// # Errors
///
/// `invalid-argument` for an invalid cursor, an unknown filter or `max` 0; otherwise the error of the failed request.
pub async fn list(service: &Service, filter: ListFilter, cursor: Option<String>, max: u32) -> Result<SandboxPage> {
    let all_apps = match &filter.extra[..] {
        [(name, value)] if name == "all-apps" && value == "true" => true,
        other => check::extra(other).map(|()| false)?,
    };
    if max == 0 {
        return Err(Error::invalid("max is 0: request at least one sandbox."));
    }
    let after = cursor.map(|text| ListCursor::parse(&text)).transpose()?;
    let mut before = after.as_ref().map_or(0.0, |after| after.created + TIE);
    let mut request = SandboxListRequest {
        // Without an app, the request lists the sandboxes of the whole environment (docs/modal-protocol.md, section
        // 6.2).
        app_id: if all_apps { String::new() } else { service.app.id().await? },
        environment_name: if all_apps { service.config()?.environment.clone() } else { String::new() },
        include_finished: filter.include_ended,
        tags: tags(&filter.tags),
        ..Default::default()
    };
    loop {
        request.before_timestamp = before;
        // This method lists the sandboxes of both backends, so the configured backend does not matter.
        let answer = service.control.call("list the sandboxes", rpc::SANDBOX_LIST_V2, &request).await?;
        let mut found = answer.sandboxes;
        insertion_sort(&mut found, |a, b| (b.created_at, &b.id) < (a.created_at, &a.id));
        let Some(oldest) = found.last().map(|last| last.created_at) else {
            return Ok(SandboxPage { items: Vec::new(), next: None });
        };
        found.retain(|sandbox| after.as_ref().is_none_or(|after| after.precedes(sandbox)));
        if found.is_empty() {
            // All sandboxes of this page were created at the same moment and were returned before.
            before = if before > oldest { oldest } else { oldest - TIE };
            continue;
        }
        found.truncate(max.min(MAX_PAGE) as usize);
        let next = found.last().map(|last| ListCursor { created: last.created_at, id: last.id.clone() }.text());
        return Ok(SandboxPage { items: found.into_iter().map(info).collect(), next });
    }
}

/// Returns the backend of a sandbox as an extra field.
pub(crate) fn backend(sandbox: &str) -> (String, String) {
    ("backend".to_string(), if id::is_v1(sandbox) { "\"v1\"" } else { "\"v2\"" }.to_string())
}

/// The position in a list: after this sandbox, by time and then by id.
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

    /// Returns whether `sandbox` comes after this position.
    fn precedes(&self, sandbox: &WireInfo) -> bool {
        sandbox.created_at < self.created || sandbox.created_at == self.created && sandbox.id < self.id
    }
}

fn info(wire: WireInfo) -> SandboxInfo {
    let ended = wire.task_info.as_ref().and_then(|task| task.result.as_ref()).and_then(ended::reason);
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

/// Converts a tunnel record. It has a TLS address, and for an unencrypted port also a plain one
/// (docs/modal-protocol.md, section 6.3).
pub(crate) fn tunnel(data: &TunnelData) -> Option<Tunnel> {
    let port = u16::try_from(data.container_port).ok()?;
    let (kind, host, number) = match (&data.unencrypted_host, data.unencrypted_port) {
        (Some(host), Some(number)) => (PortKind::Tcp, host, number),
        _ => (PortKind::Tls, &data.host, data.port),
    };
    Some(Tunnel { port, kind, public_host: host.clone(), public_port: u16::try_from(number).ok()? })
}
