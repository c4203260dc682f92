//! What one client can take from the others: floods against a process, with an honest client beside them.
//!
//! `cargo xtask test attacks` runs this against an optimised build. Each flood is bounded in time and count. What is asserted are
//! outcomes: every request of the honest client is served, and the flood is refused where the documentation says it is. How
//! long the honest client waits is printed, and goes to the file that `APPROOV_ATTACKS_REPORT` names: the bench reads it. Where the configuration can take a limit away, a second run without it shows
//! that the flood does harm.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

mod support;

use std::future::poll_fn;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use altcha::{Challenge, Payload, SolveChallengeOptions, solve_challenge};
use approov_web_service::dev::{self, sim};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// How long a flood goes on.
const FLOOD: Duration = Duration::from_secs(3);
/// The honest client's address, in a network of its own.
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
/// The attacker's.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 66, 1);

/// A service with its default limits but for those in `limits`.
struct Target {
    hosted: Hosted,
    address: SocketAddr,
}

impl Target {
    async fn start(name: &str, limits: &str) -> Self {
        Self::start_by(name, limits, Process::start).await
    }

    async fn start_by(name: &str, limits: &str, start: impl Fn(&[&str]) -> Process) -> Self {
        let check = simulators_beside().await;
        let text = |_| {
            format!(
                "{FILE_HEAD}[limits]\n{limits}\n[[account]]\nsite_key = \"{}\"\nsecret = \"{SECRET}\"\n\
                 [[account.api]]\ndomain = \"api.example.com\"\nallow_web = true\n\
                 [[account.hcaptcha.site]]\nsite_key = \"{}\"\nsecret = \"{}\"\n\
                 verify_url = \"http://{check}/sim/hcaptcha/siteverify\"\n",
                dev::SITE_KEY,
                sim::HCAPTCHA_SITE_KEY,
                sim::HCAPTCHA_SECRET
            )
        };
        let hosted = Process::start_with_file_by(name, &text, start).await;
        let address = hosted.process.url.trim_start_matches("http://").parse().unwrap();
        Self { hosted, address }
    }

    fn url(&self) -> &str {
        &self.hosted.process.url
    }

    async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.hosted.process.operations);
        client(Ipv4Addr::LOCALHOST).get(url).send().await.unwrap().text().await.unwrap()
    }

    /// The value of a counter; nothing was counted yet where it is not there, but its family must be.
    async fn counted(&self, sample: &str) -> u64 {
        let metrics = self.metrics().await;
        let family = sample.split('{').next().unwrap();
        assert!(metrics.contains(&format!("# TYPE {family} ")), "no {family} in\n{metrics}");
        let value = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// The memory that the process has, MiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.hosted.process.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Requests that an honest client makes from its address while `flood` goes on: every one is served.
    async fn with_honest_client<T>(&self, what: &str, flood: impl Future<Output = T>) -> T {
        let quiet = honest_beside(self.url(), Arc::new(AtomicBool::new(false)), FLOOD);
        let quiet = quiet.await.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let beside = honest_beside(self.url(), Arc::clone(&over), HANG);
        yield_the_processor();
        let begun = Instant::now();
        let outcome = flood.await;
        over.store(true, Ordering::Relaxed);
        let flooded = beside.await.unwrap();
        let report = serde_json::json!({
            "flood": what,
            "seconds": begun.elapsed().as_secs_f64(),
            "quiet": quiet.to_json(),
            "flooded": flooded.to_json(),
        });
        eprintln!("   {report}");
        if let Ok(file) = std::env::var("APPROOV_ATTACKS_REPORT") {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
            writeln!(file, "{report}").unwrap();
        }
        outcome
    }
}

/// The flood's client, which runs in this thread, takes what the service and the honest client leave of the processor: an
/// attacker's machine is not theirs.
fn yield_the_processor() {
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    let id = thread.file_name().unwrap();
    let status = std::process::Command::new("renice").args(["-n", "19", "-p"]).arg(id).output().unwrap().status;
    assert!(status.success());
}

/// The simulators in a thread of their own: the honest client's check must not wait for the flood's client either.
async fn simulators_beside() -> SocketAddr {
    let (announce, address) = tokio::sync::oneshot::channel();
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            announce.send(simulators().await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    address.await.unwrap()
}

/// How long requests took, milliseconds.
struct Times(Vec<f64>);

impl Times {
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() - 1) * percent / 100]
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "requests": self.0.len(), "p50_ms": self.percentile(50), "p99_ms": self.percentile(99),
        })
    }
}

