//! How a node reaches the user's NATS, and where its servers are.

use std::net::SocketAddr;
use std::time::Duration;

use async_nats::Client;
use nex_bus::connect::{ConnectError, connect_with};
use nex_bus::denials::Denials;
use nex_bus::settings::ConnectionSettings;

use super::options::NodeOptions;

/// Pause before NATS is tried again by a node that has workloads to start.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Connects to the user's NATS. A node without workloads says at once what is wrong; one that has some waits for NATS: they come back with
/// it.
pub(super) async fn reach(
    connection: &ConnectionSettings,
    denials: &Denials,
    has_workloads: bool,
) -> Result<Client, ConnectError> {
    loop {
        match connect_with(connection, denials).await {
            Err(error @ (ConnectError::Unreachable { .. } | ConnectError::Silent { .. } | ConnectError::NotNats { .. }))
                if has_workloads =>
            {
                let error = nex_protocol::envelope::chain(&error);
                tracing::warn!(error, "NATS is away; this node has workloads to start again and waits for it");
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
            reached => return reached,
        }
    }
}

/// Where the user's NATS servers are, the node's and the workloads', as far as that can be looked up now.
pub(crate) async fn addresses(options: &NodeOptions) -> Vec<SocketAddr> {
    let workloads = options.config.host_services.nats_url.as_deref().map(nex_bus::settings::split_servers);
    let mut found = Vec::new();
    for server in options.connection.servers.iter().chain(workloads.iter().flatten()) {
        let host = server.split_once("://").map_or(server.as_str(), |(_, rest)| rest);
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host).trim_end_matches('/');
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:4222") };
        match tokio::net::lookup_host(&host).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => tracing::debug!(host, %error, "the address of a NATS server cannot be looked up"),
        }
    }
    found
}
