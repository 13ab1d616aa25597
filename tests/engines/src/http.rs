//! A small HTTP client: one request on one connection. Version 1.0, so that the answer ends with the connection and has
//! no chunks.

use std::io::{self, Read, Write};

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Returns the value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(':'));
        headers.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Returns the body as text, for errors.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_string()
    }
}

/// Sends a request and reads its answer. `target` is the path with the query.
///
/// # Errors
///
/// Fails if the connection breaks or the answer is no HTTP.
pub(crate) fn request(
    mut stream: impl Read + Write,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut head = format!("{method} {target} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    // A server may answer and close the connection before it has read a body that it does not need.
    let sent = stream.write_all(&[head.as_bytes(), body].concat());
    let mut answer = Vec::new();
    let received = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        sent?;
    }
    received?;
    parse(answer)
}

fn parse(mut answer: Vec<u8>) -> io::Result<Answer> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP");
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or_else(invalid)?;
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(invalid)?;
    Ok(Answer { status, head, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_status_headers_and_body() {
        let answer = parse(b"HTTP/1.0 202 Accepted\r\nLocation: /a?b\r\n\r\nrest\r\n\r\n".to_vec()).expect("no answer");
        assert_eq!((answer.status, answer.header("location")), (202, Some("/a?b")));
        assert_eq!(answer.body, b"rest\r\n\r\n");
        assert!(parse(b"SSH-2.0\r\n\r\n".to_vec()).is_err());
        assert!(parse(b"HTTP/1.0 200 OK\r\n".to_vec()).is_err());
    }
}
