//! One connection: HTTP/1.1 or HTTP/2, and its time-outs.

mod activity;
mod frames;
mod response;
mod stream;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::body::RequestBody;
use crate::limits::{
    MAX_CONCURRENT_STREAMS, MAX_CONNECTION_WINDOW, MAX_HEAD_BYTES, MAX_SEND_BUFFER_BYTES, MAX_STREAM_WINDOW, Timeouts,
};
use crate::service::{CloseConnection, HttpService, Peer};
use crate::shutdown::{Phase, stopped};

pub(crate) use activity::{Activity, Clock, Ending, Millis};
pub(crate) use stream::WatchedSocket;

use response::ResponseBody;
use stream::WatchedReads;

/// How often the other end of an HTTP/2 connection is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long it has for the response to that.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection has to close in good order.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves the requests of one connection to its end. Says why, when this side ended it.
///
/// `stream` is what a [`WatchedSocket`] with the same `activity` carries.
pub(crate) async fn serve<T, S>(
    stream: T,
    peer: SocketAddr,
    activity: &Arc<Activity>,
    timeouts: Timeouts,
    service: S,
    mut stop: watch::Receiver<Phase>,
) -> Option<Ending>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService,
{
    let server = builder();
    let exchanges = Arc::clone(activity);
    let respond = hyper::service::service_fn(move |request: Request<Incoming>| {
        if request.version() <= Version::HTTP_11 {
            exchanges.set_head(false);
        }
        let exchange = exchanges.begin_exchange();
        let mut request = request.map(|body| RequestBody::new(body, timeouts.body));
        request.extensions_mut().insert(Peer(peer));
        let response = service.clone().call(request);
        async move {
            let Ok(response): Result<_, Infallible> = response.await;
            match response.extensions().get::<CloseConnection>() {
                None => Ok(response.map(|body| ResponseBody::new(body, exchange))),
                Some(CloseConnection) => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
            }
        }
    });
    let stream = WatchedReads::new(stream, Arc::clone(activity));
    let connection = server.serve_connection(TokioIo::new(stream), respond);
    tokio::pin!(connection);
    let ending = {
        let ending = activity.ending(&timeouts);
        tokio::pin!(ending);
        tokio::select! {
            // An error here is the client's: it went away, or did not speak HTTP.
            _ = connection.as_mut() => return None,
            ending = ending.as_mut() => ending,
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    _ = connection.as_mut() => return None,
                    ending = ending => ending,
                }
            }
        }
    };
    if ending.is_gentle() {
        connection.as_mut().graceful_shutdown();
        // Whether it closes in time or not, this is its end.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection).await;
    }
    Some(ending)
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    // The time-outs of heads and of idle connections are ours: hyper has one for both.
    server.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .initial_stream_window_size(MAX_STREAM_WINDOW)
        .initial_connection_window_size(MAX_CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    server
}

#[cfg(test)]
mod tests {
    use http::Response;
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;
    use crate::body::BodyError;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    const TIMEOUTS: Timeouts = Timeouts {
        head: Duration::from_secs(10),
        body: Duration::from_secs(11),
        write: Duration::from_secs(12),
        idle: Duration::from_secs(150),
        age: None,
    };

    struct Connection {
        client: DuplexStream,
        /// Dropped, it stops the connection.
        end: watch::Sender<Phase>,
        /// How and when it ended.
        served: JoinHandle<(Option<Ending>, Duration)>,
        begun: Instant,
    }

