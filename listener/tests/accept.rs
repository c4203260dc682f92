//! A listener on loopback, and clients of several networks: 127.0.0.0/8 has 65,536 of them.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use approov_listener::Listener;
use approov_listener::body::RequestBody;
use approov_listener::limits::{Limits, Timeouts};
use approov_listener::log::{Log, LogFormat};
use approov_listener::metrics::Metrics;
use approov_listener::service::Peer;
use approov_listener::shutdown::Phase;
use http::{Request, Response};
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
        Self::start_with(connections, move |_| trusts_all, |_| false).await
    }

    async fn start_with(
        connections: usize,
        is_trusted: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
        speaks_proxy_protocol: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let metrics = Arc::<Metrics>::default();
        let listener = Listener {
            socket,
            identity: None,
            limits: Limits { connections, timeouts: TIMEOUTS, ..Limits::default() },
            is_trusted: Arc::new(is_trusted),
            speaks_proxy_protocol: Arc::new(speaks_proxy_protocol),
            pressure: Arc::default(),
            log: Log::new(LogFormat::Quiet),
            metrics: Arc::clone(&metrics),
        };
        let (end, stop) = watch::channel(Phase::Running);
        let service = tower::service_fn(|request: Request<RequestBody>| async move {
            let peer = request.extensions().get::<Peer>().unwrap().0.to_string();
            Ok(Response::builder().header("peer", peer).body(Empty::<Bytes>::new()).unwrap())
        });
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
    response(stream).await.is_some()
}

async fn response(stream: &mut TcpStream) -> Option<String> {
    let ask = async {
        stream.write_all(REQUEST).await.ok()?;
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        }
        String::from_utf8(read).ok()
    };
    let served = tokio::time::timeout(HANG, ask).await;
    served.unwrap_or_else(|_| panic!("a connection neither ended nor got its response"))
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

const PROXY: [u8; 4] = [127, 8, 8, 8];

/// A listener that a proxy passes connections on to, and what the proxy says first.
async fn behind_proxy(connections: usize) -> Server {
    let is_proxy = |ip: IpAddr| ip == IpAddr::from(PROXY);
    Server::start_with(connections, is_proxy, is_proxy).await
}

fn header(client: [u8; 4], port: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend(client);
    header.extend([192, 0, 2, 1]);
    header.extend(port.to_be_bytes());
    header.extend(443_u16.to_be_bytes());
    header
}

#[tokio::test]
async fn a_proxy_says_whom_its_connections_are_for_and_nobody_else_does() {
    let server = behind_proxy(100).await;
    let peer = async |from: [u8; 4], first: &[u8]| {
        let mut stream = server.connect(from).await;
        stream.write_all(first).await.unwrap();
        let response = response(&mut stream).await?;
        Some(response.lines().find_map(|line| line.strip_prefix("peer: ")).unwrap_or_default().to_owned())
    };
    assert_eq!(peer(PROXY, &header([203, 0, 113, 9], 4711)).await.as_deref(), Some("203.0.113.9:4711"));
    // By itself, to see whether the service lives.
    let by_itself = peer(PROXY, b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00").await.unwrap();
    assert!(by_itself.starts_with("127.8.8.8:"), "{by_itself}");
    assert_eq!(peer(PROXY, b"").await, None, "a proxy that says nothing is not guessed about");
    let direct = peer([127, 0, 0, 1], b"").await.unwrap();
    assert!(direct.starts_with("127.0.0.1:"), "{direct}");
    // What others say is a request that is none.
    assert_eq!(peer([127, 0, 0, 1], &header([203, 0, 113, 9], 4711)).await.as_deref(), Some(""));
    assert_eq!(server.metric("approov_handshakes_failed_total"), 1);
}

#[tokio::test]
async fn a_client_behind_such_a_proxy_has_its_own_share() {
    let server = behind_proxy(100).await;
    let mut held = Vec::new();
    let mut connect = async |client: [u8; 4]| {
        let mut stream = server.connect(PROXY).await;
        stream.write_all(&header(client, 1)).await.unwrap();
        let served = is_served(&mut stream).await;
        held.push(stream);
        served
    };
    assert!(connect([198, 51, 100, 1]).await);
    for _ in 0..150 {
        // What is more than its share is refused, or paid for with its own older connections.
        connect([203, 0, 113, 9]).await;
    }
    for honest in 0..30 {
        assert!(connect([198, 51, honest, 1]).await, "client {honest}");
    }
    assert!(is_served(&mut held[0]).await, "who was there before stays");
    let refused = server.metric("approov_connections_refused_total{limit=\"share\"}");
    let evicted = server.metric("approov_connections_ended_total{limit=\"evicted\"}");
    assert!(refused + evicted >= 70, "{refused} refused, {evicted} evicted");
    let open = server.metric("approov_connections_open");
    assert!(open <= 100, "{open}");
}
