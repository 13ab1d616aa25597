//! The gateway: from gRPC-Web over HTTP/1.1 to gRPC over HTTP/2.

use std::time::Duration;

use crate::common::{Server, TOKEN, full, provider, with_trailers};
use crate::http_client::send;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use sandbox_host::{Gateway, Kind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Sends one request over HTTP/1.1, like a standard WebAssembly host.
async fn ask(url: &str, path: &str, headers: &[(&'static str, &str)], body: &[u8]) -> (http::response::Parts, Bytes) {
    send("POST", &format!("{url}{path}"), headers, body.to_owned()).await.unwrap().into_parts()
}

const WEB: (&str, &str) = ("content-type", "application/grpc-web+proto");

fn message(body: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, body.len() as u8], body].concat()
}

#[tokio::test]
async fn grpc_web_becomes_grpc_and_back() {
    let server = Server::start(None, |seen| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let mut response = Response::new(with_trailers(seen.body, trailers));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        Box::pin(async move { response })
    })
    .await;
    let provider = provider(&server.url).await;
    let gateway = Gateway::open(&provider, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let token = gateway.token().expose();

    // The token is accepted as a bearer token, or in place of the credential that the component would send.
    let bearer = format!("Bearer {token}");
    for shown in [("authorization", bearer.as_str()), ("x-puppet-token", token)] {
        let (parts, body) = ask(&gateway.url(), "/p.S/M", &[WEB, shown], &message(b"hello")).await;
        assert_eq!(parts.status, 200);
        assert_eq!(parts.headers["content-type"], "application/grpc-web+proto");
        assert_eq!(&body[..], [message(b"hello"), b"\x80\0\0\0\x10grpc-status: 0\r\n".to_vec()].concat());
    }
    for seen in server.seen() {
        assert_eq!(seen.uri.path(), "/p.S/M");
        assert_eq!(seen.headers["content-type"], "application/grpc");
        assert_eq!(seen.headers["te"], "trailers");
        assert_eq!(seen.headers["x-puppet-token"], TOKEN, "the real credential is added here");
        assert!(seen.headers.get("authorization").is_none());
    }
}

#[tokio::test]
async fn nobody_gets_in_without_the_token() {
    let server = Server::echo().await;
    let provider = provider(&server.url).await;
    let gateway = Gateway::open(&provider, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    for headers in [&[WEB][..], &[WEB, ("authorization", "Bearer wrong")], &[WEB, ("x-puppet-token", TOKEN)]] {
        let (parts, _) = ask(&gateway.url(), "/p.S/M", headers, &message(b"")).await;
        assert_eq!((parts.status.as_u16(), &parts.headers["grpc-status"]), (401, &HeaderValue::from_static("16")));
    }
    // The refusal arrives although the request is still being sent when it is refused.
    for _ in 0..20 {
        let mut stream = tokio::net::TcpStream::connect(gateway.url().trim_start_matches("http://")).await.unwrap();
        stream
            .write_all(b"POST /p.S/M HTTP/1.1\r\nhost: x\r\ncontent-length: 131072\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        for _ in 0..32 {
            stream.write_all(&[0; 4096]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    assert!(server.seen().is_empty());
    let error = Gateway::open(&provider, "0.0.0.0:0".parse().unwrap()).await.err().unwrap();
    assert_eq!(error.kind(), &Kind::InvalidArgument);
}

/// Starts a service that returns the URL of the request, and a gateway to it. Also returns the value that clients send
/// as authorization.
async fn handing_out() -> (Server, sandbox_host::Provider, Gateway, String) {
    let server = Server::start(None, |seen| {
        let url = seen.body.get(5..).unwrap_or_default();
        let inner = [&[2 << 3 | 2, url.len() as u8][..], url].concat();
        let outer = [&[5 << 3 | 2, inner.len() as u8][..], &inner, &[1 << 3 | 2, 4], b"rest"].concat();
        let mut response = Response::new(full(message(&outer)));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        Box::pin(async move { response })
    })
    .await;
    let provider = provider(&server.url).await;
    let gateway = Gateway::open(&provider, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let bearer = format!("Bearer {}", gateway.token().expose());
    (server, provider, gateway, bearer)
}

/// Returns the path of the door by which the gateway replaces a URL.
async fn door(gateway: &Gateway, bearer: &str, url: &str) -> String {
    let headers = [WEB, ("authorization", bearer)];
    let (_, body) = ask(&gateway.url(), "/puppet.Main/Hand", &headers, &message(url.as_bytes())).await;
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(!text.contains(url) && text.contains("rest"), "{text}");
    let start = text.find(&gateway.url()).unwrap_or_else(|| panic!("no door: {text}")) + gateway.url().len();
    text[start..].chars().take_while(|c| c.is_ascii_graphic()).collect()
}

#[tokio::test]
async fn learned_origins_are_behind_doors() {
    let worker = Server::echo().await;
    let (_server, _provider, gateway, bearer) = handing_out().await;
    let behind = door(&gateway, &bearer, &worker.url).await;
    assert!(behind.starts_with("/door/") && behind.len() > 64, "{behind}");
    // Each origin has one door, and the path of the URL is kept.
    let signed = format!("{}/blob?signature=x", worker.url);
    assert_eq!(door(&gateway, &bearer, &signed).await, format!("{behind}/blob?signature=x"));

    let worker_token = ("authorization", "Bearer of-the-worker");
    let (parts, body) = ask(&gateway.url(), &format!("{behind}/w.S/M?q"), &[WEB, worker_token], &message(b"")).await;
    assert_eq!((parts.status.as_u16(), &body[..]), (200, &b"/w.S/M"[..]));
    let seen = &worker.seen()[0];
    assert_eq!(
        (seen.uri.query(), &seen.headers["authorization"]),
        (Some("q"), &HeaderValue::from_static(worker_token.1))
    );
    assert!(seen.headers.get("x-puppet-token").is_none());

    // A door needs no token. A path that is almost a door is refused.
    for wrong in ["/door/", "/door//w.S/M", &format!("{}x/w.S/M", behind), &behind[..behind.len() - 1], "/door/?x"] {
        let (parts, _) = ask(&gateway.url(), wrong, &[WEB, worker_token], &message(b"")).await;
        assert_eq!(
            (parts.status.as_u16(), &parts.headers["grpc-status"]),
            (401, &HeaderValue::from_static("16")),
            "{wrong}"
        );
    }
    assert_eq!(worker.seen().len(), 1);
}

#[tokio::test]
async fn behind_doors_are_no_credentials() {
    let (server, _provider, gateway, bearer) = handing_out().await;
    // The service names its own address.
    let behind = door(&gateway, &bearer, &server.url).await;
    let mine = [WEB, ("x-puppet-token", gateway.token().expose()), ("authorization", "Bearer of-the-worker")];
    let (parts, _) = ask(&gateway.url(), &format!("{behind}/p.S/M"), &mine, &message(b"")).await;
    assert_eq!(parts.status, 200);
    let seen = server.seen();
    assert_eq!(seen[0].headers["x-puppet-token"], TOKEN);
    assert_eq!(seen[1].uri.path(), "/p.S/M");
    assert!(seen[1].headers.get("x-puppet-token").is_none(), "{:?}", seen[1]);
    assert_eq!(seen[1].headers["authorization"], "Bearer of-the-worker");
}

#[tokio::test]
async fn a_door_to_what_the_policy_forbids_says_so() {
    let (_server, _provider, gateway, bearer) = handing_out().await;
    let behind = door(&gateway, &bearer, "http://169.254.169.254").await;
    let (parts, body) = ask(&gateway.url(), &format!("{behind}/w.S/M"), &[WEB], &message(b"")).await;
    assert_eq!((parts.status.as_u16(), &parts.headers["grpc-status"]), (403, &HeaderValue::from_static("7")));
    assert!(String::from_utf8_lossy(&body).contains("169.254.169.254"), "{body:?}");
}

#[tokio::test]
async fn the_door_that_was_not_used_for_longest_is_closed() {
    const MOST: usize = 4096;
    let (_server, _provider, gateway, bearer) = handing_out().await;
    let first = door(&gateway, &bearer, "http://127.0.1.1:1").await;
    let second = door(&gateway, &bearer, "http://127.0.1.2:1").await;
    let is_open = async |door: &str| ask(&gateway.url(), door, &[WEB], &message(b"")).await.0.status != 401;
    // The first door was used, so it is not the least recently used one.
    assert!(is_open(&first).await);
    for n in 2..=MOST {
        let new = door(&gateway, &bearer, &format!("http://127.1.{}.{}:1", n / 256, n % 256)).await;
        assert!(new.starts_with("/door/"), "{n}: {new}");
    }
    assert!(is_open(&first).await && !is_open(&second).await);
}

#[tokio::test]
async fn strangers_do_not_keep_out_who_has_the_token() {
    const MANY: usize = 1100;
    let (_server, _provider, gateway, bearer) = handing_out().await;
    let address = gateway.address();
    let mut strangers = Vec::new();
    for n in 0..MANY {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        // Some connections send nothing, some send an incomplete request.
        if n % 2 == 0 {
            stream.write_all(b"POST /p.S/M HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n").await.unwrap();
        }
        strangers.push(stream);
    }
    let headers = [WEB, ("authorization", bearer.as_str())];
    let url = gateway.url();
    let body = message(b"");
    let answer = ask(&url, "/p.S/M", &headers, &body);
    // Half of the time after which silent connections are closed anyway.
    let (parts, _) = tokio::time::timeout(Duration::from_secs(15), answer).await.expect("it is not kept waiting");
    assert_eq!(parts.status, 200);
}

#[tokio::test]
async fn the_form_of_grpc_is_kept_and_no_other_is_spoken() {
    let server = Server::start(None, |seen| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
        let page = seen.uri.path() == "/page";
        let mut response = Response::new(if page { full("down") } else { with_trailers("", trailers) });
        *response.status_mut() = if page { http::StatusCode::SERVICE_UNAVAILABLE } else { http::StatusCode::OK };
        let kind = seen.headers["content-type"].clone();
        let kind = if page { HeaderValue::from_static("text/html") } else { kind };
        response.headers_mut().insert("content-type", kind);
        Box::pin(async move { response })
    })
    .await;
    let provider = provider(&server.url).await;
    let gateway = Gateway::open(&provider, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let bearer = format!("Bearer {}", gateway.token().expose());
    let as_kind = async |kind: &str, path: &str| {
        ask(&gateway.url(), path, &[("content-type", kind), ("authorization", &bearer)], &message(b"")).await
    };
    for (kind, back) in [
        ("application/grpc-web", "application/grpc-web+proto"),
        ("Application/gRPC-Web+Proto; charset=x", "application/grpc-web+proto"),
        ("application/grpc-web+json", "application/grpc-web+json"),
    ] {
        let (parts, body) = as_kind(kind, "/p.S/M").await;
        assert_eq!(parts.headers["content-type"], back);
        assert_eq!(&body[..], b"\x80\0\0\0\x11grpc-status: 13\r\n", "{kind}");
    }
    assert_eq!(server.seen()[2].headers["content-type"], "application/grpc+json");
    for kind in ["application/grpc", "application/grpc+proto", "application/GRPC-web-text", "application/grpcx"] {
        let (parts, _) = as_kind(kind, "/p.S/M").await;
        assert_eq!(
            (parts.status.as_u16(), &parts.headers["grpc-status"]),
            (415, &HeaderValue::from_static("12")),
            "{kind}"
        );
    }
    // An error page of a proxy is not gRPC, and is not converted.
    let (parts, body) = as_kind("application/grpc-web", "/page").await;
    assert_eq!((parts.status.as_u16(), &parts.headers["content-type"]), (503, &HeaderValue::from_static("text/html")));
    assert_eq!(&body[..], b"down");
}

#[tokio::test]
async fn what_is_the_clients_fault_is_not_the_services() {
    let (server, _provider, gateway, bearer) = handing_out().await;
    let long = "x".repeat(70_000);
    let (parts, _) = ask(&gateway.url(), "/p.S/M", &[WEB, ("authorization", &bearer), ("x-long", &long)], &[]).await;
    assert_eq!((parts.status.as_u16(), &parts.headers["grpc-status"]), (431, &HeaderValue::from_static("8")));
    let mut stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let head = format!(
        "POST /p.S/M HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\ncontent-type: application/grpc-web\r\n\
         transfer-encoding: chunked\r\nconnection: close\r\n\r\nno number\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("grpc-status: 3\r\n"), "{answer}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn only_the_named_pages_may_read() {
    const PAGE: &str = "http://localhost:5173";
    let server = Server::start(None, |seen| {
        let mut response = Response::new(full(seen.body));
        // What the service says about pages does not count.
        response.headers_mut().insert("access-control-allow-origin", HeaderValue::from_static("*"));
        Box::pin(async move { response })
    })
    .await;
    let provider = provider(&server.url).await;
    let listen = "127.0.0.1:0".parse().unwrap();
    let gateway = Gateway::open_for_pages(&provider, listen, &[PAGE.to_owned()]).await.unwrap();
    let bearer = format!("Bearer {}", gateway.token().expose());
    let allowed = |headers: &HeaderMap| headers.get("access-control-allow-origin").cloned();
    let page = HeaderValue::from_static(PAGE);

    // The question before the request has no token.
    let question = [
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
        ("access-control-request-private-network", "true"),
    ];
    let path = format!("{}/p.S/M", gateway.url());
    let asked = |origin: &'static str| {
        let headers: Vec<_> = question.into_iter().chain([("origin", origin)]).collect();
        let path = path.clone();
        async move { send("OPTIONS", &path, &headers, vec![]).await.unwrap().into_parts().0 }
    };
    let parts = asked(PAGE).await;
    assert_eq!((parts.status.as_u16(), allowed(&parts.headers)), (204, Some(page.clone())));
    assert_eq!(parts.headers["access-control-allow-headers"], "authorization,content-type");
    assert_eq!(parts.headers["access-control-allow-private-network"], "true");
    assert!(parts.headers["access-control-allow-methods"].to_str().unwrap().contains("POST"));
    for other in ["http://localhost:5174", "https://localhost:5173", "null", "http://evil.example"] {
        let parts = asked(other).await;
        assert_eq!((parts.status.as_u16(), allowed(&parts.headers)), (401, None), "{other}");
    }
    assert!(server.seen().is_empty(), "the service is not asked");

    // The request itself, and its refusal without a token.
    let ask_as = async |origin: &str, token: &str| {
        let headers = [WEB, ("origin", origin), ("authorization", token)];
        ask(&gateway.url(), "/p.S/M", &headers, &message(b"hello")).await.0
    };
    let parts = ask_as(PAGE, &bearer).await;
    assert_eq!((parts.status.as_u16(), allowed(&parts.headers)), (200, Some(page.clone())));
    assert_eq!(
        (&parts.headers["access-control-expose-headers"], &parts.headers["vary"]),
        (&"*".parse().unwrap(), &"origin".parse().unwrap())
    );
    let parts = ask_as(PAGE, "Bearer wrong").await;
    assert_eq!((parts.status.as_u16(), allowed(&parts.headers)), (401, Some(page)));
    let parts = ask_as("http://evil.example", &bearer).await;
    assert_eq!((parts.status.as_u16(), allowed(&parts.headers)), (200, None), "the browser keeps it from the page");
    assert!(server.seen().iter().all(|seen| seen.headers.get("origin").is_none()));

    let error = Gateway::open_for_pages(&provider, listen, &["*".to_owned()]).await.err().unwrap();
    assert_eq!(error.kind(), &Kind::InvalidArgument);
}

#[tokio::test]
async fn what_is_no_grpc_passes_as_it_is() {
    let server = Server::start(None, |seen| Box::pin(async move { Response::new(full(seen.body)) })).await;
    let provider = provider(&server.url).await;
    let gateway = Gateway::open(&provider, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let bearer = format!("Bearer {}", gateway.token().expose());
    // The server supports only HTTP/2. One gRPC request makes that known.
    ask(&gateway.url(), "/p.S/M", &[WEB, ("authorization", &bearer)], &message(b"")).await;
    let (parts, body) = ask(&gateway.url(), "/blob?x=1", &[("authorization", &bearer)], b"plain bytes").await;
    assert_eq!((parts.status.as_u16(), &body[..]), (200, &b"plain bytes"[..]));
}
