//! What a node is started with.

use std::path::PathBuf;

use nex_bus::settings::ConnectionSettings;

use crate::config::NodeConfig;

/// What a node is started with.
pub struct NodeOptions {
    /// The user's NATS.
    pub connection: ConnectionSettings,
    /// The configuration.
    pub config: NodeConfig,
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// The `nex-agent` program.
    pub agent_binary: PathBuf,
    /// The `nats-server` program.
    pub nats_server: PathBuf,
    /// Where kernel, root image and programs of microVMs lie, unless the configuration says otherwise.
    pub resource_dir: PathBuf,
    /// Name of the group of nodes.
    pub nexus: String,
}

impl std::fmt::Debug for NodeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeOptions")
            .field("connection", &self.connection)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}
