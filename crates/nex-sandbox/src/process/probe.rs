//! Finds out how this host confines processes, before the first sandbox is made.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nex_process::cgroup::Cgroups;
use nex_process::confinement::{Layer, Part};
use nex_process::{ChildSpec, Confinement, Deadline, Exit, Output, SpawnError};

use super::config::{InvalidConfig, ProcessConfig};
use crate::host::HostResources;

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

/// Opens the host's resources and checks that no required layer is missing.
pub(super) async fn prepare(
    config: &ProcessConfig,
    network: Layer,
    by: Deadline,
) -> Result<(HostResources, Confinement), OpenError> {
    config.check()?;
    let host = HostResources::open(&config.node, &config.state_dir, config.uid_base)
        .map_err(|(path, source)| OpenError::Directory { path, source })?;
    let confinement = probe_with(&config.agent_binary, config.uid_base, host.cgroups(), network, by).await?;
    match confinement.lacks(&config.require) {
        Some((part, reason)) => Err(OpenError::Lacks { part, reason: reason.to_owned() }),
        None => Ok((host, confinement)),
    }
}
