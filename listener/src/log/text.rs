//! What clients choose, made fit for a line: short, and without characters that a terminal or a viewer obeys.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character steers terminals or changes the direction of text: C0, DEL, C1, line and paragraph separators,
/// and Unicode's bidirectional controls.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// The first `max` characters; an ellipsis says that there were more.
pub(super) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(text.get(..end).unwrap_or_default().to_owned() + "…"),
    }
}

/// Text with its steering characters as `\u{9b}`.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if steers(character) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{{{:x}}}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// JSON with its steering characters as `\u009b`. JSON writers escape C0 only; outside of strings there are none.
pub(super) fn escape_json(json: String) -> String {
    if !json.contains(steers) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if steers(character) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_or_turns_text_around_is_escaped() {
        for steering in
            ['\0', '\n', '\r', '\u{1b}', '\u{7f}', '\u{80}', '\u{9b}', '\u{9f}', '\u{2028}', '\u{202e}', '\u{2066}']
        {
            let text = format!("a{steering}b");
            assert_eq!(escape(&text), format!("a\\u{{{:x}}}b", u32::from(steering)));
            let json = escape_json(serde_json::to_string(&text).unwrap());
            assert!(!json.contains(steering), "{json}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
        for plain in ["", "/attest", "größe", "日本", "🙂", "a b"] {
            assert_eq!(escape(plain), plain);
            assert_eq!(escape_json(plain.to_owned()), plain);
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöü", 2), "äö…");
    }
}
