//! The TLS identity.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// Reads an identity from PEM files: a certificate chain, leaf first, and its private key.
///
/// # Errors
/// The message names the file, what is wrong with it, and how to mend it.
pub fn from_files(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let (certificates, private) = (read(cert, certificates)?, read(key, private_key)?);
    server_config(certificates, private).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("{}: the certificate is not for the key in {}", cert.display(), key.display())
        }
        error => format!("{}: {error}", cert.display()),
    })
}

fn read<T>(path: &Path, understand: impl Fn(&[u8]) -> Result<T, String>) -> Result<T, String> {
    let bytes = Zeroizing::new(std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?);
    understand(&bytes).map_err(|why| format!("{}: {why}", path.display()))
}

fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) if is_der(bytes) => Err("the certificate is DER, and must be PEM: openssl x509 -inform DER".to_owned()),
        Ok(_) => Err("there is no certificate in it (BEGIN CERTIFICATE)".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        _ if is_encrypted(bytes) => {
            "the key is encrypted, and nobody is there to type its passphrase: openssl pkey -in FILE -out FILE"
                .to_owned()
        }
        pem::Error::NoItemsFound if is_der(bytes) => {
            "the key is DER, and must be PEM: openssl pkey -inform DER".to_owned()
        }
        pem::Error::NoItemsFound => "there is no private key in it (BEGIN PRIVATE KEY)".to_owned(),
        error => error.to_string(),
    })
}

/// PKCS#8 says so in its label, older forms in a header.
fn is_encrypted(pem: &[u8]) -> bool {
    let has = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
    has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// Certificates and keys are ASN.1 sequences.
fn is_der(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x30)
}

/// An identity for HTTP/2 and HTTP/1.1.
///
/// # Errors
/// When certificates and key do not fit.
pub fn server_config(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, generate_simple_self_signed};

    use super::*;

    #[test]
    fn a_file_that_is_no_pem_is_told_how_to_become_one() {
        let made = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = made.signing_key.serialize_pem();
        assert_eq!(certificates(made.cert.pem().as_bytes()).unwrap().len(), 1);
        private_key(key.as_bytes()).unwrap();
        for (result, word) in [
            (certificates(made.cert.der()).map(drop), "-inform DER"),
            (certificates(key.as_bytes()).map(drop), "BEGIN CERTIFICATE"),
            (certificates(b"").map(drop), "BEGIN CERTIFICATE"),
            (private_key(&made.signing_key.serialize_der()).map(drop), "-inform DER"),
            (private_key(made.cert.pem().as_bytes()).map(drop), "BEGIN PRIVATE KEY"),
            (private_key(key.replace("PRIVATE", "ENCRYPTED PRIVATE").as_bytes()).map(drop), "encrypted"),
            (private_key(b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n").map(drop), "encrypted"),
        ] {
            let error = result.unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn a_certificate_for_another_key_is_named_as_such() {
        let directory = std::env::temp_dir().join(format!("approov-listener-tls-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        let made = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        from_files(&cert, &key).unwrap();
        std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let error = from_files(&cert, &key).unwrap_err();
        assert!(error.contains("not for the key in"), "{error}");
        let error = from_files(&cert, &directory.join("none.pem")).unwrap_err();
        assert!(error.contains("none.pem: No such file"), "{error}");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
