//! Plugins that ask for a single instance: which calls share it, and when its state is lost.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use sandbox_host::{InstancesWish, Kind, Plugin, Provider};

use crate::common::{Server, TOKEN, full, order, puppet};

/// Returns a provider with the puppet, whose manifest asks for a single instance.
async fn provider(url: &str) -> Provider {
    let component = tokio::task::spawn_blocking(|| std::fs::read(puppet()).unwrap()).await.unwrap();
    let manifest = format!("instances = 'one'\n{}", include_str!("guests/puppet/manifest.toml"));
    let packed = sandbox_host::pack(&component, &manifest).unwrap();
    let plugin = Plugin::from_bytes(packed).await.unwrap();
    assert_eq!(plugin.manifest().instances, InstancesWish::One);
    let builder = Provider::builder(&plugin).inherit_env(false).env("PUPPET_URL", url);
    builder.credential("token", TOKEN.to_owned()).build().await.unwrap()
}

/// Starts a server that answers `/held` only when the semaphore has a permit.
async fn holding() -> (Server, Arc<tokio::sync::Semaphore>) {
    let go = Arc::new(tokio::sync::Semaphore::new(0));
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
    (server, go)
}

#[tokio::test]
async fn all_calls_run_in_one_instance() {
    let provider = provider("https://puppet.invalid").await;
    let calls = (0..20).map(|n| {
        let sandbox = provider.sandbox(format!("sb-{}", n % 3));
        async move { sandbox.info().await.map(drop) }
    });
    for result in futures_util::future::join_all(calls).await {
        result.unwrap();
    }
    let metrics = provider.metrics();
    assert_eq!((metrics.calls, metrics.instances_made, metrics.instances_warm), (20, 1, 1));
}

#[tokio::test]
async fn a_call_that_is_given_up_does_not_end_the_instance() {
    let (server, go) = holding().await;
    let provider = provider(&server.url).await;
    let words = format!("grpc {}/held", server.url);
    {
        let mut call = std::pin::pin!(order(&provider, &words));
        while server.seen().is_empty() {
            assert!(futures_util::poll!(&mut call).is_pending());
            tokio::task::yield_now().await;
        }
    }
    // The call above still has the instance.
    let mut next = std::pin::pin!(order(&provider, "random"));
    assert!(futures_util::poll!(&mut next).is_pending());
    go.add_permits(1);
    next.await.unwrap();
    assert_eq!(provider.metrics().instances_made, 1);
}

#[tokio::test]
async fn a_crash_loses_the_state_and_the_next_call_has_a_new_instance() {
    let provider = provider("https://puppet.invalid").await;
    order(&provider, "random").await.unwrap();
    let error = order(&provider, "panic ouch").await.unwrap_err();
    assert!(error.is_trap() && error.parts().2.unwrap().contains("lost"), "{error}");
    order(&provider, "random").await.unwrap();
    assert_eq!(provider.metrics().instances_made, 2);
}

#[tokio::test]
async fn a_shutdown_cancels_the_running_call_and_those_that_wait_for_it() {
    let (server, _go) = holding().await;
    let provider = provider(&server.url).await;
    let words = format!("grpc {}/held", server.url);
    let calls = [words.as_str(), "random"].map(|words| {
        let (provider, words) = (provider.clone(), words.to_owned());
        tokio::spawn(async move { order(&provider, &words).await })
    });
    while server.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(provider.shutdown(Duration::from_millis(10)).await, 2);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap_err().kind(), &Kind::Conflict);
    }
}