/// A client whose connections come from `ip`, each for one request.
fn client(ip: Ipv4Addr) -> reqwest::Client {
    reqwest::Client::builder().no_proxy().local_address(IpAddr::V4(ip)).pool_max_idle_per_host(0).build().unwrap()
}

/// An honest client in a thread of its own: it must not wait for the flood's client.
fn honest_beside(url: &str, over: Arc<AtomicBool>, most: Duration) -> tokio::task::JoinHandle<Times> {
    let url = url.to_owned();
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(honest(url, over, most))
    })
}

/// Sessions one after the other, as pages have them: nonce, result, a refresh. Panics when one is not served.
async fn honest(url: String, over: Arc<AtomicBool>, most: Duration) -> Times {
    let (client, begun, mut times) = (client(HONEST), Instant::now(), Vec::new());
    while times.is_empty() || (!over.load(Ordering::Relaxed) && begun.elapsed() < most) {
        times.extend(session(&client, &url).await);
        // Three connections each, which is less than the fifty a second that one client may open in a full service.
        tokio::time::sleep(Duration::from_millis(75)).await;
    }
    Times(times)
}

/// One session that must be served, after work where that is asked for; how long each request took.
async fn session(client: &reqwest::Client, url: &str) -> [f64; 3] {
    static RESULTS: AtomicUsize = AtomicUsize::new(0);
    let result = format!("sim-pass-honest-{}", RESULTS.fetch_add(1, Ordering::Relaxed));
    let mut browser = Browser::of_public();
    let mut times = [0.0; 3];
    let mut begun = Instant::now();
    let mut lap = |at: usize| {
        times[at] = begun.elapsed().as_secs_f64() * 1000.0;
        begun = Instant::now();
    };
    let nonce = within("a nonce", browser.ask_nonce_at(client, url)).await.unwrap();
    assert_eq!(nonce.status, 204, "{}", nonce.body);
    lap(0);
    let mut token = within("a token", browser.attest_at(client, url, &with_hcaptcha(&result))).await.unwrap();
    if let Some(detail) = token.json().get("aprv-work-required") {
        let challenge = URL_SAFE_NO_PAD.decode(detail.as_str().unwrap()).unwrap();
        let work = solve(serde_json::from_slice(&challenge).unwrap()).await;
        let mut form = with_hcaptcha(&result);
        form.push(("work", &work));
        token = within("a token for work", browser.attest_at(client, url, &form)).await.unwrap();
    }
    assert!(is_trusted(&token.token()));
    lap(1);
    let refreshed = within("a refresh", browser.attest_at(client, url, &REFRESH)).await.unwrap();
    assert!(is_trusted(&refreshed.token()));
    lap(2);
    times
}

/// The payload of a challenge, solved in a thread of its own.
async fn solve(challenge: Challenge) -> String {
    let solving = tokio::task::spawn_blocking(move || {
        let solution = solve_challenge(SolveChallengeOptions::new(&challenge)).unwrap().unwrap();
        STANDARD.encode(serde_json::json!(Payload { challenge, solution }).to_string())
    });
    solving.await.unwrap()
}

/// A connection from the attacker's address.
async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((ATTACKER, 0).into())?;
    socket.connect(to).await
}

/// Whether the other end has closed a connection.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match tokio::time::timeout(Duration::from_millis(1), stream.read(&mut bytes)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
}

