//! `http`: the listener for requests to functions.

use std::collections::BTreeMap;
use std::time::Duration;

use nex_http::{HttpConfig, TlsFiles};
use nex_protocol::id::Namespace;

use super::raw::RawHttp;

/// Largest body of a request if nothing is said, and the most that may be said, bytes.
const BODY: usize = 1024 * 1024;
const MAX_BODY: usize = 64 * 1024 * 1024;
/// Longest time until a function has answered, if nothing is said, and the most, ms.
const TIMEOUT: u64 = 30_000;
const MAX_TIMEOUT: u64 = 10 * 60 * 1000;
/// Most host names.
const MAX_HOSTS: usize = 1_000;

/// Resolves it, and says what is wrong.
pub(super) fn resolve(raw: &RawHttp, problems: &mut Vec<String>) -> Option<HttpConfig> {
    let before = problems.len();
    let listen = raw.listen.parse();
    if listen.is_err() {
        problems.push(format!("http.listen: '{}' is no address with a port, such as 127.0.0.1:8080", raw.listen));
    }
    let mut namespace = |what: &str, text: &str| match text.parse::<Namespace>() {
        Ok(namespace) => Some(namespace),
        Err(_) => {
            problems.push(format!("{what}: '{text}' is not a namespace"));
            None
        }
    };
    let own = namespace("http.namespace", raw.namespace.as_deref().unwrap_or("default"));
    let mut hosts = BTreeMap::new();
    for (host, text) in &raw.hosts {
        hosts.extend(namespace(&format!("http.hosts.{host}"), text).map(|namespace| (host.to_ascii_lowercase(), namespace)));
    }
    if raw.hosts.len() > MAX_HOSTS {
        problems.push(format!("http.hosts: there are more than {MAX_HOSTS}"));
    }
    for host in raw.hosts.keys().filter(|host| host.is_empty() || host.contains([':', '/', ' '])) {
        problems.push(format!("http.hosts: '{host}' is no name of a host; it has no scheme and no port"));
    }
    let max_body_bytes = raw.max_body_bytes.unwrap_or(BODY);
    if max_body_bytes == 0 || max_body_bytes > MAX_BODY {
        problems.push(format!("http.max_body_bytes: expected 1 to {MAX_BODY}"));
    }
    let timeout = raw.timeout_ms.unwrap_or(TIMEOUT);
    if timeout == 0 || timeout > MAX_TIMEOUT {
        problems.push(format!("http.timeout_ms: expected 1 to {MAX_TIMEOUT}"));
    }
    let tls = raw.tls.as_ref().map(|tls| TlsFiles { certificates: tls.cert.clone(), key: tls.key.clone() });
    let (Ok(listen), Some(namespace), true) = (listen, own, problems.len() == before) else { return None };
    Some(HttpConfig { listen, namespace, hosts, tls, max_body_bytes, timeout: Duration::from_millis(timeout) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NodeConfig, RawConfig};

    #[test]
    fn a_listener_has_bounds_and_nonsense_is_named() {
        let config = |text: &str| NodeConfig::resolve(RawConfig::parse(text).unwrap());
        assert_eq!(config("{}").unwrap().http, None);
        let http = config(r#"{"http":{"listen":"127.0.0.1:8080","hosts":{"Shop.example":"shop"}}}"#).unwrap().http.unwrap();
        assert_eq!((http.namespace.as_str(), http.max_body_bytes, http.timeout.as_secs()), ("default", BODY, 30));
        assert_eq!(http.hosts.get("shop.example").map(Namespace::as_str), Some("shop"));
        for (text, expected) in [
            (r#"{"listen":"8080"}"#, "http.listen"),
            (r#"{"listen":":8080"}"#, "http.listen"),
            (r#"{}"#, "http.listen"),
            (r#"{"listen":"[::]:1","namespace":"a.b"}"#, "http.namespace"),
            (r#"{"listen":"[::]:1","hosts":{"a":"b.c"}}"#, "http.hosts.a"),
            (r#"{"listen":"[::]:1","hosts":{"a:80":"b"}}"#, "no port"),
            (r#"{"listen":"[::]:1","max_body_bytes":0}"#, "http.max_body_bytes"),
            (r#"{"listen":"[::]:1","timeout_ms":9999999}"#, "http.timeout_ms"),
        ] {
            let said = config(&format!(r#"{{"http":{text}}}"#)).unwrap_err().to_string();
            assert!(said.contains(expected), "{text}: {said}");
        }
        assert!(RawConfig::parse(r#"{"http":{"listen":"[::]:1","port":1}}"#).is_err());
    }
}
