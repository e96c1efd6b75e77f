//! One network of guests, from open to close.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;
use nex_process::Deadline;

use crate::attachment::Attachment;
use crate::config::NetworkConfig;
use crate::error::NetworkError;

/// One network of guests.
#[derive(Debug)]
pub struct Network {
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
}

#[expect(clippy::unused_async, reason = "filled in the next commit")]
impl Network {
    /// Opens the network: its device with the gateway's address, and its packet filter. What an earlier process of this owner
    /// left is kept until [`sweep`](Self::sweep).
    ///
    /// # Errors
    /// When the configuration is unusable, the subnet is taken, or the host refuses; nothing is left then.
    pub async fn open(config: NetworkConfig, _by: Deadline) -> Result<Self, NetworkError> {
        config.check()?;
        Err(NetworkError::NoSubnet)
    }

    /// The host's address in the guests' subnet.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// The guests' subnet.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// What the operator should know, each with the command to type.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &[]
    }

    /// Lets guests reach this TCP port of the gateway's address.
    ///
    /// # Errors
    /// When the packet filter refuses.
    pub async fn permit_gateway_port(&self, _port: u16) -> Result<(), NetworkError> {
        Ok(())
    }

    /// Connects a guest. A failure leaves nothing behind.
    ///
    /// # Errors
    /// When the id is unusable, the subnet is full, the host or a plug-in refuses, or the deadline passes.
    ///
    /// # Cancel safety
    /// If the future is dropped, what was made is undone in the background.
    pub async fn attach(&self, _id: &str, _by: Deadline) -> Result<Attachment, NetworkError> {
        Err(NetworkError::Closed)
    }

    /// Removes a guest's connection; one that is gone already is fine. Says whether nothing is left of it.
    pub async fn detach(&self, _attachment: &Attachment, _by: Deadline) -> bool {
        true
    }

    /// Removes what an earlier process of this owner left, but for the guests named. Says how many connections were removed.
    pub async fn sweep(&self, _keep: &BTreeSet<String>, _by: Deadline) -> usize {
        0
    }

    /// Removes the filter, the devices and all guests' connections. Later calls find the network closed.
    pub async fn close(&self, _by: Deadline) {}
}

/// Removes everything that processes of this owner left, for a node that opens no network now. Says how many connections,
/// devices and tables were removed.
#[expect(clippy::unused_async, reason = "filled in the next commit")]
pub async fn remove_leftovers(_owner: &str, _state_dir: &Path, _by: Deadline) -> usize {
    0
}
