//! Files that change while the service runs: the configuration and all that it refers to.
//!
//! Editors truncate a file and write it, deployments swap a link: what is read in between is no change. So a change
//! counts when two readings in a row are the same.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The time between two readings that must be the same.
const SETTLE_TIME: Duration = Duration::from_millis(250);
/// How many readings in a row may differ.
const MAX_READINGS: usize = 20;

/// What a file said, or why it could not be read.
pub(super) type Reading = Result<Vec<u8>, String>;

/// What some files said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot(BTreeMap<PathBuf, Reading>);

impl Snapshot {
    /// What a file said; `None`: it is not one of these.
    pub(super) fn get(&self, path: &Path) -> Option<&Reading> {
        self.0.get(path)
    }
}

/// What has become of watched files.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing, or it has been undone.
    None,
    /// They say this now.
    Settled(Snapshot),
    /// Somebody keeps writing.
    Unsettled,
}

/// Reads a file.
type Read = dyn Fn(&Path) -> io::Result<Vec<u8>> + Send + Sync;

/// Files that are watched, and what they said last.
pub(super) struct Watch {
    read: Arc<Read>,
    last: Snapshot,
}

impl Watch {
    /// Watches nothing yet; `read` reads a file.
    pub(super) fn new(read: impl Fn(&Path) -> io::Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read), last: Snapshot::default() }
    }

    /// What `paths` say now.
    pub(super) async fn read(&self, paths: Vec<PathBuf>) -> Snapshot {
        let read = Arc::clone(&self.read);
        let read_all = move || {
            let reading = |path: PathBuf| {
                let reading = read(&path).map_err(|error| error.to_string());
                (path, reading)
            };
            Snapshot(paths.into_iter().map(reading).collect())
        };
        // It fails only when the process is about to end.
        tokio::task::spawn_blocking(read_all).await.unwrap_or_default()
    }

    /// Reads the files that `known` ones refer to, until all are known. So what `understand` made in its last call, of
    /// files that it reads by itself too, is not older than the snapshot.
    pub(super) async fn follow<T>(
        &self,
        mut known: Snapshot,
        understand: impl Fn(&Snapshot) -> (T, Vec<PathBuf>),
    ) -> (T, Snapshot) {
        loop {
            let (made, paths) = understand(&known);
            let new: Vec<PathBuf> = paths.into_iter().filter(|path| known.get(path).is_none()).collect();
            if new.is_empty() {
                return (made, known);
            }
            known.0.extend(self.read(new).await.0);
        }
    }

    /// From now on, a change is a difference to this.
    pub(super) fn compare_with(&mut self, snapshot: Snapshot) {
        self.last = snapshot;
    }

    /// Looks at the files. Whatever comes of it, the same is not reported twice, unless it is `forced`: then at least
    /// what they say now.
    pub(super) async fn look(&mut self, forced: bool) -> Change {
        let paths: Vec<PathBuf> = self.last.0.keys().cloned().collect();
        let mut now = self.read(paths.clone()).await;
        if now == self.last && !forced {
            return Change::None;
        }
        for _ in 0..MAX_READINGS {
            tokio::time::sleep(SETTLE_TIME).await;
            let again = self.read(paths.clone()).await;
            if again == now {
                if now == self.last && !forced {
                    return Change::None;
                }
                self.last = now.clone();
                return Change::Settled(now);
            }
            now = again;
        }
        Change::Unsettled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A disk on which a file says one thing after the other; the last for ever.
    struct Disk(Mutex<BTreeMap<PathBuf, Vec<Option<&'static str>>>>);

    impl Disk {
        fn new(files: &[(&str, &[Option<&'static str>])]) -> Arc<Self> {
            Arc::new(Self(Mutex::new(files.iter().map(|(path, says)| (path.into(), says.to_vec())).collect())))
        }

        fn set(&self, path: &str, says: &[Option<&'static str>]) {
            self.0.lock().unwrap().insert(path.into(), says.to_vec());
        }

        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            let mut files = self.0.lock().unwrap();
            let says = files.get_mut(path).unwrap();
            let text = if says.len() > 1 { says.remove(0) } else { says[0] };
            text.map(|text| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::PermissionDenied.into())
        }
    }

    async fn watch(disk: &Arc<Disk>) -> Watch {
        let disk = Arc::clone(disk);
        let mut watch = Watch::new(move |path| disk.read(path));
        let snapshot = watch.read(vec!["a".into()]).await;
        watch.compare_with(snapshot);
        watch
    }

    fn says(change: &Change) -> Option<&Reading> {
        match change {
            Change::Settled(snapshot) => snapshot.get(Path::new("a")),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_counts_when_it_has_settled_and_once() {
        let disk = Disk::new(&[("a", &[Some("old")])]);
        let mut watch = watch(&disk).await;
        assert_eq!(watch.look(false).await, Change::None);
        // Truncated, half written, written.
        disk.set("a", &[Some(""), Some("ne"), Some("new")]);
        assert_eq!(says(&watch.look(false).await), Some(&Ok(b"new".to_vec())));
        assert_eq!(watch.look(false).await, Change::None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_is_undone_is_none() {
        let disk = Disk::new(&[("a", &[Some("old")])]);
        let mut watch = watch(&disk).await;
        disk.set("a", &[None, Some("old")]);
        assert_eq!(watch.look(false).await, Change::None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_read_is_reported_once_and_whenever_it_is_forced() {
        let disk = Disk::new(&[("a", &[Some("old")])]);
        let mut watch = watch(&disk).await;
        disk.set("a", &[None]);
        assert!(says(&watch.look(false).await).unwrap().is_err());
        assert_eq!(watch.look(false).await, Change::None);
        assert!(says(&watch.look(true).await).unwrap().is_err());
        disk.set("a", &[Some("old")]);
        assert!(says(&watch.look(false).await).unwrap().is_ok(), "and when it can be read again");
    }

    #[tokio::test(start_paused = true)]
    async fn looking_ends_also_when_somebody_keeps_writing() {
        let disk = Disk::new(&[("a", &[Some("old")])]);
        let mut watch = watch(&disk).await;
        let changing: Vec<_> = (0..100).map(|n| Some(if n % 2 == 0 { "x" } else { "y" })).collect();
        disk.set("a", &changing);
        assert_eq!(watch.look(true).await, Change::Unsettled);
    }

    #[tokio::test]
    async fn files_that_a_file_refers_to_are_read_before_it_is_understood() {
        let disk = Disk::new(&[("a", &[Some("b")]), ("b", &[Some("c")]), ("c", &[Some("end")])]);
        let watch = watch(&disk).await;
        let understand = |known: &Snapshot| {
            let mut paths = vec![PathBuf::from("a")];
            while let Some(Ok(next)) = paths.last().and_then(|path| known.get(path)) {
                match next.as_slice() {
                    b"end" => break,
                    next => paths.push(String::from_utf8(next.to_vec()).unwrap().into()),
                }
            }
            (paths.len(), paths)
        };
        let (made, snapshot) = watch.follow(Snapshot::default(), understand).await;
        assert_eq!(made, 3);
        assert_eq!(snapshot.0.len(), 3);
    }
}
