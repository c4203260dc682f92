//! Names and units of what is measured: subjects, engines, numbers for people.

use super::series::Summary;

/// The SDK with its default key, and with the key in WebAssembly memory.
pub(crate) const AUTO: &str = "ours (auto)";
pub(crate) const WASM: &str = "ours (wasm)";

/// How the engines are called.
pub(crate) const ENGINES: [(&str, &str); 3] =
    [("chromium", "Chromium"), ("firefox", "Firefox"), ("webkit", "WebKitGTK")];

/// Who makes proofs, and how they are called.
pub(crate) const PROVERS: [(&str, &str); 6] = [
    (AUTO, "this SDK, default key"),
    (WASM, "this SDK, keyStorage: 'wasm'"),
    ("ours (compat)", "this SDK, without WebAssembly"),
    ("dpop", "npm dpop"),
    ("jose", "npm jose"),
    ("noble", "@noble/curves"),
];

/// A median, with its quartiles where they differ from it.
pub(crate) fn spread(summary: &Summary, unit: &str) -> String {
    let median = quantity(summary.median, unit);
    let [lower, upper] = [summary.lower, summary.upper].map(|value| number(value, unit));
    if lower == upper { median } else { format!("{median} ({lower}–{upper})") }
}

/// A number with its unit.
pub(crate) fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => format!("{} kB", number(value, unit)),
        "per second" => format!("{}/s", number(value, unit)),
        "requests" if value == 1.0 => "1 request".to_owned(),
        "" => number(value, unit),
        _ => format!("{} {unit}", number(value, unit)),
    }
}

/// A number as precise as its size makes sense of. Bytes are shown in thousands.
fn number(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => format!("{:.1}", value / 1000.0),
        "requests" => format!("{value:.0}"),
        _ if value.abs() >= 1000.0 => thousands(value),
        _ if value.abs() >= 100.0 => format!("{value:.0}"),
        _ if value.abs() >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A whole number with its thousands apart.
fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "−" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_precise_as_their_size_makes_sense_of() {
        assert_eq!(quantity(8_359.4, "per second"), "8,359/s");
        assert_eq!(quantity(1_234_567.0, "per second"), "1,234,567/s");
        assert_eq!(quantity(45_000.0, "bytes"), "45.0 kB");
        assert_eq!(quantity(6.994, "µs"), "6.99 µs");
        assert_eq!(quantity(18.11, "ms"), "18.1 ms");
        assert_eq!(quantity(1.0, "requests"), "1 request");
        assert_eq!(quantity(3.0, "requests"), "3 requests");
    }

    #[test]
    fn a_spread_is_shown_only_where_there_is_one() {
        assert_eq!(spread(&Summary { median: 2.0, lower: 1.0, upper: 3.0 }, "ms"), "2.00 ms (1.00–3.00)");
        assert_eq!(spread(&Summary { median: 2.0, lower: 2.0, upper: 2.0 }, "ms"), "2.00 ms");
    }
}
