//! A listener on loopback, and clients of several networks: 127.0.0.0/8 has 65,536 of them.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use approov_listener::Listener;
use approov_listener::limits::{Limits, Timeouts};
use approov_listener::log::{Log, LogFormat};
use approov_listener::metrics::Metrics;
use approov_listener::shutdown::Phase;
use http::Response;
use http_body_util::Empty;
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// After this long, what has not happened counts as a hang, on however busy a machine.
const HANG: Duration = Duration::from_secs(120);
/// So long that none of them ends a connection while a test runs.
const TIMEOUTS: Timeouts = {
    let hour = Duration::from_secs(3600);
    Timeouts { head: hour, body: hour, write: hour, idle: hour, age: None }
};
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

struct Server {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    _end: watch::Sender<Phase>,
}

impl Server {
    async fn start(connections: usize, trusts_all: bool) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let metrics = Arc::<Metrics>::default();
        let listener = Listener {
            socket,
            identity: None,
            limits: Limits { connections, timeouts: TIMEOUTS, ..Limits::default() },
            is_trusted: Arc::new(move |_| trusts_all),
            pressure: Arc::default(),
            log: Log::new(LogFormat::Quiet),
            metrics: Arc::clone(&metrics),
        };
        let (end, stop) = watch::channel(Phase::Running);
        let service = tower::service_fn(|_| async { Ok(Response::new(Empty::<Bytes>::new())) });
        tokio::spawn(listener.serve(service, stop));
        Self { address, metrics, _end: end }
    }

    async fn connect(&self, from: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    fn metric(&self, line: &str) -> u64 {
        let mut text = String::new();
        self.metrics.render(&mut text);
        let value = text.lines().find_map(|have| have.strip_prefix(line)).unwrap_or_else(|| panic!("{line}\n{text}"));
        value.trim().parse().unwrap()
    }
}

/// Whether a request on this connection gets its response; `false` when the connection ends instead.
async fn is_served(stream: &mut TcpStream) -> bool {
    let ask = async {
        stream.write_all(REQUEST).await.ok()?;
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        }
        Some(())
    };
    let served = tokio::time::timeout(HANG, ask).await;
    served.unwrap_or_else(|_| panic!("a connection neither ended nor got its response")).is_some()
}

#[tokio::test]
async fn one_client_does_not_take_all_connections() {
    let server = Server::start(100, false).await;
    let mut early = server.connect([127, 9, 9, 9]).await;
    assert!(is_served(&mut early).await);
    let mut held = Vec::new();
    for _ in 0..150 {
        let mut stream = server.connect([127, 0, 0, 1]).await;
        if is_served(&mut stream).await {
            held.push(stream);
        }
    }
    assert!((79..90).contains(&held.len()), "there was room for {}", held.len());
    // Everybody else is served, and the one who holds most makes way.
    for honest in 0..30 {
        let mut stream = server.connect([127, 1, honest, 1]).await;
        assert!(is_served(&mut stream).await, "client {honest}");
        held.push(stream);
    }
    assert!(server.metric("approov_connections_refused_total{limit=\"share\"}") >= 60);
    assert!(server.metric("approov_connections_ended_total{limit=\"evicted\"}") >= 1);
    assert!(is_served(&mut early).await, "who was there before stays");
    let open = server.metric("approov_connections_open");
    assert!(open <= 100, "{open}");
}

#[tokio::test]
async fn a_trusted_proxy_may_have_them_all() {
    let server = Server::start(40, true).await;
    let mut held = Vec::new();
    for n in 0..40 {
        let mut stream = server.connect([127, 0, 0, 1]).await;
        assert!(is_served(&mut stream).await, "connection {n}");
        held.push(stream);
    }
    assert_eq!(server.metric("approov_connections_refused_total{limit=\"share\"}"), 0);
}

#[tokio::test]
async fn connections_that_are_idle_make_way_before_anybody_waits() {
    let server = Server::start(10, false).await;
    // Ten networks with one idle connection each: nobody holds more than another.
    let mut held = Vec::new();
    for network in 0..30 {
        let mut stream = server.connect([127, 2, network, 1]).await;
        assert!(is_served(&mut stream).await, "network {network}");
        held.push(stream);
    }
    assert!(server.metric("approov_connections_ended_total{limit=\"evicted\"}") >= 20);
}
