//! Session keys: a non-extractable WebCrypto key, or one in WebAssembly memory.

use js_sys::{Array, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{CryptoKey, CryptoKeyPair, SubtleCrypto};

use super::Failure;
use super::convert::object;
use super::global::global;
use crate::config::KeyStorage;
use crate::error::{Code, Error};
use crate::jws::PublicKey;
#[cfg(feature = "wasm-key")]
use crate::key::SessionKey;

/// A session's private key.
pub(super) enum Key {
    WebCrypto {
        subtle: SubtleCrypto,
        private_key: CryptoKey,
        algorithm: Object,
    },
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

/// Draws random bytes into a JavaScript buffer, so that no view of WebAssembly memory is passed to the page's `crypto`.
///
/// # Errors
/// `unsupported` where there is no `crypto.getRandomValues`.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let unsupported = || Error::new(Code::Unsupported, &["this browser has no crypto.getRandomValues"]);
    let length = u32::try_from(N).map_err(|_| Error::new(Code::Internal, &["too many random bytes"]))?;
    let buffer = Uint8Array::new_with_length(length);
    let crypto = global().crypto().ok_or_else(unsupported)?;
    crypto
        .get_random_values_with_array_buffer_view(&buffer)
        .map_err(|cause| Failure::caused_by(unsupported(), cause))?;
    let mut bytes = [0; N];
    buffer.copy_to(&mut bytes);
    Ok(bytes)
}

impl Key {
    /// Signs with ECDSA P-256 over SHA-256. Returns the promise of an `ArrayBuffer`: r and s, 32 bytes each.
    ///
    /// # Errors
    /// `internal` with what WebCrypto threw as the cause.
    pub(super) fn sign(&self, message: &Uint8Array) -> Result<Promise, Failure> {
        let signature: JsValue = match self {
            Key::WebCrypto { subtle, private_key, algorithm } => subtle
                .sign_with_object_and_buffer_source(algorithm, private_key, message)
                .map_err(could_not_sign)?
                .into(),
            #[cfg(feature = "wasm-key")]
            Key::Wasm(key) => {
                let failed = || Error::new(Code::Internal, &["the session key could not sign"]);
                Uint8Array::from(key.sign(&message.to_vec()).ok_or_else(failed)?.as_slice()).buffer().into()
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
    let unsupported = || {
        Error::new(
            Code::Unsupported,
            &["this page has no WebCrypto (crypto.subtle): it needs https, or the option keyStorage: 'wasm'"],
        )
    };
    let subtle = global().crypto().and_then(|crypto| subtle(&crypto)).ok_or_else(unsupported)?;
    let generate = async {
        let parameters = object(&[("name", &"ECDSA".into()), ("namedCurve", &"P-256".into())]);
        let usages = Array::of1(&"sign".into());
        let pair = JsFuture::from(subtle.generate_key_with_object(&parameters, false, &usages)?).await?;
        let pair: CryptoKeyPair = pair.unchecked_into();
        let public_key = JsFuture::from(subtle.export_key("raw", &pair.get_public_key())?).await?;
        let algorithm = object(&[("name", &"ECDSA".into()), ("hash", &"SHA-256".into())]);
        Ok((pair.get_private_key(), Uint8Array::new(&public_key).to_vec(), algorithm))
    };
    let (private_key, public_key, algorithm) =
        generate.await.map_err(|cause| Failure::caused_by(unsupported(), cause))?;
    let public_key = PublicKey::from_uncompressed_point(&public_key).ok_or_else(unsupported)?;
    Ok((Key::WebCrypto { subtle, private_key, algorithm }, public_key))
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

/// `crypto.subtle`, which is undefined on pages that are not secure, despite its type.
fn subtle(crypto: &web_sys::Crypto) -> Option<SubtleCrypto> {
    let subtle = Reflect::get(crypto, &"subtle".into()).ok()?;
    subtle.is_object().then(|| subtle.unchecked_into())
}
