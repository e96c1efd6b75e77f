//! The short way of a call: where nothing is given away by it, the agent subscribes a function's triggers itself.
//!
//! A relayed call crosses two more hops (measured: 1.6 times the time and half the throughput before any engine). The agent may have
//! the workload connection when that carries no credentials at all, or credentials that somebody meant for workloads; never the
//! node's own. It is given IP literals, for it resolves no names; a connection that needs TLS is relayed.

use nex_process::Deadline;
use nex_protocol::agent::DirectTriggers;
use nex_protocol::deploy::ConnectionDetails;
use nex_protocol::subject::trigger_queue;

use crate::connections::Connections;
use crate::sandbox::Reach;
use crate::workload::spec::WorkloadSpec;

/// Decides between the short way and the relay.
#[derive(Debug, Clone)]
pub struct Direct {
    connections: Connections,
    reach: Reach,
    /// Whether the node's servers let functions in without credentials, though the node itself has some.
    anonymous: bool,
}

impl Direct {
    /// For workloads on these connections; only to servers that agents reach.
    #[must_use]
    pub fn new(connections: Connections, reach: Reach, anonymous: bool) -> Self {
        Self { connections, reach, anonymous }
    }

    /// What the agent needs to subscribe by itself; nothing where the node has to relay.
    pub async fn triggers(&self, spec: &WorkloadSpec, by: Deadline) -> Option<DirectTriggers> {
        // With triggers of both kinds, one place has to count the calls under way.
        let is_for_agents = !spec.triggers.is_empty() && spec.durable.is_empty();
        if !spec.kind.is_function() || !is_for_agents || self.reach == Reach::Nothing {
            return None;
        }
        let named = spec.trigger_connection.as_ref().or(spec.host_services.as_ref());
        self.connections.permit(named).ok()?;
        let given = named.or(self.connections.configured());
        let node = self.connections.node_settings();
        let mut connection = match given {
            Some(details) => details.clone(),
            None if node.has_credentials() && !self.anonymous => return None,
            None => ConnectionDetails::default(),
        };
        let servers = if connection.nats_url.is_empty() {
            node.servers.clone()
        } else {
            nex_bus::settings::split_servers(&connection.nats_url)
        };
        let uses_tls = node.tls_first || node.tls_ca.is_some() || node.tls_cert.is_some() || self.connections.node_demands_tls();
        connection.nats_url =
            if uses_tls { return None } else { by.bound(as_ip_literals(&servers, &self.reach)).await.ok()?? };
        Some(DirectTriggers { connection, queue: trigger_queue(&spec.namespace, &spec.name), subjects: spec.triggers.clone() })
    }
}

/// The servers with their names looked up; nothing when one needs TLS, carries a password, cannot be looked up or is out of reach.
async fn as_ip_literals(servers: &[String], reach: &Reach) -> Option<String> {
    let mut literals = Vec::new();
    for server in servers {
        let address = server.strip_prefix("nats://").or_else(|| (!server.contains("://")).then_some(server.as_str()))?;
        let address = if address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            address.to_owned()
        } else {
            format!("{address}:4222")
        };
        if address.contains('@') {
            return None;
        }
        let found = tokio::net::lookup_host(&address).await.ok()?.find(|found| reach.includes(found))?;
        literals.push(format!("nats://{found}"));
    }
    (!literals.is_empty()).then(|| literals.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_plain_servers_within_reach_become_literals() {
        let all = &Reach::Everything;
        let literal = as_ip_literals(&["nats://127.0.0.1".into(), "127.0.0.1:4333".into()], all).await;
        assert_eq!(literal.as_deref(), Some("nats://127.0.0.1:4222,nats://127.0.0.1:4333"));
        assert_eq!(as_ip_literals(&["tls://127.0.0.1".into()], all).await, None);
        assert_eq!(as_ip_literals(&["nats://me:secret@127.0.0.1:4222".into()], all).await, None);
        let some = Reach::Only(vec!["127.0.0.1:4222".parse().unwrap()]);
        assert!(as_ip_literals(&["127.0.0.1".into()], &some).await.is_some());
        assert_eq!(as_ip_literals(&["127.0.0.1".into(), "127.0.0.1:4333".into()], &some).await, None);
    }
}
