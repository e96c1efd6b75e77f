//! The NATS server that a service is told of as `NATS_URL` where its deployer names none.
//!
//! It is the node's own, at the address at which a workload with a network of its own reaches it: a server of the host's loopback is at
//! the gateway's name from inside a machine, and where it always was for a jailed process. Nothing is offered that would give something
//! away: no address with a password in it, and none where workloads have servers apart from the node's. Where the node itself needs
//! credentials, only services with credentials of their own are told, for nobody else could log in; where the node makes users for
//! services, all of them have some, and what it offers are the servers that they are for.
//!
//! Under TLS the node's root certificates come with it. A client certificate does not: that is the node's own.

use std::net::Ipv4Addr;
use std::path::Path;

use nex_protocol::seal::{Environment, FILE, NATS_CREDS};

use crate::connections::Connections;
use crate::sandbox::Reach;

/// The variable that clients of NATS read.
pub const NATS_URL: &str = "NATS_URL";
/// That of a file with credentials.
pub const CREDENTIALS: &str = "NATS_CREDS";
/// That of a file with root certificates.
const ROOTS: &str = "NATS_CA";
/// The gateway's name inside a machine.
const HOST_NAME: &str = "host.nex.internal";
/// Largest file of root certificates that services are given, bytes: it is part of an environment, which has a bound itself.
const MAX_ROOTS: u64 = 64 * 1024;

/// What services are told of NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedNats {
    /// The servers, with commas.
    url: String,
    /// Root certificates, PEM.
    roots: Option<String>,
    /// Whether only services with credentials are told.
    wants_credentials: bool,
}

/// What services are offered, if anything.
#[must_use]
pub fn offer(connections: &Connections, reach: &Reach, makes_users: bool) -> Option<OfferedNats> {
    let node = connections.node_settings();
    // Clients that begin with TLS, or show a certificate, have to be told so by whoever deploys them.
    let is_for_the_node_only = node.tls_first || node.tls_cert.is_some();
    if is_for_the_node_only || (!makes_users && connections.configured().is_some()) {
        return None;
    }
    let uses_tls =
        node.tls_ca.is_some() || connections.node_demands_tls() || node.servers.iter().any(|url| url.starts_with("tls://"));
    // Those that share the host's network expect it to be as it is.
    let wants_credentials = !makes_users && (node.has_credentials() || matches!(reach, Reach::Everything));
    let url = as_seen(&node.servers, matches!(reach, Reach::Nothing), uses_tls)?;
    let roots = match node.tls_ca.as_deref().map(read_roots) {
        None => None,
        Some(Ok(roots)) => Some(roots),
        Some(Err(error)) => {
            tracing::warn!(%error, "services are not told of the NATS server: its root certificates cannot be given to them");
            return None;
        }
    };
    Some(OfferedNats { url, roots, wants_credentials })
}

impl OfferedNats {
    /// Puts it into the environment of a service that does not say itself where NATS is.
    pub(crate) fn put_into(&self, environment: &mut Environment) {
        let has = |environment: &Environment, name: &str| {
            let member = |own: &String| own.eq_ignore_ascii_case(name) || own.strip_prefix(FILE) == Some(name);
            environment.keys().any(member)
        };
        let has_credentials = environment.contains_key(NATS_CREDS) || has(environment, CREDENTIALS);
        if has(environment, NATS_URL) || (self.wants_credentials && !has_credentials) {
            return;
        }
        environment.insert(NATS_URL.to_owned(), self.url.clone());
        if let Some(roots) = self.roots.as_ref().filter(|_| !has(environment, ROOTS)) {
            environment.insert(format!("{FILE}{ROOTS}"), roots.clone());
        }
    }
}

/// A file of root certificates, if it is one that can be part of an environment.
fn read_roots(path: &Path) -> std::io::Result<String> {
    let length = std::fs::metadata(path)?.len();
    if length > MAX_ROOTS {
        let text = format!(
            "{} has {length} bytes, more than {MAX_ROOTS}; next: name a file with the server's authority only",
            path.display()
        );
        return Err(std::io::Error::other(text));
    }
    std::fs::read_to_string(path)
}

