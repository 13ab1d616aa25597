//! An HTTP/1.1 client for tests: one request per connection, without redirects, proxies and TLS. The tests of other crates
//! include this file.

use std::error::Error;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;

/// Sends a request to an `http://` URL with a port, and returns the response with its whole body. The header `host` is
/// that of the URL, unless `headers` contains another one.
///
/// # Errors
///
/// Fails for an unusable URL or header, and if the connection fails or breaks before the end of the response.
pub async fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Response<Bytes>, Box<dyn Error + Send + Sync>> {
    let uri: Uri = url.parse()?;
    let authority = uri.authority().ok_or("the URL has no host")?.as_str();
    let mut request = Request::builder().method(method).uri(uri.path_and_query().map_or("/", |path| path.as_str()));
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", authority);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into()))?;
    let stream = tokio::net::TcpStream::connect(authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    Ok(Response::from_parts(head, body))
}

/// Like [`send`], but blocks the thread, also in an asynchronous test.
///
/// # Errors
///
/// Those of [`send`].
///
/// # Panics
///
/// Panics if no runtime can be created.
pub fn send_blocking(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Response<Bytes>, Box<dyn Error + Send + Sync>> {
    let send = || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().expect("cannot create a runtime");
        runtime.block_on(send(method, url, headers, body.to_owned()))
    };
    // A thread that runs an asynchronous test must not enter a second runtime.
    std::thread::scope(|scope| scope.spawn(send).join().expect("the client panicked"))
}

/// Returns the body of a response as text.
pub fn text(response: &Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}
