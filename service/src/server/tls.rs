//! The TLS identity: PEM files, or a certificate made for development.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;

/// Reads the configured identity.
///
/// # Errors
/// The message names the file and what is wrong with it.
pub(super) fn from_files(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    let certificates = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("{}: {error}", files.cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| format!("{}: {error}", files.key.display()))?;
    server_config(certificates, key).map_err(|error| format!("{}: {error}", files.cert.display()))
}

/// A certificate for `names` that no one trusts until told to, with its PEM text.
///
/// # Errors
/// When the certificate cannot be made.
pub(super) fn self_signed(names: Vec<String>) -> Result<(Arc<ServerConfig>, String), String> {
    let failed = |error: &dyn std::fmt::Display| format!("no development certificate: {error}");
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let certificate =
        CertificateParams::new(names).and_then(|params| params.self_signed(&key)).map_err(|error| failed(&error))?;
    let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| failed(&error))?;
    let config = server_config(vec![certificate.der().clone()], private).map_err(|error| failed(&error))?;
    Ok((config, certificate.pem()))
}

fn server_config(
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
