//! Load for the service: refresh requests on loopback, next to bare ES256 verification on the same core.
//!
//! `cargo run --release -p approov-web-service --example load -- [--requests N] [--connections N] [--json]`
//!
//! The service runs as a process of its own, pinned to one core with `taskset`; this program keeps to
//! the others. Proofs are signed before each round, so that signing takes no time from the service's.
//! One session sends them all, so that the limits on one session are off.
//! It remembers few proofs, so that its bound is reached at once and memory must stay flat from there.
//! Two ratios are given: by the clock, right when nothing else runs on the machine, and by processor time,
//! right in any case.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Proofs that the service remembers.
const REMEMBERED: usize = 25_000;
/// Requests whose proofs are signed at once.
const ROUND: usize = 5_000;

struct Options {
    requests: usize,
    connections: usize,
    json: bool,
    service: Option<PathBuf>,
    pinned: bool,
    verify_only: bool,
}

fn main() -> Outcome<()> {
    let options = options()?;
    if options.verify_only {
        let bare = verifications(Duration::from_secs(2))?;
        println!("{} {}", bare.per_second, bare.micros);
        return Ok(());
    }
    let cores = std::thread::available_parallelism()?.get();
    if !options.pinned && cores > 1 {
        // Once more, on every core but the service's.
        let status = Command::new("taskset")
            .arg("-c")
            .arg(format!("1-{}", cores - 1))
            .arg(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg("--pinned")
            .status()?;
        std::process::exit(status.code().unwrap_or(1));
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&options))
}

fn options() -> Outcome<Options> {
    let mut options =
        Options { requests: 1_000_000, connections: 16, json: false, service: None, pinned: false, verify_only: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--requests" => options.requests = value()?.parse()?,
            "--connections" => options.connections = value()?.parse()?,
            "--service" => options.service = Some(value()?.into()),
            "--json" => options.json = true,
            "--pinned" => options.pinned = true,
            "--verify-only" => options.verify_only = true,
            _ => return Err(format!("there is no option {arg}").into()),
        }
    }
    Ok(options)
}

/// How fast one core does a thing: times per second, and microseconds of processor time for one.
struct Speed {
    per_second: f64,
    micros: f64,
}

/// Processor time that a process has had.
fn processor_time(pid: &str) -> Outcome<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Fields 14 and 15 of proc_pid_stat(5): user and system time.
    let ticks = |at: usize| fields.get(at).ok_or("no processor time")?.parse::<f64>().map_err(|e| e.to_string());
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// How fast one core verifies an ES256 signature over a proof.
fn verifications(time: Duration) -> Outcome<Speed> {
    let key = Key::new()?;
    let proof = key.proof("POST", "http://127.0.0.1:8087/attest", Some("nonce"), 1)?;
    let (message, signature) = proof.rsplit_once('.').ok_or("not a proof")?;
    let signature = URL_SAFE_NO_PAD.decode(signature)?;
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key().as_ref());
    let (begun, busy) = (Instant::now(), processor_time("self")?);
    let mut count = 0_u32;
    while begun.elapsed() < time {
        for _ in 0..100 {
            public.verify(message.as_bytes(), &signature).map_err(|_| "a good signature was refused")?;
        }
        count += 100;
    }
    let count = f64::from(count);
    let busy = processor_time("self")? - busy;
    Ok(Speed { per_second: count / begun.elapsed().as_secs_f64(), micros: busy * 1e6 / count })
}

/// A command on the service's core.
fn on_first_core(program: &std::path::Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

fn bare_verification() -> Outcome<Speed> {
    let output = on_first_core(&std::env::current_exe()?).arg("--verify-only").output()?;
    let text = String::from_utf8(output.stdout)?;
    let (per_second, micros) = text.trim().split_once(' ').ok_or("no measurement")?;
    Ok(Speed { per_second: per_second.parse()?, micros: micros.parse()? })
}

struct Key {
    pair: EcdsaKeyPair,
    header: String,
}

impl Key {
    fn new() -> Outcome<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| "no key")?;
        let point = pair.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| point.get(range).map(|part| URL_SAFE_NO_PAD.encode(part));
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": part(1..33), "y": part(33..65)});
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}).to_string();
        Ok(Self { header: URL_SAFE_NO_PAD.encode(header), pair })
    }

    fn proof(&self, method: &str, url: &str, nonce: Option<&str>, number: u64) -> Outcome<String> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let mut claims = json!({"jti": format!("load-{number:016x}"), "htm": method, "htu": url, "iat": now});
        if let (Some(nonce), Some(claims)) = (nonce, claims.as_object_mut()) {
            claims.insert("nonce".to_owned(), nonce.into());
        }
        let message = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).map_err(|_| "no signature")?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }
}

