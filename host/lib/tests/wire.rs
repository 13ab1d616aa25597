//! Requests and responses on the network, and the number of connections that they need.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common::{Server, extra, full, order, provider};
use http::Response;

#[tokio::test]
async fn grpc_requests_are_what_a_grpc_server_wants() {
    let server = Server::echo().await;
    order(&provider(&server.url).await, &format!("grpc {}/p.S/M?q=1", server.url)).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(seen.uri.authority().unwrap().as_str(), server.authority());
    assert_eq!(seen.uri.path_and_query().unwrap().as_str(), "/p.S/M?q=1");
    assert_eq!(seen.headers["te"], "trailers");
    assert_eq!(seen.headers["content-type"], "application/grpc");
    assert!(seen.headers.get("host").is_none());
    assert_eq!(seen.body.len(), 5);
}

#[tokio::test]
async fn requests_share_a_connection() {
    let server = Server::echo().await;
    let provider = provider(&server.url).await;
    for n in 0..20 {
        order(&provider, &format!("grpc {}/{n}", server.url)).await.unwrap();
    }
    // A request that is not gRPC shares the connection, because the origin is known to support HTTP/2.
    order(&provider, &format!("get {}/plain", server.url)).await.unwrap();
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    assert_eq!(provider.metrics().connections, 1);
}

#[tokio::test]
async fn a_shut_down_provider_cancels_what_is_under_way_and_begins_nothing() {
    let server = Server::start(None, |_| Box::pin(std::future::pending())).await;
    let provider = provider(&server.url).await;
    let waiting = {
        let (provider, words) = (provider.clone(), format!("grpc {}/for-ever", server.url));
        tokio::spawn(async move { order(&provider, &words).await })
    };
    server.wait_for(|path| path == "/for-ever").await;
    assert_eq!(provider.shutdown(std::time::Duration::ZERO).await, 1);
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("shut down"), "{error}");
    let error = order(&provider, "random").await.unwrap_err();
    assert!(error.to_string().contains("shut down"), "{error}");
    let metrics = provider.metrics();
    assert_eq!((metrics.streams, metrics.instances_warm), (0, 0));
    assert_eq!(provider.shutdown(std::time::Duration::ZERO).await, 0);
}

