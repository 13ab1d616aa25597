//! Connect tokens: HTTP access, including WebSockets, to a server inside a sandbox for holders of a token.
//!
//! This is a separate listener for all sandboxes; the token selects the sandbox and the port. Clients send the token as
//! `Authorization: Bearer`, or as query parameter or cookie `_modal_connect_token`. The proxy removes it from the request, and
//! adds the user data that the token was created with as `X-Verified-User-Data`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::body::Body;

use crate::http::plain::plain;
use crate::model::outbound_policy;
use crate::model::state::{Grant, State};

/// Name of the query parameter and of the cookie.
const PARAMETER: &str = "_modal_connect_token";

/// Header with the token's user data for the server inside. A client's own header of this name is removed.
const METADATA: HeaderName = HeaderName::from_static("x-verified-user-data");

/// Headers that apply to a single connection and are not forwarded (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::TE,
    http::header::TRANSFER_ENCODING,
];

/// Serves the listener until the emulator ends.
pub async fn serve(listener: TcpListener, state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (state, mut stopped) = (state.clone(), stopped.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let refused = Arc::new(state.peers.admit(&stream).await.err());
                    let service = hyper::service::service_fn(move |request| {
                        let (state, refused) = (state.clone(), refused.clone());
                        async move {
                            Ok::<_, Infallible>(match &*refused {
                                Some(why) => last(plain(StatusCode::FORBIDDEN, format!("{why}\n"))),
                                None => answer(&state, peer, request).await,
                            })
                        }
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    tokio::select! {
                        served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service) => {
                            if let Err(error) = served {
                                tracing::debug!(%peer, %error, "connection by token ended");
                            }
                        }
                        _ = stopped.wait_for(|stop| *stop) => {}
                    }
                });
            }
            // Probably out of file descriptors: waits until some are closed instead of retrying in a busy loop.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Makes a response the last one of its connection.
fn last(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn answer(state: &Arc<State>, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let grant = token(&request).and_then(|token| state.tables.lock().grants.get(&token).cloned());
    let Some(grant) = grant else {
        return plain(StatusCode::UNAUTHORIZED, "The connect token is missing or not valid\n");
    };
    let Ok(sandbox) = state.sandbox(&grant.sandbox_id) else {
        return plain(StatusCode::NOT_FOUND, "There is no such sandbox\n");
    };
    let allowed = outbound_policy::cidrs(&sandbox.definition.inbound_cidr_allowlist).unwrap_or_default();
    if !outbound_policy::may_enter(peer.ip(), &allowed) {
        tracing::info!(%peer, sandbox = sandbox.id, "not in inbound_cidr_allowlist");
        return plain(StatusCode::FORBIDDEN, "This address is not in the sandbox's inbound allow-list\n");
    }
    let Ok(unit) = sandbox.unit().await else {
        return plain(StatusCode::NOT_FOUND, "The sandbox has ended\n");
    };
    let _busy = sandbox.busy();
    let forwarded = match crate::runtime::readiness::connect(&unit.container, grant.port).await {
        Ok(inside) => forward(inside, request, &grant).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    forwarded.unwrap_or_else(|error| {
        let text = format!("The server at port {} of the sandbox does not answer: {error}\n", grant.port);
        plain(StatusCode::BAD_GATEWAY, text)
    })
}

async fn forward(
    inside: TcpStream,
    mut request: Request<Incoming>,
    grant: &Grant,
) -> Result<Response<Body>, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(inside)).await?;
    tokio::spawn(connection.with_upgrades());
    let wants_upgrade = request.headers().contains_key(UPGRADE);
    let outer = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
    prepare(&mut request, grant, wants_upgrade);
    let mut response = sender.send_request(request).await?;
    // The version of the client's connection, not of the connection inside.
    *response.version_mut() = Version::HTTP_11;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let inner = hyper::upgrade::on(&mut response);
        if let Some(outer) = outer {
            tokio::spawn(async move {
                if let (Ok(outer), Ok(inner)) = tokio::join!(outer, inner) {
                    let (mut outer, mut inner) = (TokioIo::new(outer), TokioIo::new(inner));
                    let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                }
            });
        }
    } else {
        HOP_BY_HOP.iter().for_each(|name| drop(response.headers_mut().remove(name)));
    }
    Ok(response.map(Body::new))
}

/// Converts a client's request to one for the server inside: removes the token and the headers of the client's connection.
fn prepare(request: &mut Request<Incoming>, grant: &Grant, upgrade: bool) {
    let query: Vec<&str> = request.uri().query().into_iter().flat_map(|query| query.split('&')).collect();
    let kept: Vec<&str> = query.iter().copied().filter(|pair| parameter(pair).is_none()).collect();
    let path = request.uri().path();
    let target = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    let authority = request.uri().authority().map(ToString::to_string);
    if let Ok(target) = target.parse::<Uri>() {
        *request.uri_mut() = target;
    }
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    if let Some(authority) = authority.and_then(|authority| authority.parse().ok()) {
        headers.entry(HOST).or_insert(authority);
    }
    for name in HOP_BY_HOP.iter().filter(|name| !(upgrade && **name == CONNECTION)) {
        headers.remove(name);
    }
    if bearer(headers).is_some() {
        headers.remove(AUTHORIZATION);
    }
    let cookies: Vec<String> = cookies(headers).filter(|pair| parameter(pair).is_none()).map(str::to_owned).collect();
    headers.remove(COOKIE);
    if let Ok(cookies) = HeaderValue::from_str(&cookies.join("; "))
        && !cookies.is_empty()
    {
        headers.insert(COOKIE, cookies);
    }
    headers.remove(METADATA);
    if let Some(metadata) = grant.metadata.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert(METADATA, metadata);
    }
}

fn token(request: &Request<Incoming>) -> Option<String> {
    let headers = request.headers();
    let query = request.uri().query().unwrap_or_default();
    let found = bearer(headers)
        .or_else(|| query.split('&').find_map(parameter))
        .or_else(|| cookies(headers).find_map(parameter));
    found.map(str::to_owned)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).map(str::trim).filter(|pair| !pair.is_empty())
}

/// Returns the token if this `name=value` pair has the token's name.
fn parameter(pair: &str) -> Option<&str> {
    pair.split_once('=').filter(|(name, _)| *name == PARAMETER).map(|(_, value)| value)
}
