//! Processes with few instances: which calls get one. Each test runs in its own process, because the maximum belongs to
//! the process.

use std::time::Duration;

use crate::common::{Server, builder, full, order, provider};
use crate::own_process::in_own_process;
use http::Response;
use sandbox_host::types::ExecSpec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MOST: usize = 2;

fn with_few_instances(test: impl Future<Output = ()>) {
    in_own_process(&[], || {
        assert!(sandbox_host::set_max_instances(MOST as u32));
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    });
}

/// Less than the minute after which a wait for an instance fails.
async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(45), what).await.expect("it is not kept waiting")
}

#[test]
fn what_one_provider_keeps_warm_another_may_have() {
    with_few_instances(async {
        let server = Server::echo().await;
        let (one, other) = (provider(&server.url).await, provider(&server.url).await);
        one.warm_up(MOST).await.unwrap();
        assert_eq!(one.metrics().instances_warm, MOST as u64);
        soon(order(&other, "random")).await.unwrap();
    });
}

#[test]
fn whoever_waits_has_the_place_of_a_call_that_ends() {
    with_few_instances(async {
        let go = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        let held = go.clone();
        let server = Server::start(None, move |seen| {
            let held = held.clone();
            Box::pin(async move {
                if seen.uri.path() == "/held" {
                    held.acquire().await.unwrap().forget();
                }
                Response::new(full("here"))
            })
        })
        .await;
        let (one, other) = (provider(&server.url).await, provider(&server.url).await);
        let words = format!("grpc {}/held", server.url);
        let calls: Vec<_> = (0..MOST)
            .map(|_| {
                let (one, words) = (one.clone(), words.clone());
                tokio::spawn(async move { order(&one, &words).await })
            })
            .collect();
        while server.seen().len() < MOST {
            tokio::task::yield_now().await;
        }
        // The call is waiting at this point. The call that ends returns an instance that could be kept warm.
        let mut waits = std::pin::pin!(order(&other, "random"));
        assert!(futures_util::poll!(&mut waits).is_pending());
        go.add_permits(1);
        soon(waits).await.unwrap();
        go.add_permits(MOST - 1);
        for call in calls {
            call.await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_command_that_had_input_leaves_no_instance_behind() {
    with_few_instances(async {
        let server = Server::echo().await;
        let provider = provider(&server.url).await;
        for n in 0..MOST * 3 {
            let sandbox = provider.sandbox(format!("sb-{n}"));
            let command = ExecSpec { id: format!("out-10_exit-{n}"), ..ExecSpec::new(["program"]) };
            let mut process = soon(sandbox.spawn(command)).await.unwrap();
            process.stdin.as_mut().unwrap().write_all(b"a line\n").await.unwrap();
            let mut output = Vec::new();
            soon(process.stdout.take().unwrap().read_to_end(&mut output)).await.unwrap();
            assert_eq!(output.len(), 10);
            assert!(process.verdict().is_some());
            drop(process);
        }
    });
}

#[test]
fn what_an_instance_cannot_take_over_costs_nothing() {
    with_few_instances(async {
        let server = Server::echo().await;
        let provider = builder(&server.url).await.env("PUPPET_PLAIN", "poison").build().await.unwrap();
        for n in 0..MOST * 3 {
            let sandbox = provider.sandbox(format!("sb-{n}"));
            let command = ExecSpec { id: format!("exit-{n}"), ..ExecSpec::new(["program"]) };
            soon(sandbox.run(command)).await.unwrap();
        }
        assert!(provider.metrics().traps > 0);
        assert_eq!(provider.metrics().calls_failed, 0);
    });
}

#[test]
fn a_call_that_is_given_up_is_counted_once_it_is() {
    with_few_instances(async {
        let server = Server::echo().await;
        let provider = provider(&server.url).await;
        order(&provider, "random").await.unwrap();
        {
            let mut waits = std::pin::pin!(order(&provider, "wait"));
            assert!(futures_util::poll!(&mut waits).is_pending());
            assert_eq!(provider.metrics().calls, 1, "one that is under way is not over");
        }
        let metrics = provider.metrics();
        assert_eq!((metrics.calls, metrics.latencies.iter().sum::<u64>(), metrics.calls_failed), (2, 2, 0));
    });
}