/// The servers as a workload writes them; nothing if one of them is not plain NATS, carries a password, or has a certificate for another
/// name than the workload calls it by.
fn as_seen(servers: &[String], from_machine: bool, uses_tls: bool) -> Option<String> {
    let scheme = if uses_tls { "tls" } else { "nats" };
    let seen = servers.iter().map(|server| {
        let address = match server.split_once("://") {
            Some(("nats", address)) => address,
            Some(("tls", address)) if uses_tls => address,
            Some(_) => return None,
            None => server,
        };
        let address = address.trim_end_matches('/');
        if address.is_empty() || address.contains(['@', '/']) {
            return None;
        }
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "4222"));
        let is_loopback = host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
        let is_renamed = from_machine && is_loopback;
        if is_renamed && uses_tls {
            return None;
        }
        let host = if is_renamed { HOST_NAME } else { host };
        port.parse::<u16>().ok().map(|port| format!("{scheme}://{host}:{port}"))
    });
    seen.collect::<Option<Vec<_>>>().filter(|seen| !seen.is_empty()).map(|seen| seen.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_the_loopback_is_at_the_gateway_for_machines_and_stays_where_it_is_for_processes() {
        let check = |servers: &[&str], from_machine, uses_tls, expected: Option<&str>| {
            let servers: Vec<String> = servers.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(as_seen(&servers, from_machine, uses_tls).as_deref(), expected, "{servers:?}");
        };
        check(&["nats://127.0.0.1:4222"], true, false, Some("nats://host.nex.internal:4222"));
        check(&["nats://127.0.0.1:4222"], false, false, Some("nats://127.0.0.1:4222"));
        let two = ["localhost", "nats://10.1.2.3:4333/"];
        check(&two, true, false, Some("nats://host.nex.internal:4222,nats://10.1.2.3:4333"));
        for refused in ["nats://me:secret@127.0.0.1:4222", "tls://127.0.0.1:4222", "ws://127.0.0.1:80", "nats://", "nats://a:b"] {
            check(&["nats://127.0.0.1:4222", refused], true, false, None);
        }
        check(&[], true, false, None);
        // No certificate is for the gateway's name.
        check(&two, true, true, None);
        check(&two, false, true, Some("tls://localhost:4222,tls://10.1.2.3:4333"));
        check(
            &["tls://nats.acme.com", "nats.acme.com:4333"],
            true,
            true,
            Some("tls://nats.acme.com:4222,tls://nats.acme.com:4333"),
        );
    }

    #[test]
    fn it_is_for_services_that_can_log_in_and_do_not_say_themselves_where_nats_is() {
        let offered = |wants_credentials| OfferedNats { url: "tls://a:1".into(), roots: Some("PEM".into()), wants_credentials };
        let check = |given: &[&str], wants_credentials, added: &[&str]| {
            let mut environment: Environment = given.iter().map(|name| ((*name).to_owned(), "own".to_owned())).collect();
            offered(wants_credentials).put_into(&mut environment);
            let new: Vec<_> = environment.iter().filter(|(_, value)| *value != "own").map(|(name, _)| name.as_str()).collect();
            assert_eq!(new, added, "{given:?}");
        };
        let both = ["NATS_URL", "nex:file:NATS_CA"];
        check(&[], false, &both);
        check(&[], true, &[]);
        check(&[NATS_CREDS], true, &both);
        check(&["nats_creds"], true, &both);
        check(&["nex:file:NATS_CREDS"], true, &both);
        check(&["nats_url"], false, &[]);
        check(&["NATS_CA"], false, &["NATS_URL"]);
        check(&["nex:file:NATS_CA"], false, &["NATS_URL"]);
    }

    #[test]
    fn root_certificates_are_read_as_far_as_they_are_bounded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "PEM").unwrap();
        assert_eq!(read_roots(file.path()).unwrap(), "PEM");
        file.as_file().set_len(MAX_ROOTS + 1).unwrap();
        assert!(read_roots(file.path()).unwrap_err().to_string().contains("next: name a file"));
    }
}
