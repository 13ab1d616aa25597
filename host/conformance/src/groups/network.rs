//! Group `network`: which destinations a sandbox may reach.
//!
//! A check that a destination cannot be reached needs one that could be. It opens a connection from inside, to an address
//! that the network of the sandbox refuses or drops in either case, so only the error shows the policy. Whether a
//! destination is reached depends on the network of the service, so no check requires that.

use std::sync::Arc;

use sandbox_host::types::{NetworkPolicy, SandboxSpec};
use sandbox_host::{Kind, Sandbox};

use crate::check::{Outcome, ensure, refused};
use crate::table::checks;
use crate::world::Case;

checks! {
    "network.loopback" ["network.blocked", "exec", "program:python3"] "outbound: `blocked` permits the loopback of the sandbox" => loopback;
    "network.blocked" ["network.blocked", "exec", "program:python3"] "outbound: `blocked` permits no other destination" => blocked;
    "network.allowed-nothing-else" ["network.cidrs", "exec", "program:python3"] "allow-list: permits what it names, and nothing else" => allowed;
    "network.bad-range" ["network.cidrs"] "allow-list: a range that is none is `invalid-argument`" => bad_range;
    "network.update" ["network.update", "exec", "program:python3"] "set-network: replaces the policy of a running sandbox; idempotent" => update;
    "network.update-unknown" ["network.update"] "set-network: fails with `not-found` if the provider does not know the sandbox" => update_unknown;
    "network.blocked-with-ports" ["network.blocked", "ports.tls"] "port: a sandbox without network cannot have ports" => blocked_with_ports;
}

/// Returns whether a sandbox opens a TCP connection to a public address.
async fn reaches(sandbox: &Sandbox) -> Outcome<bool> {
    let script = "import socket\ntry:\n    socket.create_connection(('1.1.1.1', 443), 5)\n    print('reached')\n\
                  except OSError:\n    print('not reached')";
    let result = sandbox.run(sandbox_host::types::ExecSpec::new(["python3", "-c", script])).await?;
    let text = String::from_utf8_lossy(&result.stdout.data).trim().to_owned();
    ensure!(text == "reached" || text == "not reached", "the probe of the network printed {text:?}");
    Ok(text == "reached")
}

async fn loopback(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().block_network()).await?;
    let script = "import socket\ns = socket.create_server(('127.0.0.1', 0))\n\
                  socket.create_connection(s.getsockname(), 5)\nprint('reached')";
    let result = sandbox.run(sandbox_host::types::ExecSpec::new(["python3", "-c", script])).await?;
    crate::check::printed("a connection to the loopback address", &result, "reached\n")
}

async fn blocked(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().block_network()).await?;
    ensure!(!reaches(&sandbox).await?, "a sandbox without network reached 1.1.1.1");
    Ok(())
}

async fn allowed(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().allow_only(["192.0.2.0/24"], [""; 0])).await?;
    ensure!(!reaches(&sandbox).await?, "a sandbox that may reach 192.0.2.0/24 only reached 1.1.1.1");
    Ok(())
}

async fn bad_range(case: Arc<Case>) -> Outcome {
    let made = case.try_create(case.spec().allow_only(["10.0.0.0/99"], [""; 0])).await;
    refused("`create` with the range 10.0.0.0/99", made.map(drop), &Kind::InvalidArgument)?;
    Ok(())
}

async fn update(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    for _ in 0..2 {
        sandbox.set_network(NetworkPolicy::blocked()).await?;
    }
    ensure!(!reaches(&sandbox).await?, "a sandbox whose network was blocked reached 1.1.1.1");
    case.other().await?.sandbox(sandbox.id()).set_network(NetworkPolicy::open()).await?;
    Ok(())
}

async fn update_unknown(case: Arc<Case>) -> Outcome {
    let unknown = case.provider.sandbox(crate::world::altered(case.shared().await?.id()));
    refused("`set-network` of an unknown sandbox", unknown.set_network(NetworkPolicy::open()).await, &Kind::NotFound)?;
    Ok(())
}

async fn blocked_with_ports(case: Arc<Case>) -> Outcome {
    let spec: SandboxSpec = case.spec().block_network().port(8000);
    refused("`create` with a port and without network", case.try_create(spec).await.map(drop), &Kind::InvalidArgument)?;
    Ok(())
}