#[tokio::test]
async fn a_provider_that_was_warmed_up_makes_no_instance_for_its_first_calls() {
    let server = Server::echo().await;
    let provider = provider(&server.url).await;
    provider.warm_up(3).await.unwrap();
    let before = provider.metrics();
    assert!(before.instances_warm >= 3, "{before:?}");
    order(&provider, &format!("grpc {}/x", server.url)).await.unwrap();
    assert_eq!(provider.metrics().instances_made, before.instances_made);
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_cut_in_both_directions() {
    let server = Server::start(None, |_| Box::pin(async { Response::new(full(vec![b'x'; 9000])) })).await;
    let mut limits = sandbox_host::Limits::default();
    // The puppet returns what it received before the error.
    for (limit, whole) in [(8999, false), (9000, true)] {
        limits.body_bytes = limit;
        let provider = crate::common::builder(&server.url).await.limits(limits.clone()).build().await.unwrap();
        let info = order(&provider, &format!("grpc {}/down", server.url)).await.unwrap();
        assert_eq!(extra(&info, "body").map(|body| body.len() == 9000), Some(whole), "{limit}");
    }
    limits.body_bytes = 4;
    let provider = crate::common::builder(&server.url).await.limits(limits).build().await.unwrap();
    // The puppet's own request has a frame of five bytes.
    let error = order(&provider, &format!("grpc {}/up", server.url)).await.unwrap_err();
    assert_eq!(error.kind(), &sandbox_host::Kind::Forbidden, "{error}");
    assert!(error.parts().1.ends_with("a body of more than 4 bytes") && !error.is_retryable(), "{error}");
    assert_eq!(error.limit(), Some("body_bytes"), "{error}");
    assert!(server.seen().iter().all(|seen| seen.uri.path() != "/up"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_one_connection_allows_open_more_connections() {
    const AT_ONCE: usize = 60;
    // No request is answered before all have arrived, so waiting for a free stream would never end.
    let barrier = Arc::new(tokio::sync::Barrier::new(AT_ONCE));
    let server = Server::start(Some(10), move |_| {
        let barrier = barrier.clone();
        Box::pin(async move {
            barrier.wait().await;
            Response::new(full("all there"))
        })
    })
    .await;
    let provider = provider(&server.url).await;
    let calls = (0..AT_ONCE).map(|n| {
        let (provider, words) = (provider.clone(), format!("grpc {}/{n}", server.url));
        tokio::spawn(async move { order(&provider, &words).await })
    });
    for call in futures_util::future::join_all(calls).await {
        assert_eq!(extra(&call.unwrap().unwrap(), "body"), Some("all there"));
    }
    let connections = server.connections.load(Ordering::SeqCst);
    assert!((6..=16).contains(&connections), "{connections} connections for 60 streams at 10 each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_are_under_way_at_once() {
    const AT_ONCE: usize = 1000;
    let barrier = Arc::new(tokio::sync::Barrier::new(AT_ONCE));
    let server = Server::start(Some(100), move |_| {
        let barrier = barrier.clone();
        Box::pin(async move {
            barrier.wait().await;
            Response::new(full("all there"))
        })
    })
    .await;
    let provider = provider(&server.url).await;
    let calls = (0..AT_ONCE).map(|n| {
        let (provider, words) = (provider.clone(), format!("grpc {}/{n}", server.url));
        tokio::spawn(async move { order(&provider, &words).await })
    });
    for call in futures_util::future::join_all(calls).await {
        call.unwrap().unwrap();
    }
    let connections = server.connections.load(Ordering::SeqCst);
    assert!((10..=20).contains(&connections), "{connections} connections for 1000 streams at 100 each");
}

#[tokio::test]
async fn large_bodies_pass_in_both_directions() {
    let server = Server::start(None, |seen| Box::pin(async move { Response::new(full(seen.body)) })).await;
    let provider = provider(&server.url).await;
    let info = order(&provider, &format!("post 10000000 {}/big", server.url)).await.unwrap();
    assert_eq!(extra(&info, "body").unwrap().len(), 10_000_000);
    assert!(provider.metrics().bytes_sent >= 10_000_000 && provider.metrics().bytes_received >= 10_000_000);
}

#[tokio::test]
async fn an_upload_that_is_cancelled_does_not_look_complete() {
    let server = Server::echo().await;
    let provider = provider(&server.url).await;
    let call = {
        let (provider, words) = (provider.clone(), format!("half {}", server.url));
        tokio::spawn(async move { order(&provider, &words).await })
    };
    server.wait_for(|path| path == "/report/half/sent").await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    server.wait_for_cut().await;
    assert!(server.seen().iter().all(|seen| seen.uri.path() != "/half"), "taken for a whole one");
}

/// The only connection of a site is full, and the peer refuses others: attempts to connect are made with pauses.
#[tokio::test]
async fn further_connections_that_are_refused_are_tried_with_pauses() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let arrived = Arc::new(tokio::sync::Notify::new());
    let (held, bell) = (go.clone(), arrived.clone());
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (held, bell) = (held.clone(), bell.clone());
            async move {
                if request.uri().path() == "/held" {
                    bell.notify_one();
                    held.acquire().await.unwrap().forget();
                }
                Ok::<_, std::convert::Infallible>(Response::new(full("here")))
            }
        });
        let mut builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        builder.max_concurrent_streams(1);
        let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
    });
    let provider = provider(&url).await;
    let call = |path: &str| {
        let (provider, words) = (provider.clone(), format!("grpc {url}/{path}"));
        tokio::spawn(async move { order(&provider, &words).await })
    };
    // After this response the stream limit is known.
    call("before").await.unwrap().unwrap();
    let first = call("held");
    arrived.notified().await;
    let begun = std::time::Instant::now();
    let second = call("next");
    // Pauses of 50, 100 and 200 ms. Timers never fire early, so a slow machine can only take longer. Without pauses the
    // attempts would take some milliseconds.
    while provider.metrics().connections_failed < 4 {
        assert!(!second.is_finished(), "it waits for the one stream there is");
        tokio::task::yield_now().await;
    }
    let took = begun.elapsed();
    assert!(took >= std::time::Duration::from_millis(350), "four attempts in {took:?}");
    // The waiting request gets the stream that becomes free.
    go.add_permits(1);
    for call in [first, second] {
        assert_eq!(extra(&call.await.unwrap().unwrap(), "body"), Some("here"));
    }
    server.abort();
}

