//! Reads a JSON list of [htu, url] or [htu, public URL, request target] from standard input, and prints the verdicts:
//! whether a proof for the first is one for the request. For the test that compares the implementations
//! (`python/tests/test_agreement.py`).

use approov_verify::PublicUrl;
use approov_verify::uri::HttpUri;
use std::error::Error;
use std::io;

fn is_same_url(htu: &str, url: &str) -> bool {
    HttpUri::of_request(url).is_ok_and(|url| HttpUri::parse(htu).is_ok_and(|htu| htu == url))
}

fn verdict(texts: &[String]) -> Result<Option<bool>, Box<dyn Error>> {
    match texts {
        [htu, url] => Ok(Some(is_same_url(htu, url))),
        [htu, public_url, target] => {
            let url =
                PublicUrl::parse(public_url).map_err(|cause| format!("{public_url}: {cause}"))?.request_url(target);
            Ok(url.ok().map(|url| is_same_url(htu, &url)))
        }
        _ => Err("two or three texts are needed".into()),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let pairs: Vec<Vec<String>> = serde_json::from_reader(io::stdin())?;
    let verdicts: Result<Vec<_>, _> = pairs.iter().map(|texts| verdict(texts)).collect();
    println!("{}", serde_json::to_string(&verdicts?)?);
    Ok(())
}
