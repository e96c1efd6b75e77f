//! The node's subscriptions as a NATS micro service: what it serves and how much, for other NATS tools.
//!
//! The service framework of the client library answers discovery to any reply subject with the node's rights, and queues requests
//! without a bound on their bytes; so the few subjects are served here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nex_protocol::id::NodeId;
use nex_protocol::subject::{Control, Discovery};
use serde_json::{Value, json};

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
}

/// The service of one node.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    /// This instance among those of the service.
    pub(super) instance: String,
    node: NodeId,
    nexus: String,
    version: &'static str,
    started: jiff::Timestamp,
}

impl Endpoints {
    /// The endpoints of a node.
    pub(super) fn new(node: &NodeId, nexus: &str, version: &'static str) -> Self {
        let endpoint = |subject: String| {
            let name = subject.trim_start_matches("$NEX.").replace(['*', '>', '.'], "-").replace(node.as_str(), "node");
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

    /// The answer to a question of discovery.
    pub(super) fn describe(&self, question: Discovery) -> Value {
        let kind = match question {
            Discovery::Ping => "ping",
            Discovery::Info => "info",
            Discovery::Stats => "stats",
        };
        let mut answer = json!({
            "type": format!("io.nats.micro.v1.{kind}_response"), "name": SERVICE, "id": self.instance, "version": self.version,
            "metadata": {"node": self.node, "nexus": self.nexus},
        });
        let (key, value) = match question {
            Discovery::Ping => return answer,
            Discovery::Info => {
                if let Some(members) = answer.as_object_mut() {
                    members.insert("description".to_owned(), "NATS execution engine: node control API".into());
                }
                ("endpoints", self.all.iter().map(|it| self.info(it)).collect::<Value>())
            }
            Discovery::Stats => {
                if let Some(members) = answer.as_object_mut() {
                    members.insert("started".to_owned(), self.started.to_string().into());
                }
                ("endpoints", self.all.iter().map(|it| self.stats(it)).collect())
            }
        };
        if let Some(members) = answer.as_object_mut() {
            members.insert(key.to_owned(), value);
        }
        answer
    }

    fn info(&self, endpoint: &Endpoint) -> Value {
        json!({"name": endpoint.name, "subject": endpoint.subject, "queue_group": self.node, "metadata": {}})
    }

    fn stats(&self, endpoint: &Endpoint) -> Value {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (requests, nanos) = (count(&endpoint.requests), count(&endpoint.nanos));
        json!({
            "name": endpoint.name, "subject": endpoint.subject, "queue_group": self.node, "num_requests": requests,
            "num_errors": count(&endpoint.errors), "processing_time": nanos,
            "average_processing_time": nanos.checked_div(requests).unwrap_or_default(), "last_error": "",
        })
    }
}
