//! Malicious and defective plugins: each one is contained, named in the error, and does not disturb other calls.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::{Server, TOKEN, builder, extra, full, order, provider, with_trailers};
use crate::own_process::in_own_process;
use http::{HeaderMap, HeaderValue, Response};
use sandbox_host::{Happened, Kind, Limits, TrapCause};

const NO_SERVER: &str = "http://127.0.0.1:1";

fn limits(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits);
    limits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_is_stopped_and_others_run_on() {
    let limits = limits(|limits| limits.compute_time = Duration::from_millis(500));
    let provider = builder(NO_SERVER).await.limits(limits).build().await.unwrap();
    let looping = {
        let provider = provider.clone();
        tokio::spawn(async move { order(&provider, "loop").await })
    };
    for _ in 0..50 {
        order(&provider, "random").await.unwrap();
    }
    let error = looping.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), &Kind::Trap(TrapCause::ComputeTime));
    assert!(error.to_string().contains("used more than 500ms of CPU time"), "{error}");
    order(&provider, "random").await.unwrap();
    assert_eq!(provider.metrics().traps, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_only_waits_ends_at_its_time_limit() {
    let limits = limits(|limits| limits.call_time = Duration::from_millis(300));
    let provider = builder(NO_SERVER).await.limits(limits).build().await.unwrap();
    let error = order(&provider, "wait").await.unwrap_err();
    assert_eq!(error.kind(), &Kind::Trap(TrapCause::CallTime));
    order(&provider, "random").await.unwrap();
}

/// The standard library and the interfaces below it are there, and each use of them fails.
#[tokio::test]
async fn a_plugin_has_no_files_and_no_sockets() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    // Even an origin that is granted is reached by HTTP only.
    let provider = provider(&format!("http://{authority}")).await;
    for (words, count) in [("files".to_owned(), 8), (format!("sockets {authority}"), 10)] {
        let results = order(&provider, &words).await.unwrap().extra;
        assert_eq!(results.len(), count);
        for (what, result) in results {
            assert_ne!(result, "ok", "{what}");
        }
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "a connection has arrived");
    // The cause is named in the error of a call that fails, and not in the next one.
    for (what, named) in [
        ("files", "wasi:filesystem/preopens get-directories"),
        ("sockets", "wasi:sockets/tcp-create-socket create-tcp-socket"),
    ] {
        let error = order(&provider, &format!("fail-without {what} {authority}")).await.unwrap_err().to_string();
        assert!(error.contains("attempts failed") && error.contains(&format!("tried {named}")), "{error}");
        let error = order(&provider, "no such order").await.unwrap_err().to_string();
        assert!(!error.contains("tried"), "{error}");
    }
    // The one handle that there is can be held as often as other handles.
    order(&provider, "networks 1000").await.unwrap();
    order(&provider, "networks 1000").await.unwrap();
    let error = order(&provider, "networks 5000").await.unwrap_err();
    assert!(error.is_trap(), "{error}");
}

/// The service supplies the address of a tunnel, and the embedder's own connection goes there.
#[tokio::test]
async fn a_tunnel_leads_no_further_than_its_service() {
    use sandbox_host::types::{PortKind, Tunnel};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let public_port = listener.local_addr().unwrap().port();
    let tunnel = |host: &str, kind| Tunnel { port: 80, kind, public_host: host.into(), public_port };
    let here = ["127.0.0.1", "localhost", "::ffff:127.0.0.1", "0.0.0.0"];
    let far = ["169.254.169.254"];
    let private = ["10.255.255.1", "fd00::1"];
    for (url, refused) in [
        ("https://control.example", [&here[..], &far[..], &private[..]].concat()),
        ("http://8.8.8.8:80", [&here[..], &far[..], &private[..]].concat()),
        ("http://control.example:80", [&here[..], &far[..]].concat()),
        (NO_SERVER, far.to_vec()),
    ] {
        let sandbox = provider(url).await.sandbox("sb");
        for host in refused {
            for kind in [PortKind::Tcp, PortKind::Tls] {
                let error = sandbox.connect(&tunnel(host, kind)).await.err().unwrap();
                assert!(error.to_string().contains("the policy does not permit"), "{url} {host}: {error}");
            }
        }
    }
    let sandbox = provider(NO_SERVER).await.sandbox("sb");
    assert!(sandbox.connect(&tunnel("127.0.0.1", PortKind::Tcp)).await.is_ok());
}

