//! The edge of the service: who calls, by which name, from which page.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::*;

async fn metrics(process: &Process) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("{}/metrics", process.operations)).send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn a_forwarding_header_of_a_stranger_is_counted_and_said_once() {
    let mut process = Process::start(&["--dev"]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (name, value) in [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9"), ("x-other", "1")] {
        client.get(format!("{}/healthz", process.url)).header(name, value).send().await.unwrap();
    }
    let line = process.wait_for_log(|line| line["event"] == "forwarding");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("127.0.0.1") && message.contains("trusted_proxies"), "{message}");
    process.wait_for_logs(3, |line| line["path"] == "/healthz");
    let said = process.logged().iter().filter(|line| line.contains("\"forwarding\"")).count();
    assert_eq!(said, 1);
    let expected = "approov_forwarding_faults_total{reason=\"untrusted\"} 2";
    let metrics = metrics(&process).await;
    assert!(metrics.lines().any(|line| line == expected), "{metrics}");
}
