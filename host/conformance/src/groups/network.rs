//! Group `network`: which destinations a sandbox may reach.
//!
//! A check that a destination cannot be reached needs one that could be. It opens a connection from inside, to an address
//! that the network of the sandbox refuses or drops in either case, so only the error shows the policy. Whether a
//! destination is reached depends on the network of the service, so no check requires that.

use std::sync::Arc;

use sandbox_host::types::{ExecSpec, NetworkPolicy, SandboxSpec};
use sandbox_host::{Kind, Sandbox};

use crate::check::{Outcome, Stop, ensure, printed, refused};
use crate::table::checks;
use crate::world::Case;

checks! {
    "network.loopback" ["network.blocked", "exec"] "outbound: `blocked` permits the loopback of the sandbox" => loopback;
    "network.blocked" ["network.blocked", "exec"] "outbound: `blocked` permits no other destination" => blocked;
    "network.allowed-nothing-else" ["network.cidrs", "exec"] "allow-list: permits what it names, and nothing else" => allowed;
    "network.domain-nothing-else" ["network.domains", "exec"] "allow-list: a domain permits no other destination" => domain;
    "network.bad-range" ["network.cidrs"] "allow-list: a range that is none is `invalid-argument`" => bad_range;
    "network.update" ["network.update", "exec"] "set-network: replaces the policy of a running sandbox; idempotent" => update;
    "network.update-bad-range" ["network.update", "network.cidrs"] "set-network: a range that is none is `invalid-argument`" => update_bad_range;
    "network.update-ended" ["network.update"] "set-network: fails with `sandbox-ended` if the sandbox has ended" => update_ended;
    "network.update-unknown" ["network.update"] "set-network: fails with `not-found` if the provider does not know the sandbox" => update_unknown;
    "network.blocked-with-ports" ["network.blocked", "ports.tls"] "port: a sandbox without network cannot have ports" => blocked_with_ports;
}

/// Opens a TCP connection to a public address.
const CONNECT_BY_PYTHON: &str = "import socket\ntry:\n    socket.create_connection(('1.1.1.1', 443), 5)\n    print('reached')\n\
                                 except OSError:\n    print('not reached')";
const CONNECT_BY_NC: &str = "nc -w 5 1.1.1.1 443 </dev/null >/dev/null 2>&1 && echo reached || echo not reached";

/// Opens a TCP connection to a server on the loopback address. The two kinds of `nc` take the port in different ways.
const LOOP_BY_PYTHON: &str = "import socket\ns = socket.create_server(('127.0.0.1', 0))\n\
                              socket.create_connection(s.getsockname(), 5)\nprint('reached')";
const LOOP_BY_NC: &str = "(echo reached | nc -l -p 8123 || echo reached | nc -l 8123) >/dev/null 2>&1 & n=0; \
                          while [ $n -lt 30 ]; do out=$(nc -w 5 127.0.0.1 8123 </dev/null 2>/dev/null); \
                          [ \"$out\" = reached ] && break; sleep 1; n=$((n+1)); done; echo $out";

/// Returns a command that opens connections: by Python or by `nc`, of which the sandbox needs one.
async fn prober(case: &Case, by_python: &str, by_nc: &str) -> Outcome<ExecSpec> {
    let bench = case.bench().await?;
    if bench.has("python3") {
        return Ok(ExecSpec::new(["python3", "-c", by_python]));
    }
    if bench.has("nc") {
        return Ok(ExecSpec::shell(by_nc));
    }
    Err(Stop::Skipped("the sandbox has neither `python3` nor `nc`".to_owned()))
}

/// Returns whether a sandbox opens a TCP connection to a public address.
async fn reaches(case: &Case, sandbox: &Sandbox) -> Outcome<bool> {
    let result = sandbox.run(prober(case, CONNECT_BY_PYTHON, CONNECT_BY_NC).await?).await?;
    let text = String::from_utf8_lossy(&result.stdout.data).trim().to_owned();
    ensure!(text == "reached" || text == "not reached", "the probe of the network printed {text:?}");
    Ok(text == "reached")
}

async fn loopback(case: Arc<Case>) -> Outcome {
    let command = prober(&case, LOOP_BY_PYTHON, LOOP_BY_NC).await?;
    let sandbox = case.create(case.spec().block_network()).await?;
    printed("a connection to the loopback address", &sandbox.run(command).await?, "reached\n")
}

async fn blocked(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().block_network()).await?;
    ensure!(!reaches(&case, &sandbox).await?, "a sandbox without network reached 1.1.1.1");
    Ok(())
}

async fn allowed(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().allow_only(["192.0.2.0/24"], [""; 0])).await?;
    ensure!(!reaches(&case, &sandbox).await?, "a sandbox that may reach 192.0.2.0/24 only reached 1.1.1.1");
    Ok(())
}

async fn domain(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().allow_only([""; 0], ["example.org"])).await?;
    ensure!(!reaches(&case, &sandbox).await?, "a sandbox that may reach example.org only reached 1.1.1.1");
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
    ensure!(!reaches(&case, &sandbox).await?, "a sandbox whose network was blocked reached 1.1.1.1");
    case.other().await?.sandbox(sandbox.id()).set_network(NetworkPolicy::open()).await?;
    Ok(())
}

async fn update_bad_range(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    sandbox.set_network(NetworkPolicy::allowing(["10.0.0.0/8"], [""; 0])).await?;
    let bad = sandbox.set_network(NetworkPolicy::allowing(["10.0.0.0/99"], [""; 0])).await;
    refused("`set-network` with the range 10.0.0.0/99", bad, &Kind::InvalidArgument)?;
    Ok(())
}

async fn update_ended(case: Arc<Case>) -> Outcome {
    let updated = case.ended().await?.set_network(NetworkPolicy::open()).await;
    refused("`set-network` of an ended sandbox", updated, &Kind::SandboxEnded)?;
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
