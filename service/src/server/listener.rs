//! The accept loop: connections, TLS, limits, and an end that lets running requests finish.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::attest::Service;
use crate::http::{CloseConnection, Peer};
use crate::telemetry::Log;

/// Longest time for a TLS handshake, and from there to the head of the first request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Longest time between two requests of a connection. Longer than people take for a challenge, between
/// nonce and attest request, and than a token lives by default, between two refreshes: so neither
/// waits for a new connection.
const IDLE_TIME: Duration = Duration::from_secs(150);
/// Longest request head, bytes.
const HEAD_BYTES: usize = 32 * 1024;
/// Requests that one HTTP/2 connection may have open.
const STREAMS: u32 = 128;
/// How long running requests have to finish when the service ends.
const GRACE: Duration = Duration::from_secs(20);

/// What answers requests: [`crate::http::App`], in development with layers around it.
pub trait Face:
    tower::Service<Request, Response = Response, Error = Infallible, Future: Send + 'static> + Clone + Send + Sync + 'static
{
}

impl<F> Face for F where
    F: tower::Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Serves `face` on `listener` until `stop` turns true, then lets running requests finish.
///
/// # Errors
/// When the listener itself fails for good.
pub async fn serve<F: Face>(
    listener: TcpListener,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    face: F,
    service: Arc<Service>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(service.active().config.limits.connections));
    let mut connections = JoinSet::new();
    loop {
        // A full service leaves new connections in the kernel's queue.
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot.map_err(io::Error::other)?,
            () = stopped(&mut stop) => break,
        };
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must close first.
                    service.log.event("accept", &error.to_string());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        service.metrics.connection();
        // Small answers must not wait for acknowledgements.
        if let Err(error) = stream.set_nodelay(true) {
            service.log.event("accept", &error.to_string());
            continue;
        }
        let acceptor = tls.as_ref().map(|config| TlsAcceptor::from(Arc::clone(&config.borrow())));
        let (face, stop, log) = (face.clone(), stop.clone(), service.log);
        connections.spawn(async move {
            match acceptor {
                None => connection(stream, peer, face, stop).await,
                Some(acceptor) => match tokio::time::timeout(HEAD_TIME, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, peer, face, stop).await,
                    Ok(Err(error)) => debug_handshake(log, peer, &error.to_string()),
                    Err(_) => debug_handshake(log, peer, "no handshake in time"),
                },
            }
            drop(slot);
        });
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        service.log.event("stopping", "some connections did not finish and were closed");
    }
    Ok(())
}

fn debug_handshake(log: Log, peer: SocketAddr, why: &str) {
    log.event("handshake", &format!("{}: {why}", peer.ip()));
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection<S, F>(stream: S, peer: SocketAddr, face: F, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Face,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIME).max_buf_size(HEAD_BYTES);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(HEAD_TIME);
    let began = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&began);
    let answer = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        begins.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(Peer(peer));
        let answer = face.clone().call(request.map(Body::new));
        async move {
            let Ok(response): Result<Response, Infallible> = answer.await;
            match response.extensions().get::<CloseConnection>() {
                None => Ok(response),
                Some(CloseConnection) => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
            }
        }
    });
    let connection = server.serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    tokio::select! {
        // An error here is the client's: it went away, or did not speak HTTP.
        _ = connection.as_mut() => {}
        () = silent(&began) => {}
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Ends when a connection has sent no request in [`HEAD_TIME`]; never, when it has.
async fn silent(began: &AtomicBool) {
    tokio::time::sleep(HEAD_TIME).await;
    if began.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}
