//! One secret, and where it is kept.

use std::fmt;
use std::path::{Path, PathBuf};

use approov_verify::secret::Secret;

use crate::settings::{ConfigError, Read};

/// The longest text that is read as a secret, bytes. A PEM key is the longest that makes sense.
const MAX_SECRET_BYTES: usize = 64 * 1024;

/// What a secret is for, and so how its text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// Key material in base64, 32 bytes or more.
    Key,
    /// A key of exactly 32 bytes in base64.
    Key32,
    /// A text that somebody else gave out.
    Text,
    /// A private key as PEM.
    Pem,
}

impl SecretKind {
    /// Reads a secret's text; white space around it means nothing.
    ///
    /// # Errors
    /// What was expected. The text is not repeated: it is a secret, even when it is a wrong one.
    pub fn read(self, text: &str) -> Result<Secret, &'static str> {
        let text = text.trim();
        match self {
            SecretKind::Key | SecretKind::Key32 => {
                let secret = Secret::from_base64(text).map_err(|_| "must be base64 or base64url")?;
                match (self, secret.as_bytes().len()) {
                    (_, 32) | (SecretKind::Key, 33..) => Ok(secret),
                    (SecretKind::Key, _) => Err("must decode to at least 32 bytes"),
                    _ => Err("must be exactly 32 bytes in base64 (A256GCMKW)"),
                }
            }
            SecretKind::Text if text.is_empty() => Err("must not be empty"),
            SecretKind::Text if text.chars().any(char::is_control) => Err("must be one line of printable characters"),
            SecretKind::Pem if text.is_empty() => Err("must be a PEM key"),
            SecretKind::Text | SecretKind::Pem => Ok(Secret::from_bytes(text.as_bytes().to_vec())),
        }
    }
}

/// A place outside of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => write!(f, "the file {}", path.display()),
            Place::Variable(name) => write!(f, "the environment variable {name}"),
        }
    }
}

/// What is kept outside of the configuration file.
pub trait Outside {
    /// What a place holds.
    ///
    /// # Errors
    /// Why it cannot be had, as in "the file X …".
    fn read(&self, place: &Place) -> Result<Vec<u8>, String>;
}

impl<F: Fn(&Place) -> Result<Vec<u8>, String>> Outside for F {
    fn read(&self, place: &Place) -> Result<Vec<u8>, String> {
        self(place)
    }
}

/// The environment and the files of this process.
pub struct ProcessEnvironment;

impl Outside for ProcessEnvironment {
    fn read(&self, place: &Place) -> Result<Vec<u8>, String> {
        match place {
            Place::File(path) => read_file(path).map_err(|error| format!("cannot be read: {error}")),
            Place::Variable(name) => match std::env::var_os(name) {
                Some(value) => Ok(std::os::unix::ffi::OsStringExt::into_vec(value)),
                None => Err("is not set".to_owned()),
            },
        }
    }
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    // One byte more than is taken, so that a longer file is noticed.
    let limit = u64::try_from(MAX_SECRET_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A secret as the configuration has it.
#[derive(Clone)]
pub struct KeptSecret {
    kind: SecretKind,
    held: Held,
    /// Where in the configuration file.
    position: Option<(usize, usize)>,
}

#[derive(Clone)]
enum Held {
    Here(Secret),
    Elsewhere(Place),
}

impl fmt::Debug for KeptSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place() {
            None => write!(f, "KeptSecret({:?})", self.kind),
            Some(place) => write!(f, "KeptSecret({:?} in {place})", self.kind),
        }
    }
}

impl KeptSecret {
    /// A secret that the configuration itself holds.
    pub fn here(kind: SecretKind, secret: Secret) -> Self {
        Self { kind, held: Held::Here(secret), position: None }
    }

    /// A secret that somebody else keeps.
    pub fn elsewhere(kind: SecretKind, place: Place) -> Self {
        Self { kind, held: Held::Elsewhere(place), position: None }
    }

