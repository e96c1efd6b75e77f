//! The NATS server that a service is told of as `NATS_URL` where its deployer names none.
//!
//! It is the node's own, at the address at which a workload with a network of its own reaches it: a server of the host's loopback is at
//! the gateway's name from inside a machine, and where it always was for a jailed process. Nothing is offered that would give something
//! away: no address with a password in it, none where the node itself needs credentials, and none where workloads have servers apart
//! from the node's. Where the node makes users for services, credentials are no hindrance, and what it offers are the servers that they are
//! for.

use std::net::Ipv4Addr;

use crate::connections::Connections;
use crate::sandbox::Reach;

/// The variable that clients of NATS read.
pub const NATS_URL: &str = "NATS_URL";
/// The gateway's name inside a machine.
const HOST_NAME: &str = "host.nex.internal";

/// What services are offered, if anything.
#[must_use]
pub fn offer(connections: &Connections, reach: &Reach, makes_users: bool) -> Option<String> {
    let node = connections.node_settings();
    let uses_tls = node.tls_first || node.tls_ca.is_some() || node.tls_cert.is_some() || connections.node_demands_tls();
    if uses_tls || (!makes_users && (node.has_credentials() || connections.configured().is_some())) {
        return None;
    }
    match reach {
        // They share the host's network, and what their authors expect of it.
        Reach::Everything if !makes_users => None,
        Reach::Everything | Reach::Only(_) => as_seen(&node.servers, false),
        Reach::Nothing => as_seen(&node.servers, true),
    }
}

/// The servers as a workload writes them; nothing if one of them is not plain NATS or carries a password.
fn as_seen(servers: &[String], from_machine: bool) -> Option<String> {
    let seen = servers.iter().map(|server| {
        let address = server.strip_prefix("nats://").or_else(|| (!server.contains("://")).then_some(server.as_str()))?;
        let address = address.trim_end_matches('/');
        if address.is_empty() || address.contains(['@', '/']) {
            return None;
        }
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "4222"));
        let is_loopback = host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
        let host = if from_machine && is_loopback { HOST_NAME } else { host };
        port.parse::<u16>().ok().map(|port| format!("nats://{host}:{port}"))
    });
    seen.collect::<Option<Vec<_>>>().filter(|seen| !seen.is_empty()).map(|seen| seen.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_the_loopback_is_at_the_gateway_for_machines_and_stays_where_it_is_for_processes() {
        let check = |servers: &[&str], from_machine, expected: Option<&str>| {
            let servers: Vec<String> = servers.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(as_seen(&servers, from_machine).as_deref(), expected, "{servers:?}");
        };
        check(&["nats://127.0.0.1:4222"], true, Some("nats://host.nex.internal:4222"));
        check(&["nats://127.0.0.1:4222"], false, Some("nats://127.0.0.1:4222"));
        check(&["localhost", "nats://10.1.2.3:4333/"], true, Some("nats://host.nex.internal:4222,nats://10.1.2.3:4333"));
        for refused in ["nats://me:secret@127.0.0.1:4222", "tls://127.0.0.1:4222", "ws://127.0.0.1:80", "nats://", "nats://a:b"] {
            check(&["nats://127.0.0.1:4222", refused], true, None);
        }
        check(&[], true, None);
    }
}
