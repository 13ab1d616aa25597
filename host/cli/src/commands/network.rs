//! `sandbox-host network`: changes the network policy of a running sandbox.

use anyhow::Result;
use sandbox_host::types::NetworkPolicy;

use crate::args::Network;
use crate::output::results::{self, AllowedPlaces, NetworkChanged};
use crate::session::Session;
use crate::steps::sandbox::places;

/// Runs `sandbox-host network`. Returns the exit code.
pub async fn network(session: &Session, args: Network) -> Result<i32> {
    let (policy, shown) = if args.open {
        (NetworkPolicy::open(), results::Network::All("open"))
    } else if args.block {
        (NetworkPolicy::blocked(), results::Network::All("blocked"))
    } else {
        let (cidrs, domains) = places(&args.allow);
        let shown = results::Network::Allowed(AllowedPlaces { cidrs: cidrs.clone(), domains: domains.clone() });
        (NetworkPolicy::allowing(cidrs, domains), shown)
    };
    let sandbox = session.provider().await?.sandbox(args.id);
    sandbox.set_network(policy).await?;
    session.voice.result(&NetworkChanged { sandbox: sandbox.id(), network: shown })?;
    Ok(0)
}