#[tokio::test]
async fn a_panic_is_told_with_its_message_and_a_backtrace() {
    let provider = provider(NO_SERVER).await;
    let error = order(&provider, "panic the-reason").await.unwrap_err();
    assert_eq!(error.kind(), &Kind::Trap(TrapCause::Fault));
    // The error text contains the message and the place of the panic.
    for words in ["the plugin crashed", "the-reason", "panicked at", "lib.rs:"] {
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    assert!(error.guest_output().unwrap().contains("the-reason"), "{error:?}");
    assert!(error.guest_backtrace().unwrap().contains("wasm"), "{error:?}");
    order(&provider, "random").await.unwrap();
}

#[tokio::test]
async fn an_acting_call_that_crashed_may_have_happened() {
    let sandbox = provider(NO_SERVER).await.sandbox("sb");
    let mut command = sandbox_host::types::ExecSpec::new(["true"]);
    command.id = "crash".into();
    let error = sandbox.run(command).await.unwrap_err();
    assert_eq!((error.is_trap(), error.happened()), (true, Happened::Unknown));
}

#[tokio::test]
async fn exits_stack_overflows_and_bad_text_are_contained() {
    let provider = provider(NO_SERVER).await;
    let error = order(&provider, "exit").await.unwrap_err();
    assert!(error.to_string().contains("exited with code"), "{error}");
    let error = order(&provider, "recurse").await.unwrap_err();
    assert!(error.to_string().contains("stack"), "{error}");
    let error = order(&provider, "bad-utf8").await.unwrap_err();
    assert!(error.is_trap() && error.to_string().contains("utf-8"), "{error}");
    order(&provider, "random").await.unwrap();
}

#[tokio::test]
async fn memory_and_handles_are_limited() {
    let limits = limits(|limits| {
        limits.memory = 32 << 20;
        limits.resources = 1000;
    });
    let provider = builder(NO_SERVER).await.limits(limits).build().await.unwrap();
    let error = order(&provider, "memory").await.unwrap_err();
    assert_eq!(error.kind(), &Kind::Trap(TrapCause::Memory));
    assert!(error.to_string().contains("32 MiB"), "{error}");
    let error = order(&provider, "resources").await.unwrap_err();
    assert!(error.is_trap(), "{error}");
    order(&provider, "random").await.unwrap();
}

#[tokio::test]
async fn places_that_were_not_granted_are_not_reached() {
    let (granted, other) = (Server::echo().await, Server::echo().await);
    let provider = provider(&granted.url).await;
    for url in [
        &other.url,
        &granted.url.replace("127.0.0.1", "localhost"),
        &granted.url.replace("http://", "https://"),
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:127.0.0.1]:80",
        "https://example.org",
        &granted.url.replace("http://", "http://user@"),
    ] {
        let error = order(&provider, &format!("get {url}/x")).await.unwrap_err();
        let contained = error.is_forbidden() || error.to_string().contains("UriInvalid");
        assert!(contained, "{url}: {error}");
    }
    assert_eq!(other.connections.load(Ordering::SeqCst), 0);
    let info = order(&provider, &format!("grpc {}/fine", granted.url)).await.unwrap();
    assert_eq!(extra(&info, "body"), Some("/fine"));
    let error = order(&provider, &format!("grpc {}/x", other.url)).await.unwrap_err();
    assert!(error.to_string().contains(&format!("does not permit the plugin to reach {}", other.url)), "{error}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let other = Server::echo().await;
    let target = other.url.clone();
    let server = Server::start(None, move |_| {
        let response = Response::builder().status(302).header("location", &target).body(full("")).unwrap();
        Box::pin(async move { response })
    })
    .await;
    let info = order(&provider(&server.url).await, &format!("grpc {}/a", server.url)).await.unwrap();
    assert_eq!(extra(&info, "status"), Some("302"));
    assert_eq!(other.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn credentials_are_added_here_and_never_seen_there() {
    let server = Server::start(None, |seen| {
        let token = seen.headers.get("x-puppet-token").cloned().unwrap_or(HeaderValue::from_static("none"));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-echo-trailer", token.clone());
        let body = format!("before {} after", token.to_str().unwrap());
        let mut response = Response::new(with_trailers(body, trailers));
        response.headers_mut().insert("x-echo", token);
        Box::pin(async move { response })
    })
    .await;
    let provider = provider(&server.url).await;
    let info = order(&provider, &format!("grpc {}/a", server.url)).await.unwrap();
    assert_eq!(server.seen()[0].headers["x-puppet-token"], TOKEN);
    assert!(!format!("{info:?}").contains(TOKEN), "{info:?}");
    assert_eq!(extra(&info, "body").unwrap(), format!("before {} after", "*".repeat(TOKEN.len())));
    assert_eq!(extra(&info, "header:x-echo"), Some("[redacted]"));
    assert_eq!(extra(&info, "header:x-echo-trailer"), Some("[redacted]"));
    // A header that the plugin sets is replaced.
    let words = format!("get-with x-puppet-token forged {}/b", server.url);
    order(&provider, &words).await.unwrap();
    assert_eq!(server.seen()[1].headers["x-puppet-token"], TOKEN);
    // The credential is not in the environment either, although the manifest asks for it.
    let env = order(&provider, "env").await.unwrap();
    assert_eq!(extra(&env, "PUPPET_TOKEN"), None);
    assert_eq!(extra(&env, "PUPPET_URL"), Some(server.url.as_str()));
    assert!(!format!("{provider:?} {:?} {:?}", provider.grants(), provider.environment()).contains(TOKEN));
}

#[tokio::test]
async fn origins_are_learned_from_the_answers_that_the_manifest_names() {
    let worker = Server::echo().await;
    let url = worker.url.clone();
    let server = Server::start(None, move |seen| {
        // Field 5, and field 2 in it, as the manifest specifies.
        let mut inner = vec![2 << 3 | 2, url.len() as u8];
        inner.extend_from_slice(url.as_bytes());
        let mut message = vec![5 << 3 | 2, inner.len() as u8];
        message.extend(inner);
        let mut body = vec![0, 0, 0, 0, message.len() as u8];
        body.extend(message);
        let response = Response::new(full(body));
        drop(seen);
        Box::pin(async move { response })
    })
    .await;
    let provider = provider(&server.url).await;
    let try_worker = format!("grpc {}/work", worker.url);
    order(&provider, &format!("grpc {}/puppet.Main/Other", server.url)).await.unwrap();
    assert!(order(&provider, &try_worker).await.unwrap_err().is_forbidden());
    order(&provider, &format!("grpc {}/puppet.Main/Hand", server.url)).await.unwrap();
    let info = order(&provider, &try_worker).await.unwrap();
    assert_eq!(extra(&info, "body"), Some("/work"));
    assert!(worker.seen()[0].headers.get("x-puppet-token").is_none(), "credentials are for the main origin only");
    let learned: Vec<_> = provider.grants().into_iter().filter_map(|grant| grant.learned_from).collect();
    assert_eq!(learned, ["/puppet.Main/Hand"]);
    // Another provider of the same plugin has not learned the origin.
    let stranger = builder(&server.url).await.build().await.unwrap();
    assert!(order(&stranger, &try_worker).await.unwrap_err().is_forbidden());
}

#[tokio::test]
async fn what_is_not_granted_by_the_user_stays_out() {
    let server = Server::echo().await;
    let provider = builder(&server.url).await.grant_only(["something else"]).build().await.unwrap();
    assert!(order(&provider, &format!("grpc {}/a", server.url)).await.unwrap_err().is_forbidden());
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

/// Variables that contain a credential, because the manifest asks for it under another name, or by accident.
#[tokio::test]
async fn a_value_that_holds_a_credential_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profiles.toml");
    std::fs::write(&file, "[default]\ntoken = 'token-of-the-file'\nplain = 'see token-of-the-file'\n").unwrap();
    let file = file.to_str().unwrap();
    let shown = async |builder: sandbox_host::ProviderBuilder| {
        let provider = builder.build().await.unwrap();
        let seen = order(&provider, "env").await.unwrap();
        extra(&seen, "PUPPET_PLAIN").map(str::to_owned)
    };
    let plain = format!("user:{TOKEN}@somewhere");
    for value in [TOKEN, &format!("{TOKEN}\n"), &plain] {
        assert_eq!(shown(builder(NO_SERVER).await.env("PUPPET_PLAIN", value)).await, None, "{value}");
    }
    let ended = builder(NO_SERVER).await.credential("token", format!("{TOKEN}\n"));
    assert_eq!(shown(ended.env("PUPPET_PLAIN", TOKEN)).await, None);
    // A credential that another source overrides is hidden too.
    assert_eq!(shown(builder(NO_SERVER).await.env("PUPPET_CONFIG", file)).await, None);
    assert_eq!(shown(builder(NO_SERVER).await.env("PUPPET_PLAIN", "token")).await.as_deref(), Some("token"));
}

#[tokio::test]
async fn a_place_is_told_without_what_is_not_its_address() {
    let told = async |url: &str| {
        let provider = builder(url).await.build().await.unwrap();
        extra(&order(&provider, "env").await.unwrap(), "PUPPET_URL").unwrap().to_owned()
    };
    assert_eq!(told("https://host/gate/way/").await, "https://host/gate/way/");
    assert_eq!(told("https://one/a,http://127.0.0.1:2/b").await, "https://one/a,http://127.0.0.1:2/b");
    assert_eq!(told("https://host/hook?key=of-a-user").await, "https://host");
    assert_eq!(told("https://host/hook#of-a-user,http://h:1/x").await, "https://host,http://h:1");
    let error = builder("https://user:hush@host").await.build().await.unwrap_err().to_string();
    assert!(error.contains("PUPPET_URL") && error.contains("@host") && !error.contains("hush"), "{error}");
}

/// A manifest can name any variables. If the user shows none of them, their values give no access to local addresses.
#[test]
fn a_place_that_is_not_shown_is_no_choice_of_the_users() {
    // A separate process, because the environment belongs to the process.
    let server = "http://127.0.0.1:1/path?key=of-a-user";
    in_own_process(&[("PUPPET_URL", server), ("PUPPET_CONFIG", "/dev/null")], || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let plugin = crate::common::plugin().await;
            let builder = || sandbox_host::Provider::builder(&plugin).credential("token", TOKEN.to_owned());
            for (shown, local) in [(vec![], false), (vec!["PUPPET_PLAIN"], false), (vec!["PUPPET_URL"], true)] {
                let provider = builder().show_only(shown.clone()).build().await.unwrap();
                let seen = order(&provider, "env").await.unwrap();
                assert_eq!(extra(&seen, "PUPPET_URL"), local.then_some("http://127.0.0.1:1"), "{shown:?}");
                let grants = provider.grants();
                assert_eq!((grants.len(), grants[0].private_addresses), (1, local), "{shown:?}");
                let error = order(&provider, "grpc http://127.0.0.1:1/a").await.unwrap_err();
                assert_eq!(error.is_forbidden(), !local, "{shown:?}: {error}");
            }
            // A variable that the embedder sets is always shown.
            let provider = builder().env("PUPPET_URL", NO_SERVER).show_only([""; 0]).build().await.unwrap();
            assert!(provider.grants()[0].private_addresses);
            assert_eq!(extra(&order(&provider, "env").await.unwrap(), "PUPPET_URL"), Some(NO_SERVER));
        });
    });
}

