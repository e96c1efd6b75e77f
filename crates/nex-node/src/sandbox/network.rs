//! The network of agents, for machines and jailed processes: derives its policy from the configuration and the host.

use std::net::{IpAddr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::Duration;

use nex_network::{Allow, Ipv4Net, Limits, Network, NetworkConfig, NetworkKind, Policy};
use nex_process::Deadline;
use nex_process::confinement::Layer;
use nex_sandbox::process::ProcessNetwork;

use super::host::{Host, short};
use crate::config::NodeConfig;

/// Longest time to make the network.
const OPEN: Duration = Duration::from_secs(15);
/// The host's name servers, and where systemd-resolved keeps them when it puts itself in between.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// Largest such file.
const MAX_RESOLV_CONF: u64 = 64 * 1024;
const DNS: u16 = 53;

/// The network of a node.
pub(super) fn config(config: &NodeConfig, host: Host<'_>, kind: NetworkKind, limits: Option<Limits>) -> NetworkConfig {
    let network = &config.microvm.network;
    let servers = host.nats.iter().filter_map(|server| match server {
        std::net::SocketAddr::V4(server) => Some(*server),
        std::net::SocketAddr::V6(_) => None,
    });
    let policy = Policy { allow: network.allow.clone(), host_ports: network.host_ports.clone(), servers: servers.collect() };
    NetworkConfig {
        kind,
        owner: short(host.node),
        state_dir: host.state_dir.join("network"),
        subnet: network.subnet,
        gateway: network.gateway,
        policy,
        limits,
    }
}

/// Whether jailed processes can probably have a network of their own; makes none.
pub(super) fn of_processes() -> Layer {
    match nex_network::check(&NetworkKind::Builtin).first() {
        None => Layer::Held,
        Some(lacking) => Layer::Missing { reason: format!("{} is missing; {}", lacking.what, lacking.advice) },
    }
}

/// Makes the network of jailed processes and tries one namespace. If that fails, processes share the host's network.
pub(super) async fn open(node: &NodeConfig, host: Host<'_>) -> ProcessNetwork {
    if let Layer::Missing { reason } = of_processes() {
        return ProcessNetwork::Shared { reason };
    }
    let mut network = config(node, host, NetworkKind::Builtin, None);
    let (resolv_conf, servers) = name_servers(node);
    network.policy.allow.extend(servers);
    let by = Deadline::after(OPEN);
    match open_and_test(network, by).await {
        Ok(network) => {
            network.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
            ProcessNetwork::Own { network, resolv_conf }
        }
        Err(error) => ProcessNetwork::Shared { reason: error.to_string() },
    }
}

async fn open_and_test(config: NetworkConfig, by: Deadline) -> Result<Network, nex_network::NetworkError> {
    let network = Network::open(config, by).await?;
    match network.attach_process("probe", by).await {
        Ok((attachment, _netns)) => {
            network.detach(&attachment, by).await;
            Ok(network)
        }
        Err(error) => {
            network.close(by).await;
            Err(error)
        }
    }
}

/// What jailed processes read in `/etc/resolv.conf` (the host's file, if absent), and the servers named there.
fn name_servers(config: &NodeConfig) -> (Option<String>, Vec<Allow>) {
    let configured = &config.microvm.network.dns;
    if !configured.is_empty() {
        // The configuration already allows them.
        return (Some(configured.iter().map(|server| format!("nameserver {server}\n")).collect()), Vec::new());
    }
    let host = read(Path::new(RESOLV_CONF));
    let (given, text) = if addresses(&host).any(|address| address.is_loopback()) {
        let text = read(Path::new(RESOLVED));
        if addresses(&text).next().is_none() {
            tracing::warn!(
                "the host's name server listens on its loopback, where workloads cannot reach it; next: name another in network.dns"
            );
        }
        (Some(text.clone()), text)
    } else {
        (None, host)
    };
    let allowed = addresses(&text).filter_map(|address| match address {
        IpAddr::V4(address) if !address.is_loopback() => Some(Allow::Net { net: Ipv4Net::from(address), port: Some(DNS) }),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    (given, allowed.collect())
}

fn read(path: &Path) -> String {
    let small = std::fs::metadata(path).is_ok_and(|found| found.len() <= MAX_RESOLV_CONF);
    if small { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() }
}

fn addresses(resolv_conf: &str) -> impl Iterator<Item = IpAddr> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|address| address.trim().parse().ok())
}

/// Whether a jailed process in a network of its own reaches a server: on the host's loopback, another address of the host, or
/// beyond if the host forwards packets.
pub(super) fn reaches(server: SocketAddrV4) -> bool {
    let is_the_hosts = || UdpSocket::bind((*server.ip(), 0)).is_ok();
    server.ip().is_loopback() || is_the_hosts() || nex_network::forwards()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_servers_are_read() {
        let text = "# nameserver 1.1.1.1\nsearch example.org\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver ::1\n";
        let found: Vec<_> = addresses(text).map(|address| address.to_string()).collect();
        assert_eq!(found, ["10.0.0.1", "::1"]);
    }
}
