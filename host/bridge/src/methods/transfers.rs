//! Copies of files and directories in the background, with their progress.
//!
//! A call has one reply, so a copy whose progress is wanted is an object: `transfer.next` returns how far it is, and
//! `transfer.result` what the method returns that is run in the background.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, watch};

use super::base::{Answer, Context, Counter, Method};
use super::files;
use crate::fault::Fault;
use crate::objects::{Progress, ProviderObject, TransferObject, Use};
use crate::reply::Reply;

methods! {
    "transfer.start" => start,
    "transfer.next" => next,
    "transfer.result" => result,
}

/// The methods that can run in the background.
const COPIES: [&str; 4] = ["file.upload", "file.download", "directory.upload", "directory.download"];

/// Default and longest time between two reports of the progress, in milliseconds. Ten in a second look continuous, and cost
/// nothing.
const INTERVAL: u64 = 100;
const LONGEST_INTERVAL: u64 = 60_000;

arguments! {
    Start { method: String, arguments: Map<String, Value> }
    Next { transfer: u64, #[serde(default = "interval")] interval_ms: u64 }
    OfTransfer { transfer: u64 }
}

fn interval() -> u64 {
    INTERVAL
}

fn copy(name: &str) -> Result<&'static Method, Fault> {
    let found = files::METHODS.iter().find(|method| method.name == name && COPIES.contains(&name));
    found.ok_or_else(|| Fault::invalid(format!("{name:?} is no transfer; transfers are {}", COPIES.join(", "))))
}

async fn start(context: Context, Start { method, arguments }: Start) -> Answer {
    let method = copy(&method)?;
    let provider = arguments.get("provider").and_then(Value::as_u64);
    let (sender, progress) = watch::channel(Progress::default());
    let inner = Context {
        method: method.name,
        objects: context.objects.clone(),
        data: Bytes::new(),
        progress: Counter::new(sender),
    };
    let work = (method.start)(inner, &Value::Object(arguments).to_string())?;
    // The method has checked that its arguments name a provider.
    let provider: Use<ProviderObject> = context.objects.get(provider.unwrap_or_default())?;
    let (done, result) = watch::channel(None);
    let copying = async move {
        let outcome = work.await;
        let _ = done.send(Some(outcome));
    };
    let task = tokio::spawn(copying).abort_handle();
    let transfer = TransferObject { task, progress, result, told: Mutex::default() };
    Reply::json(json!({ "transfer": context.objects.add(&provider, transfer)? }))
}

async fn next(context: Context, Next { transfer, interval_ms }: Next) -> Answer {
    let transfer: Use<TransferObject> = context.objects.get(transfer)?;
    let TransferObject { progress, result, told, .. } = &*transfer.object;
    let interval = Duration::from_millis(interval_ms.min(LONGEST_INTERVAL));
    let moved = async {
        let mut told = told.lock().await;
        let (last, at) = *told;
        let (mut ahead, mut ended) = (progress.clone(), result.clone());
        let further = async {
            if let Some(at) = at {
                tokio::time::sleep_until((at + interval).into()).await;
            }
            if ahead.wait_for(|now| now.bytes != last).await.is_err() {
                // Nothing counts any more. The end of the copy is seen below.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = further => {}
            // An error means that the task has panicked.
            _ = ended.wait_for(Option::is_some) => {}
        }
        let now = *progress.borrow();
        *told = (now.bytes, Some(Instant::now()));
        Ok::<_, Fault>((now.bytes != last).then_some(now))
    };
    Reply::json(transfer.run(moved).await?)
}

async fn result(context: Context, OfTransfer { transfer }: OfTransfer) -> Answer {
    let transfer: Use<TransferObject> = context.objects.get(transfer)?;
    let mut result = transfer.object.result.clone();
    let ended = async {
        let found = result.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| Err(Fault::new("internal", "the transfer stopped unexpectedly")))
    };
    transfer.run(ended).await
}
