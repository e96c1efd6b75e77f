//! What every process sandbox of a provider shares: the configuration, the host's resources and the network.

use std::sync::Arc;

use nex_network::{Attachment, Network};
use nex_process::confinement::UserLayer;
use nex_process::{Confinement, Deadline};

use super::config::{ProcessConfig, ProcessNetwork};
use crate::host::HostResources;
use crate::record::REMOVAL;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ProcessConfig,
    pub(super) confinement: Confinement,
    pub(super) host: Arc<HostResources>,
    pub(super) network: ProcessNetwork,
}

impl Shared {
    /// Takes a sandbox's connection back.
    pub(super) async fn detach(&self, link: Option<&Attachment>) {
        if let (Some(network), Some(link)) = (self.network(), link) {
            network.detach(link, Deadline::after(REMOVAL)).await;
        }
    }

    pub(super) fn network(&self) -> Option<&Network> {
        match &self.network {
            ProcessNetwork::Own { network, .. } => Some(network),
            ProcessNetwork::Shared { .. } => None,
        }
    }

    /// Whether an agent gets a uid of its own here.
    pub(super) fn has_own_uids(&self) -> bool {
        matches!(self.confinement.user, UserLayer::OwnUid { .. })
    }
}
