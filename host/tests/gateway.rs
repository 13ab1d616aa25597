//! The gateway: gRPC-Web over HTTP/1.1 in, gRPC over HTTP/2 out.

#![allow(missing_docs)]

mod common;

use bytes::Bytes;
use common::{Server, TOKEN, full, provider, with_trailers};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use sandbox_host::{Gateway, Kind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// One request over HTTP/1.1, as a stock host sends it.
async fn ask(url: &str, path: &str, headers: &[(&'static str, &str)], body: &[u8]) -> (http::response::Parts, Bytes) {
    let address = url.trim_start_matches("http://");
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(driver);
    let mut request = Request::post(path).header("host", address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    driver.abort();
    (parts, body)
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

    // By bearer token, or as the credential that the component would have sent.
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
    // The refusal arrives although the request is still on its way when it is decided on.
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

#[tokio::test]
async fn learned_origins_get_a_door_of_their_own() {
    let worker = Server::echo().await;
    let url = worker.url.clone();
    let server = Server::start(None, move |_| {
        let inner = [&[2 << 3 | 2, url.len() as u8][..], url.as_bytes()].concat();
        let outer = [&[5 << 3 | 2, inner.len() as u8][..], &inner, &[1 << 3 | 2, 4], b"rest"].concat();
        let response = Response::new(full(message(&outer)));
        Box::pin(async move { response })
    })
    .await;
    let provider = provider(&server.url).await;
    let gateway = Gateway::open(&provider, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let bearer = format!("Bearer {}", gateway.token().expose());
    let headers = [WEB, ("authorization", bearer.as_str())];
    let (_, body) = ask(&gateway.url(), "/puppet.Main/Hand", &headers, &message(b"")).await;
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(!text.contains(&worker.url), "{text}");
    let at = text.find("http://127.0.0.1:").unwrap();
    let door: String = text[at..].chars().take_while(|c| c.is_ascii_graphic()).take(22).collect();
    let door = door.trim_end_matches(|c: char| !c.is_ascii_digit()).to_owned();
    assert!(text.contains("rest"));

    let worker_token = ("authorization", "Bearer of-the-worker");
    let (parts, body) = ask(&door, "/w.S/M", &[WEB, worker_token], &message(b"")).await;
    assert_eq!((parts.status.as_u16(), &body[..]), (200, &b"/w.S/M"[..]));
    let seen = &worker.seen()[0];
    assert_eq!(seen.headers["authorization"], "Bearer of-the-worker");
    assert!(seen.headers.get("x-puppet-token").is_none());
}

#[tokio::test]
async fn what_is_no_grpc_passes_as_it_is() {
    let server = Server::start(None, |seen| Box::pin(async move { Response::new(full(seen.body)) })).await;
    let provider = provider(&server.url).await;
    let gateway = Gateway::open(&provider, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let bearer = format!("Bearer {}", gateway.token().expose());
    // The server speaks HTTP/2 alone; one gRPC request shows that it does.
    ask(&gateway.url(), "/p.S/M", &[WEB, ("authorization", &bearer)], &message(b"")).await;
    let (parts, body) = ask(&gateway.url(), "/blob?x=1", &[("authorization", &bearer)], b"plain bytes").await;
    assert_eq!((parts.status.as_u16(), &body[..]), (200, &b"plain bytes"[..]));
}
