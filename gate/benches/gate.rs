//! A gateway's question, and the signature checks that are its floor: `cargo bench -p approov-gate`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "a benchmark fails by panicking"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use support::session::{SECRET, Session};
use support::{Gate, configuration};

/// What a process has used of the processor.
fn processor_time(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // utime and stime, in hundredths of a second (proc(5)).
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// A gateway that is busy has questions under way on several connections.
const CONNECTIONS: usize = 16;

/// A connection of a gateway that keeps its connections.
struct Gateway(TcpStream);

impl Gateway {
    fn ask(&mut self, token: &str, proof: &str) {
        let question = format!(
            "GET /forward-auth HTTP/1.1\r\nHost: gate\r\nX-Forwarded-Method: POST\r\nX-Forwarded-Uri: /shapes\r\n\
             X-Forwarded-Host: api.shop.co\r\nApproov-Token: {token}\r\nDPoP: {proof}\r\nUser-Agent: a browser\r\nAccept: */*\r\n\r\n"
        );
        self.0.write_all(question.as_bytes()).unwrap();
    }

    fn hear(&mut self) {
        let mut response = [0; 8192];
        let length = self.0.read(&mut response).unwrap();
        let response = String::from_utf8_lossy(&response[..length]);
        assert!(response.starts_with("HTTP/1.1 200") && response.contains("\r\n\r\n"), "{response}");
    }
}

fn benchmarks(criterion: &mut Criterion) {
    let session = Session::new();
    // More proofs than a memory of the default size forgets in time are not asked for.
    let gate = Gate::start_quietly(&configuration("", "[store]\ncapacity = 4000000"));
    let address = gate.url.strip_prefix("http://").unwrap().to_owned();
    let mut gateway: Vec<Gateway> = (0..CONNECTIONS)
        .map(|_| {
            let connection = TcpStream::connect(&address).unwrap();
            connection.set_nodelay(true).unwrap();
            Gateway(connection)
        })
        .collect();
    criterion.bench_function("gate: a question over HTTP, processor time", |bencher| {
        bencher.iter_custom(|iterations| {
            let proofs: Vec<String> =
                (0..iterations).map(|_| session.proof("POST", "https://api.shop.co/shapes")).collect();
            let begun = processor_time(gate.id());
            for proofs in proofs.chunks(CONNECTIONS) {
                for (connection, proof) in gateway.iter_mut().zip(proofs) {
                    connection.ask(session.token(), proof);
                }
                gateway.iter_mut().take(proofs.len()).for_each(Gateway::hear);
            }
            (processor_time(gate.id()) - begun).max(Duration::from_nanos(1))
        });
    });

    let proof = session.proof("POST", "https://api.shop.co/shapes");
    let parts = |text: &str| {
        let (signed, signature) = text.rsplit_once('.').unwrap();
        (signed.to_owned(), URL_SAFE_NO_PAD.decode(signature).unwrap())
    };
    let (token_text, tag) = parts(session.token());
    let (proof_text, signature) = parts(&proof);
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(SECRET).unwrap());
    let point = session.point();
    criterion.bench_function("bare signatures of token and proof", |bencher| {
        bencher.iter(|| {
            hmac::verify(&secret, black_box(token_text.as_bytes()), &tag).unwrap();
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, black_box(&point));
            key.verify(proof_text.as_bytes(), &signature).unwrap();
        });
    });
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);