/// Opens connections, sends `bytes` on each, and opens another for each that is closed.
async fn hold(to: SocketAddr, count: usize, bytes: &[u8]) -> (Vec<TcpStream>, usize) {
    let (mut streams, mut opened, begun) = (Vec::new(), 0, Instant::now());
    while begun.elapsed() < FLOOD {
        let mut open = Vec::new();
        for mut stream in std::mem::take(&mut streams) {
            if !is_closed(&mut stream).await {
                open.push(stream);
            }
        }
        streams = open;
        while streams.len() < count && opened < 20 * count {
            opened += 1;
            // A full listener refuses: that is its right.
            let Ok(mut stream) = connect(to).await else { break };
            if stream.write_all(bytes).await.is_ok() {
                streams.push(stream);
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (streams, opened)
}

const ONE_REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: web.example\r\n\r\n";

// H2 a: one request on each of as many connections as there are, and then silence.
#[tokio::test]
async fn connections_that_are_held_after_one_request() {
    let target = Target::start("held", "connections = 400").await;
    let hold = hold(target.address, 500, ONE_REQUEST);
    let (streams, opened) = target.with_honest_client("held connections", hold).await;
    let evicted = target.counted("approov_connections_ended_total{limit=\"evicted\"}").await;
    let refused = target.counted("approov_connections_refused_total{limit=\"share\"}").await;
    assert!(evicted + refused >= 100, "{evicted} evicted, {refused} refused of {opened}");
    drop(streams);
}

// H2 b: more connections than the process may have open files.
#[tokio::test]
async fn more_connections_than_open_files() {
    let start = |args: &[&str]| Process::start_with_files(512, args);
    let target = Target::start_by("files", "connections = 10000", start).await;
    let hold = hold(target.address, 1100, ONE_REQUEST);
    let (streams, _) = target.with_honest_client("more connections than files", hold).await;
    assert_eq!(
        target.counted("approov_accept_errors_total").await,
        0,
        "there is always a file for the next connection"
    );
    drop(streams);
}

// H2 c: HTTP/2 connections on which nothing happens but pings.
#[tokio::test]
async fn connections_that_only_ping() {
    let target = Target::start("pings", "idle_seconds = 2").await;
    let flood = async {
        let mut connections = JoinSet::new();
        for _ in 0..100 {
            let stream = connect(target.address).await.unwrap();
            connections.spawn(async move {
                let (client, mut connection) = h2::client::handshake(stream).await.unwrap();
                let mut pings = connection.ping_pong().unwrap();
                let pinging = async {
                    while pings.ping(h2::Ping::opaque()).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                };
                let _ = futures_util::future::join(connection, pinging).await;
                drop(client);
            });
        }
        within("connections that only ping are closed", connections.join_all()).await;
    };
    target.with_honest_client("pings", flood).await;
    assert!(target.counted("approov_connections_ended_total{limit=\"idle\"}").await >= 100);
}

// H2 d: clients that send requests and read no response.
#[tokio::test]
async fn clients_that_read_nothing() {
    let target = Target::start("unread", "write_seconds = 1").await;
    let flood = async {
        let mut streams = unread(target.address).await;
        all_unread_closed(&target, &mut streams).await;
    };
    target.with_honest_client("unread responses", flood).await;
    assert!(target.counted("approov_connections_ended_total{limit=\"write\"}").await >= 20);

    let patient = Target::start("unread-control", "write_seconds = 3600").await;
    let streams = unread(patient.address).await;
    tokio::time::sleep(FLOOD).await;
    assert_eq!(patient.counted("approov_connections_ended_total{limit=\"write\"}").await, 0);
    assert!(patient.counted("approov_connections_open").await >= 20, "without the limit they stay");
    drop(streams);
}

/// Connections with so many requests that their responses fill every buffer, and with nobody who reads them.
async fn unread(to: SocketAddr) -> Vec<TcpStream> {
    let requests = ONE_REQUEST.repeat(200);
    let opening = (0..20).map(async |_| {
        let mut stream = connect(to).await.unwrap();
        let writing = async { while stream.write_all(&requests).await.is_ok() {} };
        // It ends when the service does not read on either.
        let _ = tokio::time::timeout(Duration::from_secs(1), writing).await;
        stream
    });
    join_all(opening).await
}

/// Waits until the service has closed these connections, which nobody reads.
async fn all_unread_closed(target: &Target, streams: &mut Vec<TcpStream>) {
    until("connections that read nothing are closed", async || {
        target.counted("approov_connections_ended_total{limit=\"write\"}").await >= streams.len() as u64
    })
    .await;
    streams.clear();
}

// H2 e: a second head that never ends.
#[tokio::test]
async fn heads_that_come_byte_by_byte() {
    let target = Target::start("slow-heads", "head_seconds = 2").await;
    let flood = async {
        let slow = (0..100).map(async |_| {
            let mut stream = connect(target.address).await.unwrap();
            stream.write_all(ONE_REQUEST).await.unwrap();
            for byte in ONE_REQUEST.iter().cycle() {
                if stream.write_all(&[if *byte == b'\r' || *byte == b'\n' { b'x' } else { *byte }]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        within("slow heads are cut off", join_all(slow)).await;
    };
    target.with_honest_client("slow heads", flood).await;
    assert!(target.counted("approov_connections_ended_total{limit=\"head\"}").await >= 100);
}

// H3: HTTP/2 streams that take nothing of their responses.
#[tokio::test]
async fn streams_with_a_window_of_nothing() {
    let target = Target::start("zero-window", "write_seconds = 2").await;
    let before = target.memory();
    let flood = async {
        let mut connections = JoinSet::new();
        for _ in 0..100 {
            let stream = connect(target.address).await.unwrap();
            connections.spawn(zero_window(stream));
        }
        let mut most = 0;
        let begun = Instant::now();
        while begun.elapsed() < FLOOD {
            most = most.max(target.memory());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        within("connections whose streams take nothing are closed", connections.join_all()).await;
        most
    };
    let most = target.with_honest_client("zero-window streams", flood).await;
    assert!(target.counted("approov_connections_ended_total{limit=\"stream\"}").await >= 100);
    eprintln!("   memory: {before} MiB before, {most} MiB at most");
    assert!(most < before + 100, "{before} MiB before, {most} MiB at most");
}

/// As many streams as the service allows, of whose responses nothing is taken. Ends when the connection does.
async fn zero_window(stream: TcpStream) {
    let (mut client, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, axum::body::Bytes>(stream).await.unwrap();
    let streams = async {
        let mut responses = Vec::new();
        for n in 0..32 {
            let request = http::Request::get(format!("http://web.example/{n}")).body(()).unwrap();
            if poll_fn(|context| client.poll_ready(context)).await.is_err() {
                break;
            }
            let Ok((response, _)) = client.send_request(request, true) else { break };
            responses.push(response);
        }
        join_all(responses).await
    };
    let _ = futures_util::future::join(connection, streams).await;
}

/// Results that no check service accepts, from one address, twenty at a time. Gives how many were refused for that.
async fn junk_results(url: &str, count: usize) -> usize {
    let refused = AtomicUsize::new(0);
    let (client, refused) = (client(ATTACKER), &refused);
    let attackers = (0..20).map(async |attacker| {
        for n in 0..count / 20 {
            let mut browser = Browser::of_public();
            let nonce = browser.ask_nonce_at(&client, url).await.unwrap();
            if nonce.status != 204 {
                continue;
            }
            let junk = format!("junk-{attacker}-{n:04}");
            let response = browser.attest_at(&client, url, &with_hcaptcha(&junk)).await.unwrap();
            refused.fetch_add(usize::from(response.status == 429), Ordering::Relaxed);
        }
    });
    join_all(attackers).await;
    refused.load(Ordering::Relaxed)
}

// H4: results that cost the site's quota at its check service.
#[tokio::test]
async fn results_that_are_junk() {
    let target = Target::start("junk", "").await;
    let before = target.counted(FAILED).await;
    let begun = Instant::now();
    let refused = target.with_honest_client("junk results", junk_results(target.url(), 2000)).await;
    let (failed, seconds) = (target.counted(FAILED).await - before, begun.elapsed().as_secs());
    assert!(failed <= 20 + 32 + seconds, "{failed} calls for junk");
    assert!(refused >= 1900, "{refused} of 2,000 refused");
    assert!(target.counted("approov_limited_total{limit=\"failed-checks\"}").await >= 1900);

    let open = Target::start("junk-control", "failed_checks = 0").await;
    assert_eq!(junk_results(open.url(), 200).await, 0);
    assert_eq!(open.counted(FAILED).await, 200, "without the limit each costs a call");
}

const FAILED: &str = "approov_checks_total{service=\"hcaptcha\",result=\"not-accepted\"}";

/// Refreshes of one session from the attacker's address, as fast as they go. Gives how many were served and refused.
async fn refreshes(url: &str, most: usize) -> (usize, usize) {
    let client = client(ATTACKER);
    let mut browser = Browser::of_public();
    browser.ask_nonce_at(&client, url).await.unwrap();
    browser.attest_at(&client, url, &with_hcaptcha("sim-pass-greedy")).await.unwrap().token();
    let (mut served, mut refused) = (0, 0);
    for _ in 0..most {
        let response = browser.attest_at(&client, url, &REFRESH).await.unwrap();
        if response.status == 200 { served += 1 } else { refused += 1 }
    }
    (served, refused)
}

// M1: one session that uses the replay memory up.
#[tokio::test]
async fn refreshes_of_one_session() {
    let target = Target::start("refreshes", "replay_entries = 2000").await;
    let begun = Instant::now();
    let flood = refreshes(target.url(), 3000);
    let (served, refused) = target.with_honest_client("refreshes", flood).await;
    let allowed = 121 + usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!(served <= allowed && refused >= 3000 - allowed, "{served} served, {refused} refused");
    assert!(target.counted("approov_limited_total{limit=\"session\"}").await >= refused as u64);

    let open = Target::start("refreshes-control", "refreshes_per_minute = 0").await;
    assert_eq!(refreshes(open.url(), 500).await, (500, 0), "without the limit each is served and remembered");
}

// L1: forms of thousands of parameters, and proofs that are used again, which need no key, nonce or session.
#[tokio::test]
async fn work_without_a_key() {
    let target = Target::start("cheap", "").await;
    let (url, client) = (target.url().to_owned(), client(ATTACKER));
    let form = "a&".repeat(32_000);
    let good = Browser::of_public().proof("GET", &format!("{PUBLIC}/attest"), |_| {});
    let flood = async {
        let begun = Instant::now();
        let floods = (0..8).map(async |n| {
            let mut sent = 0;
            while begun.elapsed() < FLOOD && sent < 20_000 {
                sent += 1;
                let request = if n % 2 == 0 {
                    let post = client.post(format!("{url}/attest")).body(form.clone());
                    post.header("content-type", "application/x-www-form-urlencoded").header("dpop", "junk")
                } else {
                    client.get(format!("{url}/attest")).header("dpop", &good)
                };
                let response = request.header("origin", ORIGIN).send().await.unwrap();
                let status = response.status().as_u16();
                assert!(matches!((n % 2, status), (0, 400) | (1, 204 | 401 | 429)), "{n}: {status}");
            }
            sent
        });
        join_all(floods).await.iter().sum::<usize>()
    };
    let sent = target.with_honest_client("junk proofs and forms", flood).await;
    eprintln!("   {sent} requests of the flood were refused");
    assert!(sent >= 8);
}

// The other side of every limit: a thousand browsers of one office or carrier have one address.
#[tokio::test]
async fn a_thousand_honest_clients_behind_an_address_that_floods_too() {
    let target = Target::start("thousand", "").await;
    let url = target.url().to_owned();
    let flood = tokio::spawn(hold(target.address, 1000, ONE_REQUEST));
    let (client, next) = (client(ATTACKER), AtomicUsize::new(0));
    let browsers = (0..40).map(async |_| {
        let mut served = 0;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= 1000 {
                return served;
            }
            session(&client, &url).await;
            served += 1;
        }
    });
    let served = join_all(browsers).await.iter().sum::<usize>();
    assert_eq!(served, 1000);
    drop(flood.await.unwrap());
}

// The same when the service runs short of connections: beyond its share the address is asked for work, and is served for it, while
// others are served for nothing.
#[tokio::test]
async fn honest_clients_behind_an_address_that_takes_most_connections_work_and_are_served() {
    let target = Target::start("work", "connections = 1000\nleast_share = 20").await;
    let url = target.url().to_owned();
    let flood = tokio::spawn(hold(target.address, 700, ONE_REQUEST));
    until("the service runs short", async || target.counted("approov_connections_open").await >= 600).await;
    let (client, next) = (client(ATTACKER), AtomicUsize::new(0));
    let browsers = (0..2).map(async |_| {
        let mut served = 0;
        while next.fetch_add(1, Ordering::Relaxed) < 100 {
            session(&client, &url).await;
            served += 1;
            // Four connections each, which is less than the fifty a second that one client may open in a full service.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        served
    });
    let served = target.with_honest_client("work for sessions", join_all(browsers)).await.into_iter().sum::<usize>();
    assert_eq!(served, 100);
    let asked = target.counted("approov_limited_total{limit=\"share\"}").await;
    eprintln!("   asked for work: {asked} of 100");
    assert!(asked >= 20, "{asked} of 100 were asked for work");
    drop(flood.await.unwrap());
}