    pub(super) fn at(mut self, position: (usize, usize)) -> Self {
        self.position = Some(position);
        self
    }

    /// Where it is, if not in the configuration file.
    pub fn place(&self) -> Option<&Place> {
        match &self.held {
            Held::Here(_) => None,
            Held::Elsewhere(place) => Some(place),
        }
    }

    /// The secret, if the configuration itself holds it.
    pub fn held_here(&self) -> Option<&Secret> {
        match &self.held {
            Held::Here(secret) => Some(secret),
            Held::Elsewhere(_) => None,
        }
    }

    /// The secret, wherever it is.
    ///
    /// # Errors
    /// When its place cannot be read, or holds something that is not such a secret.
    pub fn resolve(&self, outside: &dyn Outside) -> Read<Secret> {
        let place = match &self.held {
            Held::Here(secret) => return Ok(secret.clone()),
            Held::Elsewhere(place) => place,
        };
        let unusable = |why: &str| self.error(format!("{place} {why}"));
        let bytes = zeroize::Zeroizing::new(outside.read(place).map_err(|why| unusable(&why))?);
        if bytes.len() > MAX_SECRET_BYTES {
            return Err(unusable("is too long for a secret"));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| unusable("is not UTF-8 text"))?;
        self.kind.read(text).map_err(unusable)
    }

    /// A fault of this secret, which is said to be where the configuration has it.
    pub fn error(&self, message: String) -> ConfigError {
        ConfigError { position: self.position, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn resolve(kind: SecretKind, holds: &[u8]) -> Result<Secret, String> {
        let kept = KeptSecret::elsewhere(kind, Place::Variable("NAME".to_owned()));
        kept.resolve(&|_: &Place| Ok(holds.to_vec())).map_err(|error| error.to_string())
    }

    #[test]
    fn white_space_around_a_secret_is_not_part_of_it() {
        for text in ["0xabc\n", "0xabc\r\n", " 0xabc", "\n0xabc\n\n"] {
            assert_eq!(resolve(SecretKind::Text, text.as_bytes()).unwrap().as_bytes(), b"0xabc", "{text:?}");
        }
        assert_eq!(resolve(SecretKind::Key, format!("{KEY}\n").as_bytes()).unwrap().as_bytes().len(), 32);
    }

    #[test]
    fn a_place_that_holds_no_usable_secret_is_named_and_its_text_is_not() {
        let long = "x".repeat(MAX_SECRET_BYTES + 1);
        for (kind, holds, why) in [
            (SecretKind::Text, b"".as_slice(), "must not be empty"),
            (SecretKind::Text, b" \n", "must not be empty"),
            (SecretKind::Text, b"hunter2\nhunter3", "must be one line of printable characters"),
            (SecretKind::Text, b"\xff\xfe", "is not UTF-8 text"),
            (SecretKind::Text, long.as_bytes(), "is too long for a secret"),
            (SecretKind::Key, b"aHVudGVyMg==", "must decode to at least 32 bytes"),
            (SecretKind::Key, b"hunter 2", "must be base64 or base64url"),
            (SecretKind::Key32, b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gIQ==", "must be exactly 32 bytes"),
        ] {
            let error = resolve(kind, holds).unwrap_err();
            assert!(error.starts_with("the environment variable NAME "), "{error}");
            assert!(error.contains(why) && !error.contains("hunter") && !error.contains("aHVu"), "{error}");
        }
        let missing = KeptSecret::elsewhere(SecretKind::Text, Place::File("/nowhere/at/all".into())).at((3, 7));
        let error = missing.resolve(&ProcessEnvironment).unwrap_err();
        assert_eq!(error.position, Some((3, 7)));
        assert!(error.message.starts_with("the file /nowhere/at/all cannot be read: "), "{error}");
    }

    #[test]
    fn a_secret_is_not_printed() {
        let kept = KeptSecret::here(SecretKind::Text, Secret::from_bytes(b"hunter2".to_vec()));
        assert_eq!(format!("{kept:?}"), "KeptSecret(Text)");
    }
}
