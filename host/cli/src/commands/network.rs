//! `sandbox network`

use anyhow::Result;
use sandbox_host::types::NetworkPolicy;
use serde_json::json;

use crate::args::Network;
use crate::session::Session;
use crate::steps::sandbox::places;

/// `sandbox network`
pub async fn network(session: &Session, args: Network) -> Result<i32> {
    let (policy, shown) = if args.open {
        (NetworkPolicy::open(), json!("open"))
    } else if args.block {
        (NetworkPolicy::blocked(), json!("blocked"))
    } else {
        let (cidrs, domains) = places(&args.allow);
        let shown = json!({ "cidrs": cidrs, "domains": domains });
        (NetworkPolicy::allowing(cidrs, domains), shown)
    };
    let sandbox = session.provider().await?.sandbox(args.id);
    sandbox.set_network(policy).await?;
    session.voice.result(json!({ "sandbox": sandbox.id(), "network": shown }))?;
    Ok(0)
}
