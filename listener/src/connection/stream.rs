//! The byte stream of a connection, watched: by what comes in, the heads; by what gets out, the writing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::frames::{Frames, PREFACE};

/// The socket, below TLS: here bytes really leave.
pub(crate) struct WatchedSocket<T> {
    stream: T,
    activity: Arc<Activity>,
}

impl<T> WatchedSocket<T> {
    pub(crate) fn new(stream: T, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn note<R>(&self, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        self.activity.set_blocked(written.is_pending());
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WatchedSocket<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WatchedSocket<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a client speaks, as far as its bytes have shown.
enum Protocol {
    /// So many bytes of the HTTP/2 preface, and nothing else yet.
    Unknown(usize),
    Http1,
    Http2(Frames),
}

/// The stream of plain bytes, above TLS: here heads begin.
pub(super) struct WatchedReads<T> {
    stream: T,
    activity: Arc<Activity>,
    protocol: Protocol,
}

impl<T> WatchedReads<T> {
    pub(super) fn new(stream: T, activity: Arc<Activity>) -> Self {
        Self { stream, activity, protocol: Protocol::Unknown(0) }
    }

    fn observe(&mut self, mut bytes: &[u8]) {
        if let Protocol::Unknown(matched) = self.protocol {
            let expected = PREFACE.get(matched..).unwrap_or_default();
            let length = expected.len().min(bytes.len());
            let (first, rest) = bytes.split_at(length);
            if !expected.starts_with(first) {
                self.protocol = Protocol::Http1;
            } else if length < expected.len() {
                self.protocol = Protocol::Unknown(matched + length);
                return;
            } else {
                self.protocol = Protocol::Http2(Frames::default());
                bytes = rest;
            }
        }
        match &mut self.protocol {
            Protocol::Unknown(_) => {}
            // Between two requests a client may send line ends (RFC 9112 section 2.2); anything else is a head. While a
            // request is served, what comes is its body, or waits in the socket.
            Protocol::Http1 => {
                if self.activity.is_idle() && bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
                    self.activity.set_head(true);
                }
            }
            Protocol::Http2(frames) => {
                frames.observe(bytes);
                self.activity.set_head(frames.is_incomplete());
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WatchedReads<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(come) = buffer.filled().get(before..).filter(|come| !come.is_empty()) {
            self.observe(come);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WatchedReads<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
