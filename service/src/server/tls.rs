//! A TLS identity for development.

use std::sync::Arc;

use approov_listener::tls::server_config;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

/// A certificate for `names` that no one trusts unless configured to, with its PEM text.
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
