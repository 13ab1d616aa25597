//! Connections through proxies, with test servers on loopback that implement only what is necessary of their protocols.

use std::sync::{Arc, Mutex};

use crate::common::{Server, builder, extra, order};
use sandbox_host::{Kind, Proxy, Secret};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A proxy that connects every name to one server, and records the requested names.
struct Door {
    authority: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Door {
    async fn open<F, W>(to: &Server, greet: F) -> Door
    where
        F: Fn(BufReader<TcpStream>, Arc<Mutex<Vec<String>>>) -> W + Send + Sync + 'static,
        W: Future<Output = Option<TcpStream>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let (asked, target) = (Arc::new(Mutex::new(Vec::new())), to.authority().to_owned());
        let log = asked.clone();
        let greet = Arc::new(greet);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, target, greet) = (log.clone(), target.clone(), greet.clone());
                tokio::spawn(async move {
                    if let Some(mut inside) = greet(BufReader::new(stream), log).await {
                        let mut outside = TcpStream::connect(target).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                    }
                });
            }
        });
        Door { authority, asked, task }
    }

    /// An HTTP CONNECT proxy, with this password if there is one.
    async fn http(to: &Server, password: Option<&'static str>) -> Door {
        Door::open(to, move |mut stream, log| async move {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).await.unwrap() == 0 {
                    return None;
                }
            }
            log.lock().unwrap().push(head.lines().next().unwrap().to_owned());
            let mut stream = stream.into_inner();
            if password.is_some_and(|password| !head.contains(&format!("Proxy-Authorization: Basic {password}\r\n"))) {
                stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
                return None;
            }
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            Some(stream)
        })
        .await
    }

    /// A SOCKS 5 proxy without passwords (RFC 1928).
    async fn socks(to: &Server) -> Door {
        Door::open(to, |stream, log| async move {
            let mut stream = stream.into_inner();
            let mut hello = [0; 2];
            stream.read_exact(&mut hello).await.unwrap();
            let mut methods = vec![0; hello[1] as usize];
            stream.read_exact(&mut methods).await.unwrap();
            stream.write_all(&[5, 0]).await.unwrap();
            let mut request = [0; 4];
            stream.read_exact(&mut request).await.unwrap();
            let length = match request[3] {
                1 => 4,
                3 => stream.read_u8().await.unwrap() as usize,
                kind => panic!("address type {kind}"),
            };
            let mut address = vec![0; length];
            stream.read_exact(&mut address).await.unwrap();
            let port = stream.read_u16().await.unwrap();
            let name = if request[3] == 3 { String::from_utf8(address).unwrap() } else { format!("{address:?}") };
            log.lock().unwrap().push(format!("{name}:{port}"));
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            Some(stream)
        })
        .await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A name that only the proxy knows.
const SERVICE: &str = "http://service.invalid:8123";

#[tokio::test]
async fn requests_go_through_an_http_proxy_that_resolves_their_names() {
    let server = Server::echo().await;
    let door = Door::http(&server, None).await;
    let environment = builder(SERVICE).await.env("ALL_PROXY", format!("http://{}", door.authority));
    let info = order(&environment.build().await.unwrap(), &format!("grpc {SERVICE}/a/b")).await.unwrap();
    assert_eq!(extra(&info, "body"), Some("/a/b"));
    assert_eq!(door.asked(), ["CONNECT service.invalid:8123 HTTP/1.1"]);
    assert_eq!(server.seen()[0].uri.authority().unwrap().as_str(), "service.invalid:8123");
}

#[tokio::test]
async fn a_proxy_that_wants_a_password_gets_it_and_nobody_else_sees_it() {
    let server = Server::echo().await;
    // Base64 of `user:open sesame`.
    let door = Door::http(&server, Some("dXNlcjpvcGVuIHNlc2FtZQ==")).await;
    let to = |userinfo: &str| Proxy::To(Secret::new(format!("http://{userinfo}{}", door.authority)));
    let good = builder(SERVICE).await.proxy(to("user:open%20sesame@")).build().await.unwrap();
    order(&good, &format!("grpc {SERVICE}/x")).await.unwrap();
    assert!(!server.seen()[0].headers.contains_key("proxy-authorization"));
    let bad = builder(SERVICE).await.proxy(to("user:wrong-word@")).build().await.unwrap();
    let error = order(&bad, &format!("grpc {SERVICE}/x")).await.unwrap_err().to_string();
    assert!(error.contains(&door.authority) && error.contains("authorization required"), "{error}");
    assert!(!error.contains("wrong-word"), "{error}");
}

#[tokio::test]
async fn requests_go_through_socks() {
    let server = Server::echo().await;
    let door = Door::socks(&server).await;
    let provider = builder(SERVICE).await.env("ALL_PROXY", format!("socks5h://{}", door.authority)).build().await;
    let provider = provider.unwrap();
    order(&provider, &format!("grpc {SERVICE}/x")).await.unwrap();
    assert_eq!(door.asked(), ["service.invalid:8123"]);
    // With socks5 this host resolves the name, which fails here, so the proxy receives no request.
    let here = builder(SERVICE).await.env("ALL_PROXY", format!("socks5://{}", door.authority)).build().await.unwrap();
    let error = order(&here, &format!("grpc {SERVICE}/x")).await.unwrap_err();
    assert!(error.to_string().contains("service.invalid"), "{error}");
    assert_eq!(door.asked().len(), 1);
}

#[tokio::test]
async fn this_machine_and_exceptions_are_reached_directly() {
    let server = Server::echo().await;
    let door = Door::http(&server, None).await;
    let provider =
        builder(&server.url).await.env("HTTP_PROXY", format!("http://{}", door.authority)).build().await.unwrap();
    order(&provider, &format!("grpc {}/x", server.url)).await.unwrap();
    for (variable, value) in [("NO_PROXY", "service.invalid"), ("PUPPET_DIRECT", "1")] {
        let provider = builder(SERVICE)
            .await
            .env("HTTP_PROXY", format!("http://{}", door.authority))
            .env(variable, value)
            .build()
            .await
            .unwrap();
        // Without the proxy the name does not resolve.
        order(&provider, &format!("grpc {SERVICE}/x")).await.unwrap_err();
    }
    assert_eq!(door.asked(), [""; 0]);
}

#[tokio::test]
async fn a_proxy_that_is_none_is_a_matter_of_configuration() {
    let error = builder(SERVICE).await.env("ALL_PROXY", "ftp://me:hush@proxy").build().await.unwrap_err();
    assert_eq!(error.kind(), &Kind::Config);
    assert!(error.to_string().contains("ALL_PROXY") && !error.to_string().contains("hush"), "{error}");
}
