//! The TLS identity.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

/// How often the files of an identity are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// PEM files of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Its private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// What is in these files.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// Reads an identity from PEM files: a certificate chain, leaf first, and its private key.
///
/// # Errors
/// The message names the file and what is wrong with it.
pub fn from_files(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let files = Files { cert: cert.to_owned(), key: key.to_owned() };
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    files.identity(&Contents { cert: read(cert)?, key: read(key)? })
}

impl Files {
    fn identity(&self, contents: &Contents) -> Result<Arc<ServerConfig>, String> {
        let (cert, key) = (self.cert.display(), self.key.display());
        let certificates = CertificateDer::pem_slice_iter(&contents.cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("{cert}: {error}"))?;
        let private = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| format!("{key}: {error}"))?;
        server_config(certificates, private).map_err(|error| format!("{cert}: {error}"))
    }

    async fn read(&self) -> io::Result<Contents> {
        Ok(Contents { cert: tokio::fs::read(&self.cert).await?, key: tokio::fs::read(&self.key).await? })
    }
}

/// Looks each second whether the files that `files` names have changed, and replaces the identity when they have: also
/// when a link on their path leads elsewhere, as ACME clients and Kubernetes renew.
///
/// Contents count when two readings in a row gave them, so that a pair that is being written is not taken for one.
/// `report` learns what came of each new pair; one that does not fit leaves the identity as it is.
pub async fn follow(
    files: impl Fn() -> Option<Files>,
    identity: watch::Sender<Arc<ServerConfig>>,
    report: impl Fn(Result<(), String>),
) {
    let mut follower = Follower::default();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !identity.is_closed() {
        ticks.tick().await;
        let Some(files) = files() else { continue };
        // Files that cannot be read are being replaced, or will be missed by whoever reloads.
        let Ok(contents) = files.read().await else { continue };
        match follower.observe(&files, contents) {
            None => {}
            Some((is_first, Ok(renewed))) => {
                // The first pair, too: the files may have changed since the identity was read from them.
                identity.send_replace(renewed);
                if !is_first {
                    report(Ok(()));
                }
            }
            Some((_, Err(error))) => report(Err(error)),
        }
    }
}

/// What the files held at the looks before.
#[derive(Default)]
struct Follower {
    /// What was last judged.
    judged: Option<Contents>,
    /// What the last look found.
    last: Option<Contents>,
}

impl Follower {
    /// The identity of new contents, or why they are none; and whether they are the first.
    fn observe(&mut self, files: &Files, contents: Contents) -> Option<(bool, Result<Arc<ServerConfig>, String>)> {
        let is_settled = self.last.as_ref() == Some(&contents);
        if !is_settled || self.judged.as_ref() == Some(&contents) {
            self.last = Some(contents);
            return None;
        }
        let identity = files.identity(&contents);
        Some((self.judged.replace(contents).is_none(), identity))
    }
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
    use super::*;

    fn pair() -> Contents {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        Contents { cert: made.cert.pem().into_bytes(), key: made.signing_key.serialize_pem().into_bytes() }
    }

    fn files() -> Files {
        Files { cert: "cert.pem".into(), key: "key.pem".into() }
    }

    /// What came of a look: nothing, an identity, or a refusal.
    fn look(follower: &mut Follower, contents: &Contents) -> Option<bool> {
        follower.observe(&files(), contents.clone()).map(|(_, identity)| identity.is_ok())
    }

    #[test]
    fn a_renewed_pair_is_taken_once_it_has_settled() {
        let (old, new) = (pair(), pair());
        let mut follower = Follower::default();
        let looks = [&old, &old, &new, &new, &new, &old, &old].map(|contents| look(&mut follower, contents));
        assert_eq!(looks, [None, Some(true), None, Some(true), None, None, Some(true)]);
    }

    #[test]
    fn a_torn_pair_keeps_the_one_before_and_is_told_once() {
        let (old, new) = (pair(), pair());
        let torn = Contents { key: old.key.clone(), ..new.clone() };
        let half = Contents { cert: new.cert[..new.cert.len() / 2].to_vec(), key: new.key.clone() };
        let mut follower = Follower::default();
        assert_eq!([&old, &old].map(|contents| look(&mut follower, contents)), [None, Some(true)]);
        let looks = [&old, &torn, &torn, &torn, &half, &new, &new].map(|contents| look(&mut follower, contents));
        assert_eq!(looks, [None, None, Some(false), None, None, None, Some(true)]);
        let error = files().identity(&torn).unwrap_err();
        assert!(error.starts_with("cert.pem: "), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_leads_elsewhere_is_seen() {
        let directory = std::env::temp_dir().join(format!("approov-listener-tls-{}", std::process::id()));
        let (one, two, live) = (directory.join("1"), directory.join("2"), directory.join("live"));
        let write = |to: &Path| {
            let made = pair();
            std::fs::create_dir_all(to).unwrap();
            std::fs::write(to.join("cert.pem"), made.cert).unwrap();
            std::fs::write(to.join("key.pem"), made.key).unwrap();
        };
        write(&one);
        write(&two);
        std::os::unix::fs::symlink(&one, &live).unwrap();
        let files = Files { cert: live.join("cert.pem"), key: live.join("key.pem") };
        let (identity, mut changes) = watch::channel(from_files(&files.cert, &files.key).unwrap());
        let (told, mut reports) = tokio::sync::mpsc::unbounded_channel();
        let following = tokio::spawn(follow(
            move || Some(files.clone()),
            identity,
            move |result| {
                told.send(result).unwrap();
            },
        ));
        tokio::time::sleep(Duration::from_secs(5)).await;
        changes.mark_unchanged();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!changes.has_changed().unwrap() && reports.is_empty());
        std::fs::remove_file(&live).unwrap();
        std::os::unix::fs::symlink(&two, &live).unwrap();
        changes.changed().await.unwrap();
        assert_eq!(reports.recv().await, Some(Ok(())));
        drop(changes);
        following.await.unwrap();
        std::fs::remove_dir_all(directory).unwrap();
    }
}
