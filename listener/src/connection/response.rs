//! Bodies of responses, watched.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};

use super::activity::Exchange;

/// The body of a response, which notes that it gets on and when it has gone.
pub(super) struct ResponseBody<B> {
    body: B,
    exchange: Exchange,
}

impl<B> ResponseBody<B> {
    /// The body of the response that `exchange` now has.
    pub(super) fn new(body: B, exchange: Exchange) -> Self {
        exchange.progress();
        Self { body, exchange }
    }
}

impl<B: Body + Unpin> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.exchange.progress();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
