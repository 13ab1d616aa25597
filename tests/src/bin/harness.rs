//! A minimal program that uses the host library, to be killed by a test. `harness URL COMPONENT OWNER COUNT` creates
//! COUNT sandboxes through a `Keeper`, prints their ids one per line, and keeps their leases until its standard input
//! ends.

use std::{process::ExitCode, time::Duration};

use sandbox_host::{
    Keeper, Plugin, Provider, Result, Secret,
    types::{ImageSpec, SandboxSpec},
};
use tokio::io::AsyncReadExt as _;

/// The shortest lease that `Keeper` accepts.
const LEASE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, component, owner, count] = &arguments[..] else {
        eprintln!("usage: harness URL COMPONENT OWNER COUNT");
        return ExitCode::from(2);
    };
    match keep(url, component, owner, count.parse().unwrap_or(1)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn keep(url: &str, component: &str, owner: &str, count: usize) -> Result<()> {
    let plugin = Plugin::load(component).await?;
    let provider = Provider::builder(&plugin)
        .inherit_env(false)
        .env("MODAL_SERVER_URL", url)
        .credential("token-id", Secret::new("ak-test"))
        .credential("token-secret", Secret::new("as-test"))
        .build()
        .await?;
    let keeper = Keeper::new(&provider, owner, LEASE)?;
    let mut kept = Vec::new();
    for _ in 0..count {
        let sandbox = keeper.create(SandboxSpec::new(ImageSpec::default())).await?;
        println!("{}", sandbox.id());
        kept.push(sandbox);
    }
    // The test ends this program by closing its standard input. Any input before that is ignored.
    let mut ignored = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut ignored).await;
    for sandbox in kept {
        sandbox.terminate().await?;
        keeper.release(&sandbox);
    }
    Ok(())
}