#[tokio::test]
async fn giant_headers_are_refused_in_both_directions() {
    let server = Server::start(None, |_| {
        let value = HeaderValue::from_bytes(&vec![b'v'; 300 << 10]).unwrap();
        let mut response = Response::new(full(""));
        response.headers_mut().insert("x-giant", value);
        Box::pin(async move { response })
    })
    .await;
    let provider = provider(&server.url).await;
    let error = order(&provider, &format!("giant-headers {}/a", server.url)).await.unwrap_err();
    assert!(error.to_string().contains("HeaderSectionSize"), "{error}");
    assert_eq!(server.seen().len(), 0);
    assert!(order(&provider, &format!("grpc {}/a", server.url)).await.is_err());
    order(&provider, "random").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_at_once_are_contained() {
    let server = Server::start(Some(100), |_| Box::pin(std::future::pending())).await;
    let limits = limits(|limits| {
        limits.call_time = Duration::from_secs(5);
        limits.resources = 100_000;
    });
    let provider = builder(&server.url).await.limits(limits).build().await.unwrap();
    let flooding = {
        let (provider, words) = (provider.clone(), format!("flood 10000 {}", server.url));
        tokio::spawn(async move { order(&provider, &words).await })
    };
    // Requests within the limit are never answered.
    server.wait_for(|path| path == "/flood").await;
    order(&provider, "random").await.unwrap();
    let error = flooding.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), &Kind::Trap(TrapCause::CallTime));
    assert!(provider.metrics().requests_denied >= 10_000 - 256, "{:?}", provider.metrics());
    assert!(server.connections.load(Ordering::SeqCst) <= 4, "256 requests need three connections");
    order(&provider, "random").await.unwrap();
}