/// The service under load, with a configuration of its own, and another that plays the check service.
struct Service {
    child: Child,
    simulators: Child,
    url: String,
    config: PathBuf,
}

const SITE_KEY: &str = "load";
/// Where browsers would find it: what proofs are about.
const PUBLIC: &str = "http://load.example";
const HCAPTCHA_SITE_KEY: &str = "10000000-ffff-ffff-ffff-000000000001";

impl Service {
    fn start(binary: Option<&PathBuf>) -> Outcome<Self> {
        // Next to the directory of examples, where cargo puts it.
        let next_to_examples = std::env::current_exe()?.with_file_name("../approov-web-service");
        let binary = binary.unwrap_or(&next_to_examples);
        let (simulators, simulated) = announced(Command::new(binary).args(["serve", "--dev"]))?;
        let config = std::env::temp_dir().join(format!("approov-load-{}.toml", std::process::id()));
        // Not through a link that somebody else put there.
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&config)?;
        std::io::Write::write_all(
            &mut file,
            format!(
                "public_urls = [\"{PUBLIC}\"]\nsession_secret = \"{secret}\"\n\
                 [limits]\nreplay_entries = {REMEMBERED}\nrefreshes_per_minute = 0\nlive_proofs = 0\n\
                 [[account]]\nsite_key = \"{SITE_KEY}\"\nsecret = \"{secret}\"\n\
                 [[account.api]]\ndomain = \"localhost\"\nallow_web = true\n\
                 [[account.hcaptcha.site]]\nsite_key = \"{HCAPTCHA_SITE_KEY}\"\nsecret = \"0x{zeros}\"\n\
                 verify_url = \"{simulated}/sim/hcaptcha/siteverify\"\n",
                secret = base64::engine::general_purpose::STANDARD.encode([7; 32]),
                zeros = "0".repeat(40),
            )
            .as_bytes(),
        )?;
        let (child, url) = announced(on_first_core(binary).args(["serve", "--config"]).arg(&config))?;
        Ok(Self { child, simulators, url, config })
    }

    /// Resident memory, MiB. (`taskset` has become the service by `exec`.)
    fn resident(&self) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // They may have ended already.
        for child in [&mut self.child, &mut self.simulators] {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(&self.config);
    }
}

