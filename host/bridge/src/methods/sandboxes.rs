//! Sandboxes: creation, lists, leases, waiting, the end.

use sandbox_host::metrics::count_retries;
use sandbox_host::types::ListFilter;
use serde_json::json;

use super::base::{Answer, Context, Place, limit};
use crate::fault::Fault;
use crate::objects::{ProviderObject, Use};
use crate::reply::Reply;
use crate::shapes::basic::{Pairs, Shape};
use crate::shapes::results::{EndReason, SandboxInfo};
use crate::shapes::spec::Sandbox;

methods! {
    "sandbox.create" => create,
    "sandbox.find" => find,
    "sandbox.list" => list,
    "sandbox.restore" => restore,
    "sandbox.sweep" => sweep,
    "sandbox.release" => release,
    "sandbox.info" => info,
    "sandbox.wait" => wait,
    "sandbox.wait_ready" => wait_ready,
    "sandbox.wait_running" => wait_running,
    "sandbox.pause" => pause,
    "sandbox.stop" => stop,
    "sandbox.resume" => resume,
    "sandbox.terminate" => terminate,
    "sandbox.extend" => extend,
    "sandbox.set_name" => set_name,
    "sandbox.tags" => tags,
    "sandbox.set_tags" => set_tags,
    "snapshot.delete" => delete_snapshot,
    "volume.delete" => delete_volume,
}

arguments! {
    Create { provider: u64, #[serde(default)] spec: Sandbox }
    Find { provider: u64, name: String }
    List {
        provider: u64,
        #[serde(default)]
        tags: Pairs,
        #[serde(default)]
        include_ended: bool,
        #[serde(default)]
        all_apps: bool,
        #[serde(default = "thousand")]
        max: usize,
    }
    Restore { provider: u64, snapshot: String, name: Option<String> }
    Sweep { provider: u64, owner: String, #[serde(default)] dry_run: bool }
    Snapshot { provider: u64, snapshot: String }
}

in_sandbox! {
    At {}
    Timed { timeout_ms: Option<u64> }
    Extend { lifetime_ms: u64 }
    Name { name: String }
    Tags { tags: Pairs }
}

fn thousand() -> usize {
    1000
}

fn provider(context: &Context, number: u64) -> Result<Use<ProviderObject>, Fault> {
    context.objects.get(number)
}

async fn create(context: Context, arguments: Create) -> Answer {
    let provider = provider(&context, arguments.provider)?;
    let ProviderObject { provider: host, keeper, .. } = &*provider.object;
    let keeper = keeper.as_ref().filter(|_| arguments.spec.lease);
    let work = count_retries(async {
        let spec = arguments.spec.resolve(host).await?;
        match keeper {
            Some(keeper) => keeper.create_with_info(spec).await,
            None => host.create_with_info(spec).await,
        }
    });
    let (info, retries) = provider.run(async { Ok::<_, Fault>(work.await) }).await?;
    Reply::json(json!({ "info": SandboxInfo::from_wit(info?.info), "retries": retries }))
}

async fn find(context: Context, arguments: Find) -> Answer {
    let provider = provider(&context, arguments.provider)?;
    let found = provider.run(provider.object.provider.find(&arguments.name)).await?;
    Reply::json(SandboxInfo::from_wit(found.info))
}

async fn list(context: Context, arguments: List) -> Answer {
    let provider = provider(&context, arguments.provider)?;
    let List { tags, include_ended, all_apps, max, .. } = arguments;
    let filter = ListFilter { tags: tags.0, include_ended, extra: vec![] };
    let host = &provider.object.provider;
    let found = async { if all_apps { host.list_all_apps(&filter, max).await } else { host.list(&filter, max).await } };
    provider.shaped::<Vec<SandboxInfo>>(found).await
}

async fn restore(context: Context, arguments: Restore) -> Answer {
    let provider = provider(&context, arguments.provider)?;
    let restored = provider.object.provider.restore(&arguments.snapshot, arguments.name.as_deref());
    let sandbox = provider.run(restored).await?;
    Reply::json(json!({ "sandbox": sandbox.id() }))
}

async fn sweep(context: Context, arguments: Sweep) -> Answer {
    let provider = provider(&context, arguments.provider)?;
    let swept = provider.run(provider.object.provider.sweep(&arguments.owner, arguments.dry_run)).await?;
    let swept = swept.into_iter().map(|swept| {
        let overdue = u64::try_from(swept.overdue.as_millis()).unwrap_or(u64::MAX);
        json!({ "id": swept.id, "run": swept.run, "overdue_ms": overdue, "terminated": swept.terminated })
    });
    Reply::json(swept.collect::<Vec<_>>())
}

fn end_lease(place: &Place) {
    if let Some(keeper) = &place.provider.object.keeper {
        keeper.release(&place.sandbox);
    }
}

async fn release(context: Context, arguments: At) -> Answer {
    end_lease(&arguments.place(&context)?);
    Reply::null()
}

async fn info(context: Context, arguments: At) -> Answer {
    let place = arguments.place(&context)?;
    place.shaped::<SandboxInfo>(place.sandbox.info()).await
}

async fn wait(context: Context, arguments: Timed) -> Answer {
    let place = arguments.place(&context)?;
    place.shaped::<Option<EndReason>>(place.sandbox.wait_for(limit(arguments.timeout_ms))).await
}

async fn wait_ready(context: Context, arguments: Timed) -> Answer {
    let place = arguments.place(&context)?;
    place.value(place.sandbox.wait_ready(limit(arguments.timeout_ms))).await
}

async fn wait_running(context: Context, arguments: Timed) -> Answer {
    let place = arguments.place(&context)?;
    place.value(place.sandbox.wait_running(limit(arguments.timeout_ms))).await
}

async fn pause(context: Context, arguments: At) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.pause()).await
}

async fn stop(context: Context, arguments: At) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.stop()).await
}

async fn resume(context: Context, arguments: At) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.resume()).await
}

async fn terminate(context: Context, arguments: At) -> Answer {
    let place = arguments.place(&context)?;
    let ended = place.done(place.sandbox.terminate()).await;
    // A sandbox that could not be terminated keeps its lease, so that a later sweep does not miss it.
    if ended.is_ok() {
        end_lease(&place);
    }
    ended
}

async fn extend(context: Context, arguments: Extend) -> Answer {
    let place = arguments.place(&context)?;
    place.value(place.sandbox.extend(limit(Some(arguments.lifetime_ms)))).await
}

async fn set_name(context: Context, arguments: Name) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.set_name(&arguments.name)).await
}

async fn tags(context: Context, arguments: At) -> Answer {
    let place = arguments.place(&context)?;
    place.value(place.sandbox.tags()).await
}

async fn set_tags(context: Context, arguments: Tags) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.set_tags(arguments.tags.0)).await
}

async fn delete_snapshot(context: Context, arguments: Snapshot) -> Answer {
    let provider = provider(&context, arguments.provider)?;
    provider.done(provider.object.provider.delete_memory_snapshot(&arguments.snapshot)).await
}

async fn delete_volume(context: Context, arguments: Find) -> Answer {
    let provider = provider(&context, arguments.provider)?;
    provider.done(provider.object.provider.delete_volume(&arguments.name)).await
}
