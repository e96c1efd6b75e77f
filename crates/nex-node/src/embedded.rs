//! The NATS server of `nex up`: a supervised `nats-server` with JetStream for those who have none, its data in the user's own
//! directory.
//!
//! Whoever has no credentials reaches functions and ordinary subjects, for that is what workloads are; nodes, JetStream and buckets
//! belong to the server's user, whose key lies beside the data.
//!
//! ```text
//! <dir>/lock           held while it is ours
//!       process.json   who it is, for whoever comes after a crash
//!       user.nk        the key of its user
//!       jetstream/     streams, buckets: kept
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nex_bus::local_context::INBOX_PREFIX;
use nex_process::{Deadline, ProcessId};
use nex_protocol::claims;
use nkeys::KeyPair;

use crate::bus::{BusError, BusServer};
use crate::state_dir::{Lock, StateError, make_private, patiently, write_private};

/// The file with the user's key.
const USER_KEY: &str = "user.nk";
/// The user of those who have no credentials.
const ANYBODY: &str = "anybody";
/// What is not theirs.
const RESERVED: [&str; 7] = ["$NEX.>", "$JS.>", "$JSC.>", "$KV.>", "$O.>", "$SYS.>", "$MQTT.>"];

/// Time a leftover server has to die after SIGKILL.
const KILL: Duration = Duration::from_secs(5);

/// Why there is no embedded server.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Its directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The program.
    #[error("the embedded NATS server cannot be started")]
    Server(#[source] BusError),
    /// Its files.
    #[error("cannot write in {path}; next: choose another directory with --state-dir")]
    Files {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The directory of an embedded server, locked, and free of what an earlier process left running.
#[derive(Debug)]
pub struct EmbeddedDir {
    dir: PathBuf,
    /// The user's public key.
    user: String,
    _lock: Lock,
}

impl EmbeddedDir {
    /// Locks the directory; a server that an earlier process left running there is ended.
    ///
    /// # Errors
    /// [`EmbeddedError`]; when another `nex up` is at work there, above all.
    pub async fn open(dir: &Path) -> Result<Self, EmbeddedError> {
        make_private(dir)?;
        let lock = patiently(|| Lock::take(&dir.join("lock"))).await?;
        let this = Self { dir: dir.to_owned(), user: user(&dir.join(USER_KEY))?, _lock: lock };
        let left = fs::read(this.record()).ok().and_then(|bytes| serde_json::from_slice::<ProcessId>(&bytes).ok());
        if let Some(left) = left.filter(|left| left.is_alive()) {
            tracing::warn!(process = %left, "the last 'nex up' did not stop in order; its NATS server is removed");
            if left.kill_and_wait(Deadline::after(KILL)).await.is_err() {
                tracing::error!(process = %left, "a leftover NATS server does not die");
            }
        }
        this.forget();
        Ok(this)
    }

    /// Starts a server on a loopback port.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub async fn start(self, program: &Path, port: u16) -> Result<EmbeddedNats, EmbeddedError> {
        let store = self.dir.join("jetstream");
        let (user, secret) = (&self.user, claims::new_jti());
        let reserved = RESERVED.map(|subject| format!("\"{subject}\"")).join(", ");
        let config = |ports: &str| {
            format!(
                "listen: \"127.0.0.1:{port}\"\nports_file_dir: \"{ports}\"\nserver_name: \"nex-up\"\nmax_payload: 8MB\n\
                 jetstream {{ store_dir: \"{}\" }}\n\
                 authorization {{ users: [\n  {{ nkey: {user} }}\n  {{ user: {ANYBODY}, password: {secret}, permissions: {{\n    \
                 publish: {{ deny: [{reserved}] }}\n    subscribe: {{ deny: [{reserved}, \"{INBOX_PREFIX}.>\"] }} }} }}\n] }}\n\
                 no_auth_user: {ANYBODY}\n",
                store.display()
            )
        };
        let server = BusServer::start(program, &self.dir, config).await.map_err(EmbeddedError::Server)?;
        let record = serde_json::to_vec(&server.process()).unwrap_or_default();
        let files = |source| EmbeddedError::Files { path: self.dir.clone(), source };
        write_private(&self.record(), &record).map_err(files)?;
        Ok(EmbeddedNats { server, dir: self })
    }

    /// The file with the key of the server's user.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.dir.join(USER_KEY)
    }

    fn record(&self) -> PathBuf {
        self.dir.join("process.json")
    }

    fn forget(&self) {
        match fs::remove_file(self.record()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the record of an ended NATS server stays behind");
            }
            _ => {}
        }
    }
}

/// The public key of the user whose seed is in a file, made on the first start.
fn user(path: &Path) -> Result<String, EmbeddedError> {
    let files = |source| EmbeddedError::Files { path: path.to_owned(), source };
    let bad = || EmbeddedError::State(StateError::Key { path: path.to_owned() });
    let seed = match fs::read_to_string(path) {
        Ok(seed) => seed,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            let seed = KeyPair::new_user().seed().map_err(|_no_seed| bad())?;
            write_private(path, seed.as_bytes()).map_err(files)?;
            seed
        }
        Err(error) => return Err(files(error)),
    };
    Ok(KeyPair::from_seed(seed.trim()).map_err(|_no_seed| bad())?.public_key())
}

/// A running embedded server.
#[derive(Debug)]
pub struct EmbeddedNats {
    server: BusServer,
    dir: EmbeddedDir,
}

impl EmbeddedNats {
    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// The file with the key of its user.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.dir.key_file()
    }

    /// Waits until it has ended.
    pub async fn exited(&self) {
        self.server.exited().await;
    }

    /// Stops it; its streams and buckets are kept.
    pub async fn stop(self) {
        self.server.stop().await;
        self.dir.forget();
    }
}
