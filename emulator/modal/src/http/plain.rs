//! HTTP responses in plain text.

use http::{Response, StatusCode};
use http_body_util::Full;
use tonic::body::Body;

/// Returns a plain-text HTTP response.
pub(crate) fn plain(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(text.into())));
    *response.status_mut() = status;
    response
}
