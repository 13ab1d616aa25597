//! Bodies that are cut off by a fault.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame};

/// A body that fails after a number of bytes.
#[derive(Debug)]
pub struct Cut<B> {
    body: B,
    left: u64,
}

impl<B> Cut<B> {
    /// Wraps `body`, and lets `left` bytes pass.
    pub fn new(body: B, left: u64) -> Cut<B> {
        Cut { body, left }
    }
}

impl<B> Body for Cut<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let broken = || Poll::Ready(Some(Err("body cut off by an ordered fault".into())));
        if this.left == 0 {
            return broken();
        }
        match std::task::ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            None => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    data.truncate(usize::try_from(this.left).unwrap_or(usize::MAX));
                    this.left -= data.remaining() as u64;
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                // Trailers: the body has ended before the limit.
                Err(frame) => Poll::Ready(Some(Ok(frame))),
            },
        }
    }
}