    /// A connection to a service that reads the request's body, takes `time` and sends `bytes`.
    fn connect_with(timeouts: Timeouts, time: Duration, bytes: usize) -> Connection {
        let (client, server) = duplex(1 << 14);
        let (end, stop) = watch::channel(Phase::Running);
        let service = tower::service_fn(move |request: Request<RequestBody>| async move {
            let status = match request.into_body().collect().await {
                Ok(_) => 200,
                Err(error) if BodyError::is_time_out(&error) => 408,
                Err(_) => 400,
            };
            tokio::time::sleep(time).await;
            let body = Full::new(Bytes::from(vec![b'a'; bytes]));
            Ok(Response::builder().status(status).body(body).unwrap())
        });
        let peer = "192.0.2.7:1234".parse().unwrap();
        let activity = Arc::new(Activity::new(Clock::start()));
        let server = WatchedSocket::new(server, Arc::clone(&activity));
        let begun = Instant::now();
        let served = tokio::spawn(async move {
            let ending = serve(server, peer, &activity, timeouts, service, stop).await;
            (ending, begun.elapsed())
        });
        Connection { client, end, served, begun }
    }

    fn connect() -> Connection {
        connect_with(TIMEOUTS, Duration::ZERO, 0)
    }

    impl Connection {
        async fn send(&mut self, bytes: &[u8]) {
            self.client.write_all(bytes).await.unwrap();
        }

        /// One byte each `pause`, until the other end closes.
        async fn trickle(&mut self, bytes: &[u8], pause: Duration) {
            for byte in bytes.iter().cycle() {
                tokio::time::sleep(pause).await;
                if self.client.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        }

        /// The head of an HTTP/1.1 response without a body.
        async fn response(&mut self) -> String {
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n") {
                assert_ne!(self.client.read_buf(&mut read).await.unwrap(), 0, "the connection ended");
            }
            String::from_utf8(read).unwrap()
        }

        /// How it ended, and after how many seconds; whatever came until then was read.
        async fn end(mut self) -> (Option<Ending>, u64) {
            tokio::io::copy(&mut self.client, &mut tokio::io::sink()).await.unwrap();
            self.end_unread().await
        }

