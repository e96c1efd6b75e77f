//! The host of a node's sandboxes: its directories, names and uids.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nex_protocol::id::NodeId;

/// Longest time to remove what an earlier process left.
pub(super) const SWEEP: Duration = Duration::from_secs(20);
/// First uid of agents, where the node is root.
pub const UID_BASE: u32 = 712_000;
/// First uid of the jails in which a node with microVMs builds images; above those of machines.
pub(super) const BUILDER_UID_BASE: u32 = UID_BASE + 65_536;

/// What a node provides to open its sandboxes.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// The node, for names.
    pub node: &'a NodeId,
    /// Where state is kept.
    pub state_dir: &'a Path,
    /// The `nex-agent` program.
    pub agent_binary: &'a Path,
    /// Where kernel, root image and programs lie, unless the configuration says otherwise.
    pub resource_dir: &'a Path,
    /// The user's NATS servers, which every workload may reach. A guest reaches those on the host's loopback through the gateway.
    pub nats: &'a [SocketAddr],
}

/// The node's name for devices, groups and uids: short, lower case.
pub(super) fn short(node: &NodeId) -> String {
    node.as_str().chars().skip(1).take(12).collect::<String>().to_lowercase()
}
