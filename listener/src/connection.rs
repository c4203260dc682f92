//! One connection: HTTP/1.1 or HTTP/2, and its time-outs.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::limits::{HEAD_TIMEOUT, IDLE_TIMEOUT, MAX_CONCURRENT_STREAMS, MAX_HEAD_BYTES};
use crate::service::{CloseConnection, HttpService, Peer};
use crate::shutdown::stopped;

/// How often the other end of an HTTP/2 connection is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Serves the requests of one connection to its end.
pub(crate) async fn serve<T, S>(stream: T, peer: SocketAddr, service: S, mut stop: watch::Receiver<bool>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(HEAD_TIMEOUT);
    let begun = Arc::new(AtomicBool::new(false));
    let first_request = Arc::clone(&begun);
    let respond = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        first_request.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(Peer(peer));
        let response = service.clone().call(request);
        async move {
            let Ok(response): Result<_, Infallible> = response.await;
            match response.extensions().get::<CloseConnection>() {
                None => Ok(response),
                Some(CloseConnection) => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
            }
        }
    });
    let connection = server.serve_connection(TokioIo::new(stream), respond);
    tokio::pin!(connection);
    tokio::select! {
        // An error here is the client's: it went away, or did not speak HTTP.
        _ = connection.as_mut() => {}
        () = no_request_in_time(&begun) => {}
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Ends when a connection has sent no request in [`HEAD_TIMEOUT`]; never, when it has.
async fn no_request_in_time(begun: &AtomicBool) {
    tokio::time::sleep(HEAD_TIMEOUT).await;
    if begun.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use http::Response;
    use http_body_util::Empty;
    use hyper::body::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// A connection to a service whose responses take `time`; drop the sender to stop it.
    fn connect(time: Duration) -> (DuplexStream, watch::Sender<bool>, JoinHandle<()>) {
        let (client, server) = duplex(1 << 16);
        let (end, stop) = watch::channel(false);
        let service = tower::service_fn(move |_| async move {
            tokio::time::sleep(time).await;
            Ok(Response::new(Empty::<Bytes>::new()))
        });
        let peer = "192.0.2.7:1234".parse().unwrap();
        (client, end, tokio::spawn(serve(server, peer, service, stop)))
    }

    async fn response(client: &mut DuplexStream) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            assert_ne!(client.read_buf(&mut read).await.unwrap(), 0, "the connection ended");
        }
        String::from_utf8(read).unwrap()
    }

    async fn ended_after(client: &mut DuplexStream, begun: Instant) -> Duration {
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "nothing more comes");
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_ends() {
        for sent in [b"".as_slice(), b"GET / HTTP/1.1\r\nhost:"] {
            let begun = Instant::now();
            let (mut client, _end, _) = connect(Duration::ZERO);
            client.write_all(sent).await.unwrap();
            assert_eq!(ended_after(&mut client, begun).await.as_secs(), HEAD_TIMEOUT.as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_outlives_the_time_people_take_for_a_challenge() {
        let (mut client, _end, _) = connect(Duration::ZERO);
        for _ in 0..2 {
            client.write_all(REQUEST).await.unwrap();
            assert!(response(&mut client).await.starts_with("HTTP/1.1 200 "));
            tokio::time::sleep(Duration::from_secs(120)).await;
        }
        client.write_all(REQUEST).await.unwrap();
        response(&mut client).await;
        let begun = Instant::now();
        assert_eq!(ended_after(&mut client, begun).await.as_secs(), IDLE_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_lets_the_running_request_finish() {
        let (mut client, end, connection) = connect(Duration::from_secs(3));
        client.write_all(REQUEST).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        end.send(true).unwrap();
        assert!(response(&mut client).await.starts_with("HTTP/1.1 200 "));
        connection.await.unwrap();
    }
}
