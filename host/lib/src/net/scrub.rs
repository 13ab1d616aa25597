//! Removes credentials from responses, in case the service echoes them, so that the component does not see them.
//!
//! Only responses of origins that receive credentials are searched. In headers, a value with a credential is replaced
//! as a whole. In bodies, each byte of a credential is replaced by an asterisk, which keeps lengths unchanged. A
//! credential can be split between two pieces of a body, so an end that could be the beginning of a credential is held
//! back until the next piece arrives. That may take long, and the component may be waiting for just these bytes, so
//! they are released after a moment. If the rest of the credential follows, it is still recognised.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use tokio::time::Sleep;

use crate::access::secret::{SHORTEST, Secret};

/// How long an end that could be the beginning of a credential is held back. The pieces of one message arrive faster.
const HOLD: Duration = Duration::from_millis(20);

/// The replacement of header values that contain a credential.
const REDACTED: HeaderValue = HeaderValue::from_static("[redacted]");

/// Searches one response for credentials.
pub(super) struct Scrubber {
    secrets: Arc<[Secret]>,
    /// The end of the received data that could be the beginning of a credential.
    tail: BytesMut,
    /// The same bytes with the replacements applied. A credential can be part of another one, so bytes that are
    /// replaced already may still be the beginning of a longer credential. The first `released` bytes have been passed
    /// on.
    shown: BytesMut,
    released: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Scrubber {
    /// Creates a scrubber. Returns `None` if there is no credential to search for.
    pub(super) fn new(secrets: &Arc<[Secret]>) -> Option<Scrubber> {
        secrets.iter().any(|secret| secret.expose().len() >= SHORTEST).then(|| Scrubber {
            secrets: secrets.clone(),
            tail: BytesMut::new(),
            shown: BytesMut::new(),
            released: 0,
            timer: None,
        })
    }

    fn needles(&self) -> impl Iterator<Item = &[u8]> {
        self.secrets.iter().map(|secret| secret.expose().as_bytes()).filter(|needle| needle.len() >= SHORTEST)
    }

    /// Replaces the header values that contain a credential.
    pub(super) fn headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            if self.needles().any(|needle| find(value.as_bytes(), needle).is_some()) {
                *value = REDACTED;
            }
        }
    }

    /// Takes the next piece. Returns the data that can be passed on.
    pub(super) fn push(&mut self, data: Bytes) -> Bytes {
        let clean = self.tail.is_empty() && self.needles().all(|needle| !touches(&data, needle));
        if clean {
            return data;
        }
        let (mut all, mut out) = (std::mem::take(&mut self.tail), std::mem::take(&mut self.shown));
        let released = std::mem::take(&mut self.released);
        self.timer = None;
        all.extend_from_slice(&data);
        out.extend_from_slice(&data);
        for needle in self.needles() {
            let finder = memchr::memmem::Finder::new(needle);
            let mut from = 0;
            // The search uses the received data, not the replaced data: credentials can overlap each other and
            // themselves.
            while let Some(at) = finder.find(&all[from..]) {
                let start = from + at;
                out[start..start + needle.len()].fill(b'*');
                from = start + 1;
            }
        }
        let keep = self.needles().map(|needle| overlap(&all, needle)).max().unwrap_or(0);
        self.tail = all.split_off(all.len() - keep);
        self.shown = out.split_off(out.len() - keep);
        // Bytes that were released before must not be passed on again.
        if released <= out.len() {
            let _ = out.split_to(released);
            self.released = 0;
        } else {
            self.released = released - out.len();
            out.clear();
        }
        if self.tail.len() > self.released {
            self.timer = Some(Box::pin(tokio::time::sleep(HOLD)));
        }
        out.freeze()
    }

    /// Returns the held bytes when their time is over.
    pub(super) fn poll_release(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        let timer = self.timer.as_mut()?;
        match timer.as_mut().poll(cx) {
            Poll::Pending => None,
            Poll::Ready(()) => {
                self.timer = None;
                let data = Bytes::copy_from_slice(&self.shown[self.released..]);
                self.released = self.shown.len();
                (!data.is_empty()).then_some(data)
            }
        }
    }

    /// Returns the held bytes at the end of the body. They contain no credential that is not replaced.
    pub(super) fn finish(&mut self) -> Option<Bytes> {
        self.timer = None;
        self.tail.clear();
        let shown = std::mem::take(&mut self.shown).freeze();
        let rest = shown.slice(std::mem::take(&mut self.released)..);
        (!rest.is_empty()).then_some(rest)
    }

    /// Returns when the held bytes will be released.
    #[cfg(test)]
    fn due(&self) -> Option<tokio::time::Instant> {
        self.timer.as_ref().map(|timer| timer.deadline())
    }
}

/// Returns whether the data contains the needle or ends with a beginning of it.
fn touches(data: &[u8], needle: &[u8]) -> bool {
    overlap(data, needle) > 0 || find(data, needle).is_some()
}

