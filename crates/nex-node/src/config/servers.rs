//! NATS servers that workloads may be connected to on a deployer's word.

use async_nats::ServerAddr;

/// Servers by host and port.
///
/// What a deployer names is compared as it is written, no name is looked up: a server is allowed under the name that the operator gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerList(Vec<(String, u16)>);

impl ServerList {
    /// The servers that a configuration lists.
    pub fn new<'a>(urls: impl IntoIterator<Item = &'a String>, problems: &mut Vec<String>) -> Self {
        let mut list = Vec::new();
        for url in urls {
            match address(url) {
                Some(address) => list.push(address),
                None => problems.push(format!("allow_nats_urls: '{url}' is no URL of a NATS server, such as nats://host:4222")),
            }
        }
        Self(list)
    }

    /// The list and more servers; those that are no servers are left out.
    #[must_use]
    pub fn with(mut self, urls: &[String]) -> Self {
        self.0.extend(urls.iter().filter_map(|url| address(url)));
        self
    }

    /// Whether all of these are listed.
    #[must_use]
    pub fn has_all(&self, urls: &[String]) -> bool {
        urls.iter().all(|url| address(url).is_some_and(|address| self.0.contains(&address)))
    }
}

fn address(url: &str) -> Option<(String, u16)> {
    let server: ServerAddr = url.parse().ok()?;
    Some((server.host().to_ascii_lowercase(), server.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_its_host_and_port_whatever_stands_around_them() {
        let mut problems = Vec::new();
        let list = ServerList::new(&["nats://Example.com".into(), "10.0.0.1:4333".into(), "a b".into()], &mut problems);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let has = |url: &str| list.has_all(&[url.to_owned()]);
        for url in ["example.com:4222", "tls://me:secret@example.com", "nats://10.0.0.1:4333"] {
            assert!(has(url), "{url}");
        }
        for url in ["example.com:80", "10.0.0.1", "example.com.evil.net", "nats://example.com@evil.net", "http://[", ""] {
            assert!(!has(url), "{url}");
        }
        assert!(!list.has_all(&["example.com".into(), "evil.net".into()]));
        assert!(list.with(&["evil.net".into()]).has_all(&["example.com".into(), "evil.net".into()]));
    }
}
