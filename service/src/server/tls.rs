//! A TLS identity for development, and where its certificate is kept.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use approov_listener::tls::server_config;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use crate::crypto::random;

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

/// A directory of this process alone, below the one for temporary files. It goes when this value does.
#[derive(Debug)]
pub(super) struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    /// Makes it. Nobody can have prepared a link in its place: its name is random, and it must not exist.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn new() -> io::Result<Self> {
        let random = random::<12>().map_err(io::Error::other)?;
        let path = std::env::temp_dir().join(format!("approov-web-service-{}", URL_SAFE_NO_PAD.encode(random)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Writes a new file in it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.path().join(name);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(text.as_bytes())?;
        Ok(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // Somebody may have tidied up before.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