/// Returns the length of the longest end of `data` that is a beginning of `needle`, but not all of it.
fn overlap(data: &[u8], needle: &[u8]) -> usize {
    (1..needle.len().min(data.len() + 1)).rev().find(|&length| data.ends_with(&needle[..length])).unwrap_or(0)
}

/// Returns the first position of `needle` in `data`.
fn find(data: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(data, needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubber() -> Scrubber {
        Scrubber::new(&Arc::from([Secret::new("as-secret-1"), Secret::new("ak-id-12345")])).unwrap()
    }

    fn through(pieces: &[&[u8]]) -> Vec<u8> {
        through_of(scrubber(), pieces)
    }

    fn through_of(mut scrubber: Scrubber, pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&scrubber.finish().unwrap_or_default());
        out
    }

    #[tokio::test]
    async fn credentials_are_overwritten_in_any_cut() {
        let text = b"token as-secret-1 and ak-id-12345, as-secret";
        let wanted = b"token *********** and ***********, as-secret";
        for cut in 0..text.len() {
            assert_eq!(through(&[&text[..cut], &text[cut..]]), wanted, "cut at {cut}");
        }
        let singles: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(through(&singles), wanted);
    }

    /// Credentials from files often end with a line break, which is not sent.
    #[tokio::test]
    async fn white_space_around_a_credential_hides_no_echo() {
        let scrubber = Scrubber::new(&Arc::from([Secret::new(" as-secret-1\n")])).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-echo", HeaderValue::from_static("as-secret-1"));
        scrubber.headers(&mut headers);
        assert_eq!(headers["x-echo"], REDACTED);
        assert_eq!(through_of(scrubber, &[b"you sent as-secret-1."]), b"you sent ***********.");
    }

    #[tokio::test]
    async fn credentials_that_overlap_are_overwritten_whole() {
        let texts: [(&[&str], &str, &str); 4] = [
            (&["secret-1", "my-secret-1-long"], "x my-secret-1-long secret-1 y", "x **************** ******** y"),
            (&["secret-1", "secret-1-long"], "secret-1-long, secret-1-lon", "*************, ********-lon"),
            (&["abcdefgh", "efghijkl"], "abcdefghijkl", "************"),
            (&["abababab"], "ababababab-ababa", "**********-ababa"),
        ];
        for (secrets, text, wanted) in texts {
            for reversed in [false, true] {
                let mut secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(*secret)).collect();
                if reversed {
                    secrets.reverse();
                }
                let secrets = Arc::from(secrets);
                for cut in 0..text.len() {
                    let (first, second) = text.as_bytes().split_at(cut);
                    let out = through_of(Scrubber::new(&secrets).unwrap(), &[first, second]);
                    assert_eq!(String::from_utf8_lossy(&out), wanted, "cut at {cut}");
                }
                let singles: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
                let out = through_of(Scrubber::new(&secrets).unwrap(), &singles);
                assert_eq!(String::from_utf8_lossy(&out), wanted, "in single bytes");
            }
        }
    }

    /// A credential that could be the beginning of a longer one is released with its bytes replaced.
    #[tokio::test]
    async fn a_credential_that_begins_another_is_not_let_go_in_the_clear() {
        let mut scrubber = Scrubber::new(&Arc::from([Secret::new("secret-1"), Secret::new("secret-1-long")])).unwrap();
        assert_eq!(scrubber.push(Bytes::from_static(b"x secret-1")), "x ");
        tokio::time::sleep_until(scrubber.due().unwrap()).await;
        let released = std::future::poll_fn(|cx| Poll::Ready(scrubber.poll_release(cx))).await;
        assert_eq!(released.unwrap(), "********");
        assert_eq!(scrubber.push(Bytes::from_static(b"-long y")), "***** y");
    }

    #[tokio::test]
    async fn held_bytes_are_let_go_and_not_given_twice() {
        let mut scrubber = scrubber();
        assert_eq!(scrubber.push(Bytes::from_static(b"x as-sec")), "x ");
        tokio::time::sleep_until(scrubber.due().unwrap()).await;
        let released = std::future::poll_fn(|cx| Poll::Ready(scrubber.poll_release(cx))).await;
        assert_eq!(released.unwrap(), "as-sec");
        assert_eq!(scrubber.push(Bytes::from_static(b"ret-1 y")), "***** y");
        assert_eq!(scrubber.finish(), None);
    }

    #[tokio::test]
    async fn headers_are_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert("x-echo", HeaderValue::from_static("you sent as-secret-1"));
        headers.insert("x-other", HeaderValue::from_static("fine"));
        scrubber().headers(&mut headers);
        assert_eq!((&headers["x-echo"], &headers["x-other"]), (&REDACTED, &HeaderValue::from_static("fine")));
    }

    #[test]
    fn nothing_is_looked_for_without_credentials() {
        assert!(Scrubber::new(&Arc::from([])).is_none());
        assert!(Scrubber::new(&Arc::from([Secret::new("short")])).is_none());
    }
}
