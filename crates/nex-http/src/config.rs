//! What a listener is given.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nex_protocol::id::Namespace;

/// How to listen, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where.
    pub listen: SocketAddr,
    /// Whose functions are called, unless the host says otherwise.
    pub namespace: Namespace,
    /// Whose functions are called by which host name, in lower case and without a port.
    pub hosts: BTreeMap<String, Namespace>,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// Largest body of a request, bytes; what NATS takes bounds it as well.
    pub max_body_bytes: usize,
    /// Longest time until a function has answered.
    pub timeout: Duration,
}

/// Files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain of certificates, the server's own first.
    pub certificates: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl HttpConfig {
    /// For whom a request to this host is.
    pub(crate) fn namespace_of(&self, host: &str) -> &Namespace {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        self.hosts.get(&name.to_ascii_lowercase()).unwrap_or(&self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_be_another_namespaces() {
        let shop: Namespace = "shop".parse().unwrap();
        let config = HttpConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            namespace: "default".parse().unwrap(),
            hosts: BTreeMap::from([("shop.example".to_owned(), shop.clone())]),
            tls: None,
            max_body_bytes: 1,
            timeout: Duration::from_secs(1),
        };
        for host in ["shop.example", "Shop.Example:8080"] {
            assert_eq!(config.namespace_of(host), &shop);
        }
        for host in ["", "other.example", "shop.example.evil", "[::1]:80"] {
            assert_eq!(config.namespace_of(host).as_str(), "default", "{host}");
        }
    }
}
