//! Session keys: a non-extractable WebCrypto key, or one in WebAssembly memory.

use js_sys::{Promise, Reflect, Uint8Array};
use wasm_bindgen::JsValue;

use super::Failure;
use super::built_ins::{self, settled, to_vec};
use crate::altcha::Challenge;
use crate::config::KeyStorage;
use crate::error::{Code, Error};
use crate::jws::PublicKey;
#[cfg(feature = "wasm-key")]
use crate::key::SessionKey;

/// A session's private key.
pub(super) enum Key {
    WebCrypto(JsValue),
    #[cfg(feature = "wasm-key")]
    Wasm(SessionKey),
}

/// Generates a session key in the configured place.
///
/// # Errors
/// `unsupported` if the browser cannot hold such a key.
pub(super) async fn generate(storage: KeyStorage) -> Result<(Key, PublicKey), Failure> {
    match storage {
        KeyStorage::WebCrypto => generate_in_webcrypto().await,
        KeyStorage::Wasm => generate_in_wasm(),
        KeyStorage::Auto => match generate_in_webcrypto().await {
            Ok(key) => Ok(key),
            // The page is not secure, or the webview is an odd one: WebCrypto's error is only of interest if neither works.
            Err(failure) => generate_in_wasm().map_err(|_| failure),
        },
    }
}

/// Draws random bytes.
///
/// # Errors
/// `unsupported` where there is no `crypto.getRandomValues`.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    built_ins::get_random_values(&mut bytes).map_err(|cause| {
        Failure::caused_by(Error::new(Code::Unsupported, &["this browser has no crypto.getRandomValues"]), cause)
    })?;
    Ok(bytes)
}

/// Derives the keys of so many counters of a challenge, one after the other.
///
/// # Errors
/// `unsupported` where there is no WebCrypto, with what it threw as the cause.
pub(super) async fn derive_keys(challenge: &Challenge, first: u32, count: u32) -> Result<Vec<u8>, Failure> {
    let unsupported = |cause| {
        let what = "this page cannot solve an ALTCHA challenge: it has no WebCrypto (crypto.subtle), which needs https";
        Failure::caused_by(Error::new(Code::Unsupported, &[what]), cause)
    };
    let (nonce, salt) = (Uint8Array::from(&*challenge.nonce), Uint8Array::from(&*challenge.salt));
    let keys = built_ins::derive_keys(&nonce, &salt, challenge.cost, first, count).map_err(unsupported)?;
    let keys = settled(&keys).await.map_err(unsupported)?;
    Ok(to_vec(&Uint8Array::new(&keys)))
}

impl Key {
    /// The key, if WebCrypto has it.
    pub(super) fn as_webcrypto(&self) -> Option<&JsValue> {
        match self {
            Key::WebCrypto(key) => Some(key),
            #[cfg(feature = "wasm-key")]
            Key::Wasm(_) => None,
        }
    }

    /// Signs with ECDSA P-256 over SHA-256. Returns the promise of an `ArrayBuffer`: r and s, 32 bytes each.
    ///
    /// # Errors
    /// `internal` with what WebCrypto threw as the cause.
    pub(super) fn sign(&self, message: &Uint8Array) -> Result<Promise, Failure> {
        let signature = match self {
            Key::WebCrypto(private_key) => built_ins::sign(private_key, message).map_err(could_not_sign)?,
            #[cfg(feature = "wasm-key")]
            Key::Wasm(key) => {
                let failed = || Error::new(Code::Internal, &["the session key could not sign"]);
                Uint8Array::from(key.sign(&to_vec(message)).ok_or_else(failed)?.as_slice()).buffer().into()
            }
        };
        // WebCrypto may be a wrapper by the page: what it returns is not assumed to be a promise.
        Ok(Promise::resolve(&signature))
    }
}

/// The failure of a signature.
pub(super) fn could_not_sign(cause: JsValue) -> Failure {
    Failure::caused_by(Error::new(Code::Internal, &["WebCrypto could not sign"]), cause)
}

async fn generate_in_webcrypto() -> Result<(Key, PublicKey), Failure> {
    let unsupported = |what| Error::new(Code::Unsupported, &[what]);
    let no_webcrypto =
        || unsupported("this page has no WebCrypto (crypto.subtle): it needs https, or the option keyStorage: 'wasm'");
    let generate = async {
        let pair = settled(&built_ins::generate_key()?).await?;
        let private_key = Reflect::get(&pair, &"privateKey".into())?;
        let public_key = settled(&built_ins::export_key(&Reflect::get(&pair, &"publicKey".into())?)?).await?;
        let is_extractable = built_ins::is_extractable(&private_key)?;
        Ok((private_key, to_vec(&Uint8Array::new(&public_key)), is_extractable))
    };
    let (private_key, public_key, is_extractable) =
        generate.await.map_err(|cause| Failure::caused_by(no_webcrypto(), cause))?;
    if is_extractable {
        return Err(
            unsupported("this page's WebCrypto makes keys that can be exported: a script has replaced it").into()
        );
    }
    let public_key = PublicKey::from_uncompressed_point(&public_key).ok_or_else(no_webcrypto)?;
    Ok((Key::WebCrypto(private_key), public_key))
}

#[cfg(feature = "wasm-key")]
fn generate_in_wasm() -> Result<(Key, PublicKey), Failure> {
    // One draw in 2^32 is not a scalar of P-256; several in a row mean a broken random number generator.
    for _ in 0..4 {
        if let Some(key) = SessionKey::from_random(&zeroize::Zeroizing::new(random()?)) {
            let public_key = key.public_key();
            return Ok((Key::Wasm(key), public_key));
        }
    }
    Err(Error::new(Code::Internal, &["the browser's random numbers are not random"]).into())
}

#[cfg(not(feature = "wasm-key"))]
fn generate_in_wasm() -> Result<(Key, PublicKey), Failure> {
    Err(Error::new(Code::Unsupported, &["this build of the SDK has no keyStorage: 'wasm'"]).into())
}
