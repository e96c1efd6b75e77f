//! The `nats-server` child: found, started, waited for, stopped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nex_process::{Child, ChildSpec, Deadline, Output, ProcessId, Rung, Signal, SpawnError, crash_point};
use serde::Deserialize;

use super::version::{VersionError, program_version};

/// Why there is no internal bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No program.
    #[error("nats-server was not found in {0}; next: install NATS server 2.12 or newer, or say where it is with --nats-server")]
    NotFound(String),
    /// The program does not start.
    #[error("cannot start the internal NATS server")]
    Spawn(#[from] SpawnError),
    /// It is none that can be started.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// It starts and does not listen.
    #[error("the NATS server did not listen within {} s; next: see why in its log, {log}", .waited.as_secs())]
    NotReady {
        /// How long it was given.
        waited: Duration,
        /// Where it wrote why.
        log: PathBuf,
    },
    /// It starts and ends.
    #[error("the NATS server ended ({exit}) before it listened; next: see why in its log, {log}")]
    Ended {
        /// How.
        exit: nex_process::Exit,
        /// Where it wrote why.
        log: PathBuf,
    },
    /// It listens and does not let the node in.
    #[error("cannot connect to the internal NATS server")]
    Connect(#[source] nex_bus::connect::ConnectError),
    /// Its process could not be recorded.
    #[error("the internal NATS server could not be recorded")]
    Journal(#[source] crate::journal::JournalError),
    /// What it proves itself with cannot be made.
    #[error("cannot make a certificate for the internal NATS server")]
    Proof(#[from] rcgen::Error),
    /// Its files.
    #[error("cannot write the internal NATS server's files")]
    Files(#[from] std::io::Error),
}

/// Looks for `nats-server`: the given path, beside this program, in the directories of `PATH`.
///
/// # Errors
/// [`BusError::NotFound`] names where it looked.
pub fn find_nats_server(given: Option<&Path>, search: &[PathBuf]) -> Result<PathBuf, BusError> {
    if let Some(given) = given {
        return if given.is_file() { Ok(given.to_owned()) } else { Err(BusError::NotFound(given.display().to_string())) };
    }
    let candidates = search.iter().map(|dir| dir.join("nats-server"));
    candidates
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| BusError::NotFound(search.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":")))
}

/// A running `nats-server` of ours.
#[derive(Debug)]
pub struct BusServer {
    child: Child,
    url: String,
}

const START: Duration = Duration::from_secs(10);
/// Size of the log at which it is put aside and begun anew.
const LOG_BYTES: u64 = 16 * 1024 * 1024;
const STOP: [Rung; 1] = [Rung::Signal(Signal::SIGTERM, Duration::from_secs(2))];

impl BusServer {
    /// Starts a server whose files are in `dir`; `config` is made for a given ports directory.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn start(program: &Path, dir: &Path, config: impl FnOnce(&str) -> String) -> Result<Self, BusError> {
        program_version(program).await?;
        let ports = dir.join("ports");
        let (config_file, log) = (dir.join("server.conf"), dir.join("server.log"));
        match std::fs::remove_dir_all(&ports) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => std::fs::create_dir_all(&ports)?,
        }
        // Everybody who reaches the server writes to its log: it is bounded, and the last one is kept beside it.
        let bounded = format!("log_file: \"{}\"\nlogfile_size_limit: {LOG_BYTES}\nlogfile_max_num: 2\n", log.display());
        let text = config(&ports.display().to_string()) + &bounded;
        crate::state_dir::write_private(&config_file, text.as_bytes())?;
        let child = ChildSpec::new(program)
            .args([std::ffi::OsStr::new("-c"), config_file.as_os_str()])
            // By this it is found where nobody has recorded it.
            .current_dir(dir)
            // What it says before it has read where its log is.
            .stdout(Output::Append(log.clone()))
            .stderr(Output::Append(log.clone()))
            .spawn()?;
        crash_point("bus: its process is started");
        let by = Deadline::after(START);
        let ready = by.bound(async {
            tokio::select! {
                url = url_from(&ports) => Ok(url),
                exit = child.exited() => Err(exit),
            }
        });
        match ready.await {
            Ok(Ok(url)) => Ok(Self { child, url }),
            Ok(Err(exit)) => Err(BusError::Ended { exit, log }),
            Err(_) => Err(BusError::NotReady { waited: START, log }),
        }
    }

    /// Takes over a server that an earlier node process started.
    #[must_use]
    pub fn adopt(process: ProcessId, url: String) -> Self {
        Self { child: Child::adopt(process), url }
    }

    /// `nats://127.0.0.1:<port>`, or `tls://` where it has a certificate.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process, for the journal.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        self.child.id()
    }

    /// Waits until the server has ended.
    pub async fn exited(&self) {
        self.child.exited().await;
    }

    /// Stops the server.
    pub async fn stop(self) {
        self.child.shutdown(&STOP).await;
    }
}

/// The server's URL, read from the file it writes once it listens.
async fn url_from(ports: &Path) -> String {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let read = || -> Option<String> {
        let file =
            std::fs::read_dir(ports).ok()?.flatten().find(|entry| entry.path().extension().is_some_and(|e| e == "ports"))?;
        let listening: Ports = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
        listening.nats.into_iter().next()
    };
    loop {
        if let Some(url) = read() {
            return url;
        }
        // The server gives no other sign without a connection to it; 2 ms is far below what its start costs.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