/// Starts a service; gives the process and its URL.
fn announced(command: &mut Command) -> Outcome<(Child, String)> {
    let mut child = command.args(["--json", "--quiet", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let out = child.stdout.take().ok_or("no output")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
    let announced: Value = serde_json::from_str(&line)?;
    let url = announced.get("url").and_then(Value::as_str).ok_or("no url")?;
    Ok((child, url.to_owned()))
}

async fn run(options: &Options) -> Outcome<()> {
    let earlier = bare_verification()?;
    let service = Service::start(options.service.as_ref())?;
    let url = format!("{PUBLIC}/attest");
    let address = service.url.trim_start_matches("http://").to_owned();
    let key = Key::new()?;
    let mut number = 0;
    let mut connection = TcpStream::connect(&address).await?;
    let mut nonce = ask_nonce(&mut connection, &key, &url, &address).await?;
    let form = |session: &str| format!("approov-site-key={SITE_KEY}&api=localhost&{session}");
    let result = format!("hcaptcha-site-key={HCAPTCHA_SITE_KEY}&hcaptcha-token=sim-pass-load");
    let first = request(&address, &key.proof("POST", &url, Some(&nonce), number)?, &form(&result));
    let response = exchange(&mut connection, &first).await?;
    let response: Value = serde_json::from_str(response.split("\r\n\r\n").nth(1).unwrap_or_default())?;
    let session = response.get("refresh-token").and_then(Value::as_str).ok_or("no session")?;
    let body = form(&format!("refresh-token={session}"));

    let (mut done, mut spent, mut times) = (0, Duration::ZERO, Vec::with_capacity(options.requests));
    let mut resident = Vec::new();
    let pid = service.child.id().to_string();
    let busy = processor_time(&pid)?;
    while done < options.requests {
        let requests: Vec<Vec<u8>> = (0..ROUND.min(options.requests - done))
            .map(|_| {
                number += 1;
                Ok(request(&address, &key.proof("POST", &url, Some(&nonce), number)?, &body))
            })
            .collect::<Outcome<_>>()?;
        let begun = Instant::now();
        let chunk = requests.len().div_ceil(options.connections);
        let mut tasks = Vec::new();
        for part in requests.chunks(chunk) {
            let (part, address) = (part.to_vec(), address.clone());
            tasks.push(tokio::spawn(async move { send_all(&address, &part).await }));
        }
        for task in tasks {
            times.extend(task.await??);
        }
        spent += begun.elapsed();
        done += requests.len();
        // Until the store is full, memory grows as it should.
        if done > REMEMBERED || done >= options.requests {
            resident.push(service.resident()?);
        }
        nonce = ask_nonce(&mut connection, &key, &url, &address).await?;
    }
    resident.push(service.resident()?);
    let (before, after) = resident.split_at(resident.len() / 2);
    let (before, after) = (median(before), median(after));
    let micros = (processor_time(&pid)? - busy) * 1e6 / f64::from(u32::try_from(done)?);
    let later = bare_verification()?;
    let bare = Speed {
        per_second: (earlier.per_second + later.per_second) / 2.0,
        micros: (earlier.micros + later.micros) / 2.0,
    };
    times.sort_unstable();
    let percentile = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).copied();
    let rate = f64::from(u32::try_from(done)?) / spent.as_secs_f64();
    let millis = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1000.0;
    let report = json!({
        "requests": done,
        "connections": options.connections,
        "service_cores": 1,
        "refresh_per_second": rate.round(),
        "p50_ms": millis(percentile(50)),
        "p99_ms": millis(percentile(99)),
        "es256_verifications_per_second": bare.per_second.round(),
        "ratio": rate / bare.per_second,
        "processor_micros_per_request": micros,
        "processor_micros_per_verification": bare.micros,
        "processor_ratio": bare.micros / micros,
        "resident_mib_before": before,
        "resident_mib_after": after,
    });
    if options.json {
        println!("{report}");
    } else {
        println!("refresh requests      {rate:>10.0} per second, on one core, {done} in all");
        println!("  p50, p99            {:>10.2} ms, {:.2} ms", millis(percentile(50)), millis(percentile(99)));
        println!("bare ES256 verify     {:>10.0} per second, on the same core", bare.per_second);
        println!("ratio by the clock    {:>10.2}", rate / bare.per_second);
        println!("processor time        {micros:>10.1} µs per request, {:.1} µs per verification", bare.micros);
        println!("ratio by it           {:>10.2}", bare.micros / micros);
        println!("resident memory       {:>10.1} MiB in the first half, {after:.1} MiB in the second", before);
    }
    Ok(())
}

/// Memory swings by a tenth while the service forgets old proofs, so one reading says little.
fn median(readings: &[f64]) -> f64 {
    let mut sorted = readings.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn request(address: &str, proof: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /attest HTTP/1.1\r\nhost: {address}\r\ndpop: {proof}\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn ask_nonce(connection: &mut TcpStream, key: &Key, url: &str, address: &str) -> Outcome<String> {
    let proof = key.proof("GET", url, None, 0)?;
    let request = format!("GET /attest HTTP/1.1\r\nhost: {address}\r\ndpop: {proof}\r\n\r\n");
    let response = exchange(connection, request.as_bytes()).await?;
    let nonce = response.lines().find_map(|line| line.strip_prefix("dpop-nonce: "));
    Ok(nonce.ok_or("no nonce")?.to_owned())
}

/// One request and its response.
async fn exchange(connection: &mut TcpStream, request: &[u8]) -> Outcome<String> {
    connection.write_all(request).await?;
    let mut response = Vec::with_capacity(4096);
    loop {
        if connection.read_buf(&mut response).await? == 0 {
            return Err("the connection ended".into());
        }
        let text = String::from_utf8_lossy(&response);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() >= length.parse()? {
            return Ok(text.into_owned());
        }
    }
}

/// Sends requests one after the other; gives the time each took.
async fn send_all(address: &str, requests: &[Vec<u8>]) -> Outcome<Vec<Duration>> {
    let mut connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    let mut times = Vec::with_capacity(requests.len());
    for request in requests {
        let begun = Instant::now();
        let response = exchange(&mut connection, request).await?;
        times.push(begun.elapsed());
        if !response.starts_with("HTTP/1.1 200 ") {
            return Err(format!("refused: {response}").into());
        }
    }
    Ok(times)
}
