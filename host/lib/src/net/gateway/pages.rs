//! Pages of a browser that may use the gateway. A browser hides the responses of another origin from a page, and asks
//! before it sends a token there (CORS), unless that origin names the page's origin.
//!
//! This only tells a browser which pages may read. A page needs the token of the gateway like every other client.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};

use super::reply::Reply;
use crate::error::{Error, Result};

/// The methods that a component may use.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// How long a browser may keep the answer to a preflight request, in seconds. Browsers keep none longer than two hours.
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("7200");

/// The question of a browser, asked before a request of a page to another, more private network such as loopback.
const PRIVATE_NETWORK: &str = "access-control-request-private-network";

/// The origins of the pages that may use the gateway.
#[derive(Debug, Default)]
pub(super) struct Pages(Vec<HeaderValue>);

impl Pages {
    /// Takes origins such as `http://localhost:5173`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a text that is no origin as browsers send it: a scheme, a host in lower case, and a port if it
    /// is not that of the scheme.
    pub(super) fn new(origins: &[String]) -> Result<Pages> {
        let pages = origins.iter().map(|origin| {
            is_origin(origin).then(|| HeaderValue::from_str(origin).ok()).flatten().ok_or_else(|| {
                Error::invalid("open the gateway", format!("{origin:?} is not the origin of a page"))
                    .with_hint("give a scheme, a host and a port, such as http://localhost:5173, without a path")
            })
        });
        pages.collect::<Result<_>>().map(Pages)
    }

    /// Returns the origin of the page that sends a request, if it is one of these.
    pub(super) fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut sent = headers.get_all(header::ORIGIN).iter();
        let origin = sent.next().filter(|origin| self.0.contains(origin))?;
        sent.next().is_none().then(|| origin.clone())
    }
}

/// Returns whether a text is an origin in the form in which browsers send it.
fn is_origin(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text
}

/// Returns the answer to the question of a browser whether a page may send a request. Returns `None` for all other
/// requests. The question has no token, and the answer reveals only what the page may ask for.
pub(super) fn preflight<B>(request: &Request<B>, origin: &HeaderValue) -> Option<Response<Reply>> {
    let headers = request.headers();
    if request.method() != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let mut response = Response::new(Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
    // A star would not include the header with the token.
    if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    if headers.contains_key(PRIVATE_NETWORK) {
        answer.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
    }
    mark(&mut response, Some(origin));
    Some(response)
}

/// Lets the page with this origin read the response, and no other page, whatever the service said about pages.
pub(super) fn mark(response: &mut Response<Reply>, origin: Option<&HeaderValue>) {
    let headers = response.headers_mut();
    headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    let Some(origin) = origin else {
        headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        return;
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_are_taken() {
        let taken = |origin: &str| Pages::new(&[origin.to_owned()]).is_ok();
        for origin in ["http://localhost:5173", "https://tool.example.org", "http://[::1]:8080", "http://127.0.0.1"] {
            assert!(taken(origin), "{origin}");
        }
        for text in [
            "*",
            "null",
            "",
            "localhost:5173",
            "http://",
            "http://localhost:5173/",
            "http://localhost/page",
            "http://localhost:80",
            "HTTP://localhost",
            "http://Localhost",
            "http://user@localhost",
            "file:///page.html",
            "http://*.example.org/",
        ] {
            assert!(!taken(text), "{text}");
        }
    }

    #[test]
    fn an_origin_is_compared_as_a_whole() {
        let pages = Pages::new(&["http://localhost:5173".to_owned()]).unwrap();
        let sent = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ORIGIN, HeaderValue::from_static(value));
            }
            pages.origin(&headers).is_some()
        };
        assert!(sent(&["http://localhost:5173"]));
        assert!(!sent(&[]));
        assert!(!sent(&["http://localhost:5173", "http://localhost:5173"]));
        for other in ["http://localhost", "http://localhost:51731", "https://localhost:5173", "null"] {
            assert!(!sent(&[other]), "{other}");
        }
    }
}
