//! What a sandbox has besides commands and files: network, logs, usage, snapshots, sidecars.

use sandbox_host::fresh_id;
use sandbox_host::types::LogQuery;
use serde_json::json;

use super::base::{Answer, Context, limit};
use crate::reply::Reply;
use crate::shapes::basic::Shape;
use crate::shapes::results::{
    ConnectToken, EndReason, ExecInfo, LogPage, OutputStream, SidecarInfo, Tunnel, UsageReport,
};
use crate::shapes::spec::{NetworkPolicy, Sidecar};

methods! {
    "sandbox.execs" => execs,
    "sandbox.tunnels" => tunnels,
    "sandbox.connect_token" => connect_token,
    "sandbox.logs" => logs,
    "sandbox.usage" => usage,
    "sandbox.set_network" => set_network,
    "sandbox.reload_volumes" => reload_volumes,
    "sandbox.snapshot_filesystem" => snapshot_filesystem,
    "sandbox.snapshot_directory" => snapshot_directory,
    "sandbox.snapshot_memory" => snapshot_memory,
    "sandbox.exit_snapshot" => exit_snapshot,
    "sandbox.mount" => mount,
    "sandbox.unmount" => unmount,
    "sidecar.create" => create_sidecar,
    "sidecar.list" => list_sidecars,
    "sidecar.wait" => wait_sidecar,
    "sidecar.terminate" => terminate_sidecar,
}

/// Time for the tunnels of a sandbox, and for the image of its end, in milliseconds.
const PATIENCE: u64 = 30_000;

/// Most text in a page of the log, in bytes.
const LOG_BYTES: u32 = 1 << 20;

in_sandbox! {
    At {}
    Timed { timeout_ms: Option<u64> }
    Execs { #[serde(default = "thousand")] max: u32 }
    Token { port: u16, #[serde(default)] metadata: String }
    Logs {
        since: Option<u64>,
        until: Option<u64>,
        stream: Option<OutputStream>,
        search: Option<String>,
        cursor: Option<String>,
        #[serde(default = "log_bytes")]
        max_bytes: u32,
    }
    SetNetwork { policy: NetworkPolicy }
    SaveFiles { key: Option<String>, ttl_ms: Option<u64> }
    SaveDirectory { path: String, ttl_ms: Option<u64> }
    Mount { path: String, image: Option<String> }
    Unmount { path: String }
    CreateSidecar { spec: Sidecar }
    WaitSidecar { name: String, timeout_ms: Option<u64> }
    NamedSidecar { name: String }
}

fn thousand() -> u32 {
    1000
}

fn log_bytes() -> u32 {
    LOG_BYTES
}

async fn execs(context: Context, arguments: Execs) -> Answer {
    let place = arguments.place(&context)?;
    let (mut found, mut cursor) = (Vec::new(), None);
    while (found.len() as u64) < u64::from(arguments.max) {
        let left = u64::from(arguments.max) - found.len() as u64;
        let page = place.run(place.sandbox.execs(cursor, left.min(1000) as u32)).await?;
        let stuck = page.items.is_empty();
        found.extend(page.items);
        cursor = page.next;
        if cursor.is_none() || stuck {
            break;
        }
    }
    found.truncate(arguments.max as usize);
    Reply::json(Vec::<ExecInfo>::from_wit(found))
}

async fn tunnels(context: Context, arguments: Timed) -> Answer {
    let place = arguments.place(&context)?;
    let time = limit(arguments.timeout_ms.or(Some(PATIENCE)));
    place.shaped::<Vec<Tunnel>>(place.sandbox.tunnels(time)).await
}

async fn connect_token(context: Context, arguments: Token) -> Answer {
    let place = arguments.place(&context)?;
    place.shaped::<ConnectToken>(place.sandbox.connect_token(arguments.port, &arguments.metadata)).await
}

async fn logs(context: Context, arguments: Logs) -> Answer {
    let place = arguments.place(&context)?;
    let Logs { since, until, stream, search, cursor, max_bytes, .. } = arguments;
    let query = LogQuery { since, until, stream: stream.into_wit(), search };
    place.shaped::<LogPage>(place.sandbox.logs(query, cursor, max_bytes)).await
}

async fn usage(context: Context, arguments: At) -> Answer {
    let place = arguments.place(&context)?;
    place.shaped::<UsageReport>(place.sandbox.usage_report()).await
}

async fn set_network(context: Context, arguments: SetNetwork) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.set_network(arguments.policy.into_wit())).await
}

async fn reload_volumes(context: Context, arguments: At) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.reload_volumes()).await
}

async fn snapshot_filesystem(context: Context, arguments: SaveFiles) -> Answer {
    let place = arguments.place(&context)?;
    let (key, ttl) = (arguments.key.unwrap_or_else(fresh_id), arguments.ttl_ms.map(|ttl| limit(Some(ttl))));
    let image = place.run(place.sandbox.snapshot_filesystem_as(&key, ttl)).await?;
    Reply::json(json!({ "image": image }))
}

async fn snapshot_directory(context: Context, arguments: SaveDirectory) -> Answer {
    let place = arguments.place(&context)?;
    let ttl = arguments.ttl_ms.map(|ttl| limit(Some(ttl)));
    let image = place.run(place.sandbox.snapshot_directory(&arguments.path, ttl)).await?;
    Reply::json(json!({ "image": image }))
}

async fn snapshot_memory(context: Context, arguments: At) -> Answer {
    let place = arguments.place(&context)?;
    let snapshot = place.run(place.sandbox.snapshot_memory()).await?;
    Reply::json(json!({ "snapshot": snapshot }))
}

async fn exit_snapshot(context: Context, arguments: Timed) -> Answer {
    let place = arguments.place(&context)?;
    let time = limit(arguments.timeout_ms.or(Some(PATIENCE)));
    let image = place.run(place.sandbox.exit_snapshot(time)).await?;
    Reply::json(json!({ "image": image }))
}

async fn mount(context: Context, arguments: Mount) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.mount(&arguments.path, arguments.image.as_deref())).await
}

async fn unmount(context: Context, arguments: Unmount) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.unmount(&arguments.path)).await
}

async fn create_sidecar(context: Context, arguments: CreateSidecar) -> Answer {
    let place = arguments.place(&context)?;
    let created = async {
        let spec = arguments.spec.resolve(&place.provider.object.provider).await?;
        place.sandbox.create_sidecar(spec).await
    };
    place.shaped::<SidecarInfo>(created).await
}

async fn list_sidecars(context: Context, arguments: At) -> Answer {
    let place = arguments.place(&context)?;
    place.shaped::<Vec<SidecarInfo>>(place.sandbox.sidecars()).await
}

async fn wait_sidecar(context: Context, arguments: WaitSidecar) -> Answer {
    let place = arguments.place(&context)?;
    let ended = place.sandbox.wait_sidecar(&arguments.name, limit(arguments.timeout_ms));
    place.shaped::<Option<EndReason>>(ended).await
}

async fn terminate_sidecar(context: Context, arguments: NamedSidecar) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.terminate_sidecar(&arguments.name)).await
}
