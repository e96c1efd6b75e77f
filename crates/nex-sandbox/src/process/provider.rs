//! Makes, adopts and sweeps process sandboxes.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_network::{Attachment, Network};
use nex_process::confinement::Mode;
use nex_process::{Confinement, Deadline, ProcessId};

use super::config::{ProcessConfig, ProcessNetwork};
use super::create::{self, Role};
use super::probe::{OpenError, prepare};
use super::sandbox::ProcessSandbox;
use super::shared::Shared;
use crate::error::{AdoptError, CreateError};
use crate::host::write_record;
use crate::id::SandboxId;
use crate::record::REMOVAL;
use crate::sandbox::{Sandbox, SandboxProvider};
use crate::spec::SandboxSpec;

/// Makes sandboxes that are jailed processes.
#[derive(Debug, Clone)]
pub struct ProcessProvider {
    pub(super) shared: Arc<Shared>,
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

    /// Makes a sandbox and starts its agent; does not wait for a handshake.
    ///
    /// # Errors
    /// [`CreateError`]; nothing is left then.
    pub async fn make(&self, spec: SandboxSpec, by: Deadline) -> Result<ProcessSandbox, CreateError> {
        create::create(&self.shared, spec, Role::Agent, by).await
    }

    /// Takes over a sandbox that an earlier node process made, if its agent still runs in it and its network is one of ours. What is not
    /// taken over is the next sweep's.
    ///
    /// # Errors
    /// [`AdoptError`]
    pub async fn adopt(&self, id: &SandboxId, by: Deadline) -> Result<ProcessSandbox, AdoptError> {
        let mut record = self.shared.host.record(id).ok_or(AdoptError::Unknown)?;
        if record.monitor.is_some() || record.network.is_some() {
            return Err(AdoptError::Another { was: record.monitor, now: None });
        }
        if !record.leader.is_alive() {
            return Err(AdoptError::Ended(record.leader));
        }
        match (self.network(), record.veth.take()) {
            (None, None) => {}
            (Some(network), Some(veth)) => {
                record.veth = Some(Self::adopt_veth(network, &veth, record.leader, by).await?);
                if record.veth.as_ref() != Some(&veth) {
                    write_record(&record)?;
                }
            }
            // Its network is of another kind than that of this process.
            (None, Some(_)) | (Some(_), None) => return Err(AdoptError::Cut),
        }
        self.shared.host.uids().reserve(record.uid);
        Ok(ProcessSandbox::adopted(&self.shared, record))
    }

    async fn adopt_veth(network: &Network, veth: &Attachment, leader: ProcessId, by: Deadline) -> Result<Attachment, AdoptError> {
        let netns = File::open(format!("/proc/{}/ns/net", leader.pid));
        // Opened while it lived: not of a process that has its pid by now.
        let netns = netns.ok().filter(|_netns| leader.is_alive()).ok_or(AdoptError::Ended(leader))?;
        network.adopt_process(veth, netns.into(), by).await?.ok_or(AdoptError::Cut)
    }

    /// Whether a sandbox can have an image as its root here.
    ///
    /// # Errors
    /// What this host lacks, for people.
    pub fn takes_images(&self) -> Result<(), String> {
        if self.confinement().mode != Mode::Privileged {
            return Err("images are mounted, for which the node has to be root".to_owned());
        }
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        match known.split_whitespace().any(|name| name == "erofs") {
            true => Ok(()),
            false => Err("this kernel has no EROFS; next: modprobe erofs".to_owned()),
        }
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
