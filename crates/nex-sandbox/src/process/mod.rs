//! Sandboxes that are jailed processes: namespaces, own uid, cgroup, Landlock, seccomp, as far as the host has them.
//!
//! The agent confines itself (`nex_process::jail`); this side finds out what the host gives, prepares the directories, puts the first
//! process into its cgroup *before* it is told anything, then hands it the rules and its identity.
//!
//! ```text
//! <state>/agents/<id>/record.json   how to remove it, written before the agent runs
//!                     artifact/     the agent's /artifact, read-only
//!                     work/         scratch, only where there is no own root
//! ```

mod compile;
mod config;
mod create;
mod sandbox;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_network::{Attachment, Network};
use nex_process::cgroup::Cgroups;
use nex_process::confinement::{Layer, Part, UserLayer};
use nex_process::{ChildSpec, Confinement, Deadline, Exit, Output, SpawnError};

pub use compile::CompileError;
pub use config::{InvalidConfig, Limits, ProcessConfig, ProcessNetwork};
pub use sandbox::ProcessSandbox;

use self::create::Role;
use crate::host::HostResources;
use crate::record::REMOVAL;
use crate::{CreateError, Sandbox, SandboxId, SandboxProvider, SandboxRecord, SandboxSpec, remove_leftover};

/// The provider could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration is unusable.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// A directory could not be made.
    #[error("could not make {path} for sandboxes; check that the node may write there")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The agent could not be started.
    #[error("could not find out how this host confines processes")]
    Probe(#[from] SpawnError),
    /// The agent gave no report.
    #[error("could not find out how this host confines processes: the agent's probe ended with {exit} and said {said:?}")]
    NoReport {
        /// How it ended.
        exit: Exit,
        /// What it wrote.
        said: String,
    },
    /// It took too long.
    #[error("could not find out in time how this host confines processes; is the host overloaded?")]
    Late,
    /// Something that is required is missing.
    #[error(
        "this host lacks a layer of confinement, {part}: {reason}; next: run 'nex node preflight', or do without it by name (\"waive\": [\"{}\"] in the configuration, or --waive {})",
        .part.name(),
        .part.name()
    )]
    Lacks {
        /// The layer.
        part: Part,
        /// Why it is missing.
        reason: String,
    },
}

/// Makes sandboxes that are jailed processes.
#[derive(Debug, Clone)]
pub struct ProcessProvider {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ProcessConfig,
    confinement: Confinement,
    host: Arc<HostResources>,
    network: ProcessNetwork,
}

/// Runs `<agent> --probe <uid>`: what confinement an agent gets on this host. The cgroup's part is this process' own finding, the
/// network's is given.
///
/// # Errors
/// When the agent does not start or does not report.
pub async fn probe(agent_binary: &Path, uid: u32, network: Layer, by: Deadline) -> Result<Confinement, OpenError> {
    probe_with(agent_binary, uid, &Cgroups::detect(), network, by).await
}

async fn probe_with(
    agent_binary: &Path,
    uid: u32,
    cgroups: &Cgroups,
    network: Layer,
    by: Deadline,
) -> Result<Confinement, OpenError> {
    let said = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&said);
    let output = Output::Lines(Arc::new(move |line: &str| {
        let mut said = sink.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if said.len() < 8 * 1024 {
            said.push_str(line);
        }
    }));
    let child = ChildSpec::new(agent_binary)
        .args(["--probe".to_owned(), uid.to_string()])
        .stdout(output.clone())
        .stderr(output)
        .spawn()?;
    let exit = by.bound(child.exited()).await.map_err(|_elapsed| OpenError::Late)?;
    let said = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let Ok(mut confinement) = serde_json::from_str::<Confinement>(&said) else {
        return Err(OpenError::NoReport { exit, said });
    };
    confinement.cgroup = cgroups.layer();
    confinement.network = network;
    Ok(confinement)
}

