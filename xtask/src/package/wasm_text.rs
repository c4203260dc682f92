//! The WebAssembly as text in the one-file build.
//!
//! The text is printable ASCII that can stand between double quotes in JavaScript, also in a script inside a page, and survives
//! editors, version control and whatever guesses encodings. The most frequent bytes are one character each; the others are two, of
//! which the first is one of the last characters of the alphabet. After brotli this costs 3 % over the bare bytes, hexadecimal 7 %,
//! base64 39 %.

use std::cmp::Reverse;
use std::fmt::Write as _;

use anyhow::{Context, Result};

/// So many bytes are one character each: with the two characters that are left, the pairs reach all others.
const SINGLES: usize = 90;

/// `wasm-source.js` of the one-file build: reads the text. [`with_bytes`] adds the function that has it to the end of the bundle.
pub(crate) const SOURCE: &str = r"/** The bytes of the WebAssembly module. */
export default async function wasmSource() {
  const [frequent, text] = approovWasm()
  const values = frequent.match(/../g).map(hex => parseInt(hex, 16))
  const singles = values.length
  for (let value = 0; value < 256; value++) if (!values.includes(value)) values.push(value)
  // From the space to the tilde, but for the quotation mark, the less-than sign and the backslash.
  const index = code => code - 32 - (code > 34) - (code > 60) - (code > 92)
  const bytes = new Uint8Array(text.length)
  let length = 0
  for (let i = 0; i < text.length; i++) {
    let at = index(text.charCodeAt(i))
    if (at >= singles) at = (at - singles + 1) * singles + index(text.charCodeAt(++i))
    bytes[length++] = values[at]
  }
  return bytes.slice(0, length)
}
";

/// The bundle with the function that [`SOURCE`] calls, after everything that the source map covers.
pub(crate) fn with_bytes(bundle: &str, bytes: &[u8]) -> Result<String> {
    let (frequent, text) = encoded(bytes)?;
    with_appendix(bundle, &format!("function approovWasm(){{return[\"{frequent}\",\"{text}\"]}}\n"))
}

/// The bundle with more code after everything that the source map covers.
pub(super) fn with_appendix(bundle: &str, appendix: &str) -> Result<String> {
    let (code, comment) = bundle.rsplit_once("//# sourceMappingURL=").context("the bundle names no source map")?;
    Ok(format!("{code}{appendix}//# sourceMappingURL={comment}"))
}

/// The frequent bytes in hexadecimal, and the text.
fn encoded(bytes: &[u8]) -> Result<(String, String)> {
    let signs: Vec<char> = (' '..='~').filter(|sign| !matches!(sign, '"' | '<' | '\\')).collect();
    let mut values: Vec<u8> = (0..=u8::MAX).collect();
    values.sort_by_cached_key(|value| Reverse(bytes.iter().filter(|byte| *byte == value).count()));
    // Each group in the order of the bytes: brotli sees the neighbourhood.
    let (frequent, rest) = values.split_at_mut(SINGLES);
    frequent.sort_unstable();
    rest.sort_unstable();
    let mut head = String::new();
    for value in &*frequent {
        write!(head, "{value:02x}")?;
    }
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        let index = values.iter().position(|value| value == byte).context("a byte without a code")?;
        if index >= SINGLES {
            text.push(*signs.get(SINGLES + index / SINGLES - 1).context("too few characters for pairs")?);
        }
        text.push(*signs.get(index % SINGLES).context("too few characters")?);
    }
    Ok((head, text))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn every_byte_comes_back_from_the_text() {
        let bytes: Vec<u8> = (0..=u8::MAX).chain(0..=u8::MAX).chain([0; 9]).chain([255; 9]).collect();
        let bundle = with_bytes("//# sourceMappingURL=a.js.map\n", &bytes).unwrap();
        let source = SOURCE.replace("export default ", "");
        let script = format!("{source}\n{bundle}\nwasmSource().then(bytes => console.log(JSON.stringify([...bytes])))");
        let output = Command::new("node").args(["-e", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read: Vec<u8> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(read, bytes);
    }

    #[test]
    fn the_text_stands_between_quotes_and_before_the_source_map() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let bundle = with_bytes("code\n//# sourceMappingURL=a.js.map\n", &bytes).unwrap();
        assert!(
            bundle.starts_with("code\nfunction approovWasm(){return[\"")
                && bundle.ends_with("\"]}\n//# sourceMappingURL=a.js.map\n")
        );
        let (_, text) = encoded(&bytes).unwrap();
        assert!(text.chars().all(|sign| matches!(sign, ' '..='~') && !matches!(sign, '"' | '<' | '\\')), "{text}");
        assert!(with_bytes("code", &[]).is_err());
    }
}
