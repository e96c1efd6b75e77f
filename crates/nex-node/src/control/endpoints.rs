//! The node's subscriptions as a NATS micro service: what it serves and how much, for other NATS tools.
//!
//! The service framework of the client library answers discovery to any reply subject with the node's rights, and queues requests
//! without a bound on their bytes; so the few subjects are served here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nex_protocol::id::NodeId;
use nex_protocol::subject::Control;
use serde_json::json;

use crate::control::micro::{Served, Service, endpoint_name};

/// Name of the service.
pub(super) const SERVICE: &str = "nex";

/// One subscribed subject of the control API.
#[derive(Debug)]
pub(super) struct Endpoint {
    name: String,
    /// The subscribed pattern.
    pub(super) subject: String,
    requests: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
}

impl Endpoint {
    /// Counts a request that was answered.
    pub(super) fn count(&self, took: Duration, is_error: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(is_error), Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn served(&self, node: &NodeId) -> Served {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Served {
            name: self.name.clone(),
            subject: self.subject.clone(),
            queue: node.to_string(),
            requests: count(&self.requests),
            errors: count(&self.errors),
            nanos: count(&self.nanos),
            last_error: String::new(),
        }
    }
}

/// The service of one node.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    /// This one among the nodes.
    instance: String,
    node: NodeId,
    nexus: String,
    version: &'static str,
    started: jiff::Timestamp,
}

impl Endpoints {
    /// The endpoints of a node.
    pub(super) fn new(node: &NodeId, nexus: &str, version: &'static str) -> Self {
        let endpoint = |subject: String| {
            let name = endpoint_name(subject.trim_start_matches("$NEX.")).replace(node.as_str(), "node");
            Endpoint { name, subject, requests: AtomicU64::new(0), errors: AtomicU64::new(0), nanos: AtomicU64::new(0) }
        };
        Self {
            all: Control::subscriptions(node).map(endpoint).into(),
            instance: format!("{:016x}", rand::random::<u64>()),
            node: node.clone(),
            nexus: nexus.to_owned(),
            version,
            started: jiff::Timestamp::now(),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Endpoint] {
        &self.all
    }

    /// The node as other NATS tools see it.
    pub(super) fn service(&self) -> Service {
        Service {
            name: SERVICE.to_owned(),
            id: self.instance.clone(),
            version: self.version,
            description: "NATS execution engine: node control API".to_owned(),
            metadata: json!({"node": self.node, "nexus": self.nexus}),
            started: self.started,
            endpoints: self.all.iter().map(|endpoint| endpoint.served(&self.node)).collect(),
        }
    }
}