async fn prepare(config: &ProcessConfig, network: Layer, by: Deadline) -> Result<(HostResources, Confinement), OpenError> {
    config.check()?;
    let host = HostResources::open(&config.node, &config.state_dir, config.uid_base)
        .map_err(|(path, source)| OpenError::Directory { path, source })?;
    let confinement = probe_with(&config.agent_binary, config.uid_base, host.cgroups(), network, by).await?;
    match confinement.lacks(&config.require) {
        Some((part, reason)) => Err(OpenError::Lacks { part, reason: reason.to_owned() }),
        None => Ok((host, confinement)),
    }
}

impl ProcessProvider {
    /// Finds out what this host gives and makes the provider.
    ///
    /// # Errors
    /// When the configuration is unusable, the state directory is not writable, the agent's probe fails or a required layer is
    /// missing; the network is closed then.
    pub async fn open(config: ProcessConfig, network: ProcessNetwork, by: Deadline) -> Result<Self, OpenError> {
        match prepare(&config, network.layer(), by).await {
            Ok((host, confinement)) => {
                let shared = Shared { config, confinement, host: Arc::new(host), network };
                Ok(Self { shared: Arc::new(shared) })
            }
            Err(error) => {
                if let ProcessNetwork::Own { network, .. } = network {
                    network.close(Deadline::after(REMOVAL)).await;
                }
                Err(error)
            }
        }
    }

    /// Makes a sandbox and starts its agent; does not wait for the agent to say anything.
    ///
    /// # Errors
    /// [`CreateError`]; nothing is left then.
    pub async fn make(&self, spec: SandboxSpec, by: Deadline) -> Result<ProcessSandbox, CreateError> {
        create::create(&self.shared, spec, Role::Agent, by).await
    }

    /// Takes over what an earlier node process made, if it still runs; otherwise removes what is left of it.
    pub async fn adopt(&self, record: SandboxRecord, by: Deadline) -> Option<ProcessSandbox> {
        if record.leader.is_alive() {
            self.shared.host.uids().reserve(record.uid);
            return Some(ProcessSandbox::adopted(&self.shared, record));
        }
        remove_leftover(&record, by).await;
        self.shared.host.uids().free(record.uid);
        None
    }

    /// What confines every sandbox of this provider.
    #[must_use]
    pub fn confinement(&self) -> &Confinement {
        &self.shared.confinement
    }

    /// Removes every sandbox that an earlier node process of this state directory left, except those to keep. Returns how many.
    pub async fn sweep(&self, keep: &BTreeSet<SandboxId>, by: Deadline) -> usize {
        let removed = self.shared.host.sweep(keep, by).await;
        if let Some(network) = self.network() {
            let keep = keep.iter().map(|id| id.as_str().to_owned()).collect();
            network.sweep(&keep, by).await;
        }
        removed
    }

    /// What connects the sandboxes, where it is not the host's own network.
    #[must_use]
    pub fn network(&self) -> Option<&Network> {
        self.shared.network()
    }

    /// Waits for the removal of what was dropped, and takes the network down; call it last.
    pub async fn close(&self, grace: Duration) {
        self.shared.host.close(grace).await;
        if let Some(network) = self.network() {
            network.close(Deadline::after(grace)).await;
        }
    }
}

impl SandboxProvider for ProcessProvider {
    fn create(&self, spec: SandboxSpec, by: Deadline) -> BoxFuture<'_, Result<Box<dyn Sandbox>, CreateError>> {
        self.make(spec, by).map(|made| made.map(|sandbox| Box::new(sandbox) as _)).boxed()
    }
}

impl Shared {
    /// Takes a sandbox's connection back.
    async fn detach(&self, link: Option<&Attachment>) {
        if let (Some(network), Some(link)) = (self.network(), link) {
            network.detach(link, Deadline::after(REMOVAL)).await;
        }
    }

    fn network(&self) -> Option<&Network> {
        match &self.network {
            ProcessNetwork::Own { network, .. } => Some(network),
            ProcessNetwork::Shared { .. } => None,
        }
    }

    /// Whether an agent gets a uid of its own here.
    fn has_own_uids(&self) -> bool {
        matches!(self.confinement.user, UserLayer::OwnUid { .. })
    }
}
