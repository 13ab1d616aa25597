//! Causes of failed connections and requests: an error code of wasi:http for the component, and a text for the user.

use std::error::Error as _;

use wasmtime_wasi_http::Error as HttpError;

/// Why a connection failed: a code for the component, and a text for the user.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) text: String,
}

/// The error codes of wasi:http that connecting can cause. Unlike those, they can be cloned for several waiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Refused,
    Terminated,
    Timeout,
    Dns,
    Tls,
    Certificate,
    AddressProhibited,
    Unroutable,
    Limit,
    Protocol,
}

impl Failure {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Failure { code, text: text.into() }
    }

    pub(crate) fn error(&self) -> HttpError {
        match self.code {
            Code::Refused => HttpError::ConnectionRefused,
            Code::Terminated => HttpError::ConnectionTerminated,
            Code::Timeout => HttpError::ConnectionTimeout,
            Code::Dns => HttpError::DnsError { rcode: Some(self.text.clone()), info_code: None },
            Code::Tls => HttpError::TlsProtocolError,
            Code::Certificate => HttpError::TlsCertificateError,
            Code::AddressProhibited => HttpError::DestinationIpProhibited,
            Code::Unroutable => HttpError::DestinationIpUnroutable,
            Code::Limit => HttpError::ConnectionLimitReached,
            Code::Protocol => HttpError::HttpProtocolError,
        }
    }
}

impl Clone for Failure {
    fn clone(&self) -> Self {
        Failure { code: self.code, text: self.text.clone() }
    }
}

/// Returns the error code for the component and the text for the user of a failed request.
pub(super) fn of_exchange(error: &hyper::Error) -> (HttpError, String) {
    let mut why = error.to_string();
    let mut source = error.source();
    let mut io = false;
    let mut refused = false;
    while let Some(cause) = source {
        why = format!("{why}: {cause}");
        io |= cause.is::<std::io::Error>();
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            io |= h2.is_io() || h2.is_go_away();
            refused |= h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        source = cause.source();
    }
    let code = if error.is_timeout() {
        HttpError::ConnectionReadTimeout
    } else if refused || io || error.is_canceled() || error.is_closed() {
        HttpError::ConnectionTerminated
    } else if error.is_incomplete_message() {
        HttpError::HttpResponseIncomplete
    } else {
        HttpError::HttpProtocolError
    };
    (code, why)
}
