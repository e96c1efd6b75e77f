//! Where a node keeps what must outlive it, and the lock that makes it the only one there.
//!
//! ```text
//! <state>/lock            held while a node runs
//!         keys/           node.nk node.xk bus-operator.nk bus-account.nk (0600)
//!         journal.redb    workloads, sandboxes, processes, seen tokens
//!         artifacts/      <sha-256>, <sha-256>.<engine build>.cwasm
//!         history/        <namespace>.<logs|events>/<number>.log
//!         agents/<id>/    artifact/ out/
//!         bus/            nats-server configuration, ports file, log
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nex_process::{Deadline, ProcessId};
use nix::fcntl::{Flock, FlockArg};

/// Time in which a program that is being started closes what it does not inherit, and the pause between two looks.
const LAST_HOLDER: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// Directory of the node's keys in its state directory.
pub(crate) const KEYS: &str = "keys";

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another node has it.
    #[error("another node runs on the state directory {0}; next: stop it, or give this one its own with --state-dir")]
    InUse(PathBuf),
    /// A file or directory in it.
    #[error("cannot use {path} in the state directory; next: check its owner and free space, or choose another with --state-dir")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key file that is none.
    #[error("{path} does not hold a key of the expected kind; next: restore it, or remove it to get a new identity")]
    Key {
        /// Which.
        path: PathBuf,
    },
}

/// A lock on a directory, held by a file in it; the kernel lets go of it when the process ends, however that happens.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock, or says that somebody has it.
    ///
    /// # Errors
    /// [`StateError::InUse`], [`StateError::Io`].
    pub fn take(path: &Path) -> Result<Self, StateError> {
        let io = |source| StateError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(io)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => {
                // For people, and for `nex node stop`; the lock itself is what counts.
                let written = file.set_len(0).and_then(|()| (&*file).write_all(std::process::id().to_string().as_bytes()));
                written.map_err(io)?;
                Ok(Self { _file: file })
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StateError::InUse(path.parent().unwrap_or(path).to_owned())),
            Err((_, errno)) => Err(io(errno.into())),
        }
    }
}

/// The process that has the node of a state directory, if one runs.
///
/// # Errors
/// [`StateError::Io`].
pub fn holder(root: &Path) -> Result<Option<ProcessId>, StateError> {
    let path = root.join("lock");
    match Lock::take(&path) {
        Ok(_free) => Ok(None),
        Err(StateError::InUse(_)) => {
            let text = fs::read_to_string(&path).map_err(|source| StateError::Io { path, source })?;
            Ok(text.trim().parse().ok().and_then(ProcessId::of))
        }
        Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes what is locked, and waits a moment where it is in use: a program that a killed node was about to start has its locks until it
/// runs.
///
/// # Errors
/// Those of the last attempt.
pub async fn patiently<T>(mut take: impl FnMut() -> Result<T, StateError>) -> Result<T, StateError> {
    let by = Deadline::after(LAST_HOLDER);
    loop {
        match take() {
            Err(StateError::InUse(_)) if !by.is_past() => tokio::time::sleep(PAUSE).await,
            taken => return taken,
        }
    }
}

/// The state directory, locked.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    _lock: Lock,
}

impl StateDir {
    /// Makes the directory if need be and locks it.
    ///
    /// # Errors
    /// [`StateError::InUse`] when another node holds it, [`StateError::Io`].
    pub fn open(root: &Path) -> Result<Self, StateError> {
        make_private(root)?;
        for part in [KEYS, "artifacts", "bus"] {
            make_private(&root.join(part))?;
        }
        let lock = Lock::take(&root.join("lock"))?;
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// Its path.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A key kept in `keys/<name>`: read, or made by `make` on the first start. `accept` turns the seed into the key.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn key<K>(
        &self,
        name: &str,
        make: impl FnOnce() -> Option<String>,
        accept: impl FnOnce(&str) -> Option<K>,
    ) -> Result<K, StateError> {
        let path = self.root.join(KEYS).join(name);
        let io = |source| StateError::Io { path: path.clone(), source };
        let bad = || StateError::Key { path: path.clone() };
        let seed = match fs::read_to_string(&path) {
            Ok(seed) => seed,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                let seed = make().ok_or_else(bad)?;
                write_private(&path, seed.as_bytes()).map_err(io)?;
                seed
            }
            Err(error) => return Err(io(error)),
        };
        accept(seed.trim()).ok_or_else(bad)
    }
}

/// Makes a directory that others may pass through (agents run as users of their own) but not list.
///
/// # Errors
/// [`StateError::Io`].
pub fn make_private(path: &Path) -> Result<(), StateError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(path);
    made.map_err(|source| StateError::Io { path: path.to_owned(), source })
}

/// Writes a file only its owner may read, whole or not at all.
///
/// # Errors
/// Those of the file system.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn a_lock_that_is_about_to_be_let_go_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let mut held = Some(Lock::take(&path).unwrap());
        let mut tries = 0;
        let taken = patiently(|| {
            tries += 1;
            let _let_go = held.take_if(|_| tries == 3);
            Lock::take(&path)
        });
        assert!(taken.await.is_ok());
        assert!(held.is_none());
    }

    #[test]
    fn a_key_is_made_once_and_the_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let first = state.key("a.nk", || Some("SEED".into()), |seed| Some(seed.to_owned())).unwrap();
        let second = state.key("a.nk", || Some("OTHER".into()), |seed| Some(seed.to_owned())).unwrap();
        assert_eq!((first.as_str(), second.as_str()), ("SEED", "SEED"));
        assert_eq!(fs::metadata(dir.path().join("keys/a.nk")).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::InUse(_))));
        drop(state);
        assert!(StateDir::open(dir.path()).is_ok());
    }
}