        /// The same for a client that reads nothing.
        async fn end_unread(self) -> (Option<Ending>, u64) {
            let (ending, time) = self.served.await.unwrap();
            (ending, time.as_secs())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_ends() {
        for sent in [b"".as_slice(), b"GET / HTTP/1.1\r\nhost:", b"PRI * HT", PREFACE_AND_SETTINGS] {
            let mut connection = connect();
            connection.send(sent).await;
            assert_eq!(connection.end().await, (Some(Ending::Head), 10), "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_head_has_its_time_not_only_the_first() {
        let mut connection = connect();
        connection.send(REQUEST).await;
        assert!(connection.response().await.starts_with("HTTP/1.1 200 "));
        tokio::time::sleep(Duration::from_secs(100)).await;
        connection.trickle(b"GET / HTTP/1.1\r\nx: ", Duration::from_secs(1)).await;
        // The first byte of the second head came after 101 seconds.
        assert_eq!(connection.end_unread().await, (Some(Ending::Head), 111));
    }

    #[tokio::test(start_paused = true)]
    async fn line_ends_between_requests_are_not_a_head() {
        let mut connection = connect();
        connection.send(REQUEST).await;
        connection.response().await;
        connection.send(b"\r\n").await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        connection.send(REQUEST).await;
        assert!(connection.response().await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_outlives_the_time_people_take_for_a_challenge() {
        let mut connection = connect();
        for _ in 0..2 {
            connection.send(REQUEST).await;
            assert!(connection.response().await.starts_with("HTTP/1.1 200 "));
            tokio::time::sleep(Duration::from_secs(120)).await;
        }
        assert_eq!(connection.end().await, (Some(Ending::Idle), 270));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_an_error_in_time() {
        let mut connection = connect();
        connection.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nab").await;
        assert!(connection.response().await.starts_with("HTTP/1.1 408 "));
        assert_eq!(connection.begun.elapsed().as_secs(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_cut_off() {
        let mut connection = connect_with(TIMEOUTS, Duration::ZERO, 1 << 20);
        connection.send(REQUEST).await;
        let (ending, seconds) = connection.end_unread().await;
        assert!(matches!(ending, Some(Ending::Write | Ending::Stream)), "{ending:?}");
        assert_eq!(seconds, 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_is_not() {
        let mut connection = connect_with(TIMEOUTS, Duration::ZERO, 1 << 18);
        connection.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let (mut read, mut part) = (0, [0; 8192]);
        loop {
            let length = connection.client.read(&mut part).await.unwrap();
            if length == 0 {
                break;
            }
            read += length;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        assert!(read > 1 << 18, "{read}");
        assert!(connection.begun.elapsed() > TIMEOUTS.write * 5, "progress starts the time again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_an_age_when_configured() {
        let timeouts = Timeouts { age: Some(Duration::from_secs(60)), ..TIMEOUTS };
        let mut connection = connect_with(timeouts, Duration::ZERO, 0);
        for _ in 0..5 {
            connection.send(REQUEST).await;
            connection.response().await;
            tokio::time::sleep(Duration::from_secs(11)).await;
        }
        assert_eq!(connection.end().await, (Some(Ending::Age), 60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_lets_the_running_request_finish() {
        let mut connection = connect_with(TIMEOUTS, Duration::from_secs(3), 0);
        connection.send(REQUEST).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        connection.end.send(Phase::Stopping).unwrap();
        assert!(connection.response().await.starts_with("HTTP/1.1 200 "));
        assert_eq!(connection.end().await, (None, 3));
    }

    const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    /// GET http://x/ on a stream: every field indexed in the static table, the authority literal.
    const GET_BLOCK: &[u8] = b"\x82\x84\x86\x41\x01x";

    fn get(stream: u8) -> Vec<u8> {
        [&[0, 0, 6, 1, 5, 0, 0, 0, stream], GET_BLOCK].concat()
    }

    /// A SETTINGS frame that makes the window of every stream zero.
    const ZERO_WINDOW: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";

    #[tokio::test(start_paused = true)]
    async fn an_idle_http_2_connection_ends_whatever_pings_say() {
        let mut connection = connect();
        connection.send(PREFACE_AND_SETTINGS).await;
        connection.send(&get(1)).await;
        // The other end answers every ping of ours, and sends its own.
        let (mut from, mut to) = tokio::io::split(connection.client);
        let client = async {
            let mut frame = [0; 9];
            while from.read_exact(&mut frame).await.is_ok() {
                let mut payload = vec![0; usize::from(frame[1]) << 8 | usize::from(frame[2])];
                from.read_exact(&mut payload).await.unwrap();
                if frame[3] == 6 && frame[4] == 0 {
                    let pong =
                        [&[0, 0, 8, 6, 1, 0, 0, 0, 0], payload.as_slice(), &[0, 0, 8, 6, 0, 0, 0, 0, 0], &payload];
                    // The connection may close at any time.
                    let _ = to.write_all(&pong.concat()).await;
                }
            }
        };
        let ((), served) = tokio::join!(client, connection.served);
        let (ending, time) = served.unwrap();
        assert_eq!((ending, time.as_secs()), (Some(Ending::Idle), 150));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_takes_nothing_ends_its_connection() {
        let mut connection = connect_with(TIMEOUTS, Duration::ZERO, 100);
        connection.send(PREFACE_AND_SETTINGS).await;
        connection.send(ZERO_WINDOW).await;
        for stream in [1, 3, 5] {
            connection.send(&get(stream)).await;
        }
        assert_eq!(connection.end().await, (Some(Ending::Stream), 12));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_http_2_head_is_not_saved_by_other_requests() {
        let mut connection = connect();
        connection.send(PREFACE_AND_SETTINGS).await;
        connection.send(&get(1)).await;
        tokio::time::sleep(Duration::from_secs(15)).await;
        // HEADERS without END_HEADERS, then its CONTINUATION in pieces.
        connection.send(&[&[0, 0, 1, 1, 1, 0, 0, 0, 3], &GET_BLOCK[..1]].concat()).await;
        connection.trickle(&[0, 0, 1, 9, 0, 0, 0, 0, 3, 0x84], Duration::from_millis(500)).await;
        assert_eq!(connection.end_unread().await, (Some(Ending::Head), 25));
    }
}