#[tokio::test]
async fn nobody_listening_is_told_in_words() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = order(&provider(&url).await, &format!("grpc {url}/a")).await.unwrap_err();
    assert!(error.to_string().contains(&format!("no server listens at {url}")), "{error}");
}

#[tokio::test]
async fn a_connection_that_was_closed_is_replaced() {
    let server = Server::echo().await;
    let provider = provider(&server.url).await;
    order(&provider, &format!("grpc {}/a", server.url)).await.unwrap();
    let address = server.authority().to_owned();
    drop(server);
    // The listener ends with its task, and the connection with its own task.
    let listener = loop {
        match tokio::net::TcpListener::bind(&address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    drop(listener);
    let words = format!("grpc http://{address}/b");
    // The old connection may still respond. A new one cannot be opened.
    let _ = order(&provider, &words).await;
}

#[tokio::test]
async fn a_server_that_dies_in_mid_answer_ends_the_call() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Reads the beginning of the connection and then closes it.
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 64]).await;
    });
    let error = order(&provider(&url).await, &format!("grpc {url}/a")).await.unwrap_err();
    assert!(matches!(error.kind(), sandbox_host::Kind::Unavailable), "{error}");
    server.await.unwrap();
}

/// The peer accepts requests and answers none.
#[tokio::test]
async fn what_is_usually_answered_at_once_is_not_waited_for_for_long() {
    let server = Server::start(None, |_| Box::pin(std::future::pending())).await;
    let (told, mut tellings) = tokio::sync::mpsc::unbounded_channel();
    let mut limits = sandbox_host::Limits::default();
    limits.answer_time = std::time::Duration::from_secs(6);
    let builder = crate::common::builder(&server.url).await.limits(limits);
    let builder = builder.on_silence(move |silence| told.send(silence.clone()).unwrap());
    let provider = builder.build().await.unwrap();
    let error = order(&provider, &format!("grpc {}/p.S/Method", server.url)).await.unwrap_err();
    assert!(error.to_string().contains("did not respond to /p.S/Method within 6s"), "{error}");
    let silence = tellings.try_recv().unwrap();
    assert_eq!((silence.origin.to_string(), silence.path.as_str()), (server.url.clone(), "/p.S/Method"));
}

/// Starts a service whose clock differs from that of this machine by this number of minutes.
async fn service_with_clock(minutes: i64) -> Server {
    Server::start(None, move |_| {
        Box::pin(async move {
            let mut answer = Response::new(full(""));
            let date = httpdate::fmt_http_date(in_minutes(minutes));
            answer.headers_mut().insert("date", date.parse().unwrap());
            answer
        })
    })
    .await
}

fn in_minutes(minutes: i64) -> std::time::SystemTime {
    let time = std::time::Duration::from_secs(60 * minutes.unsigned_abs());
    let now = std::time::SystemTime::now();
    if minutes < 0 { now - time } else { now + time }
}

#[tokio::test]
async fn the_time_is_the_services() {
    for minutes in [-12, 12] {
        let server = service_with_clock(minutes).await;
        let provider = provider(&server.url).await;
        assert_eq!(provider.service_time(), None);
        order(&provider, &format!("grpc {}/p.S/M", server.url)).await.unwrap();
        let time = provider.service_time().unwrap();
        // The date has a resolution of one second, and the test itself takes time.
        assert!(time > in_minutes(minutes - 2) && time < in_minutes(minutes + 2), "{time:?}");
    }
}

/// Leases that are over by the clock of this machine but not by that of the service, and the reverse.
#[tokio::test]
async fn a_sweep_goes_by_the_services_time() {
    for (service, until, over) in [(-12, -9, false), (-12, -20, true), (12, 9, true), (12, 20, false), (0, -9, true)] {
        let server = service_with_clock(service).await;
        let until = in_minutes(until).duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let tags = format!("tags:sandbox-owner=me,sandbox-run=r,sandbox-lease={until}");
        let provider = crate::common::builder(&server.url).await.env("PUPPET_PLAIN", tags).build().await.unwrap();
        let found = provider.sweep("me", true).await.unwrap();
        assert_eq!(found.len(), usize::from(over), "service {service}, lease until {until}: {found:?}");
    }
}
