//! What the node tells the world: CloudEvents on `$NEX.events.<namespace>.<type>`.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use nex_protocol::control::Tags;
use nex_protocol::event::{CloudEvent, SYSTEM, kind};
use nex_protocol::id::{Namespace, NodeId, WorkloadId, WorkloadName};
use nex_protocol::subject;
use serde_json::{Value, json};

use crate::clock;

/// Publishes events of one node. Cheap to clone. Publishing never fails its caller: an event that cannot be sent is logged.
#[derive(Debug, Clone)]
pub struct Events {
    nats: Client,
    node: Arc<NodeId>,
    version: &'static str,
}

impl Events {
    /// Events of this node on this connection.
    #[must_use]
    pub fn new(nats: Client, node: &NodeId, version: &'static str) -> Self {
        Self { nats, node: Arc::new(node.clone()), version }
    }

    /// The node is ready.
    pub async fn node_started(&self, tags: &Tags) {
        self.node_event(kind::NODE_STARTED, json!({"version": self.version, "id": self.node.as_str(), "tags": tags})).await;
    }

    /// The node has stopped.
    pub async fn node_stopped(&self) {
        self.node_event(kind::NODE_STOPPED, json!({"id": self.node.as_str(), "graceful": true})).await;
    }

    /// The node drains.
    pub async fn entered_lame_duck(&self) {
        self.node_event(kind::NODE_ENTERED_LAMEDUCK, json!({"version": self.version, "id": self.node.as_str()})).await;
    }

    /// The node lives.
    pub async fn heartbeat(&self, nexus: &str, uptime: &str, tags: &Tags, running: usize) {
        let data = json!({
            "version": self.version, "node_id": self.node.as_str(), "nexus": nexus, "uptime": uptime, "tags": tags, "running_machines": running,
        });
        self.node_event(kind::HEARTBEAT, data).await;
    }

    /// An agent shook hands.
    pub async fn agent_started(&self, agent: &WorkloadId, version: &str) {
        self.node_event(kind::AGENT_STARTED, json!({"agent_version": version, "agent_id": agent.as_str()})).await;
    }

    /// An agent is gone.
    pub async fn agent_stopped(&self, agent: &WorkloadId, message: &str, code: i32) {
        self.node_event(kind::AGENT_STOPPED, json!({"message": message, "code": code, "agent_id": agent.as_str()})).await;
    }

    /// A workload runs.
    pub async fn deployed(&self, namespace: &Namespace, id: &WorkloadId, name: &WorkloadName, message: &str) {
        let data = json!({"workload_name": name.as_str(), "code": 0, "message": message, "workload_id": id.as_str()});
        self.workload_event(kind::WORKLOAD_DEPLOYED, namespace, id, data).await;
    }

    /// A workload is gone for good.
    pub async fn undeployed(&self, namespace: &Namespace, id: &WorkloadId, name: &WorkloadName, code: i32, message: &str) {
        let data = json!({
            "workload_name": name.as_str(), "name": name.as_str(), "code": code, "message": message, "reason": message, "vmid": id.as_str(),
            "workload_id": id.as_str(),
        });
        self.workload_event(kind::WORKLOAD_UNDEPLOYED, namespace, id, data).await;
    }

    /// Calls of a function ended well; many within a moment make one event with their count.
    pub async fn executed(&self, namespace: &Namespace, name: &WorkloadName, trigger: &str, count: u64, elapsed: Duration) {
        let elapsed = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let mut data = json!({
            "workload_name": name.as_str(), "trigger_subject": trigger, "elapsed_nanos": elapsed, "namespace": namespace.as_str(),
        });
        if let Some(members) = data.as_object_mut().filter(|_| count != 1) {
            members.insert("executions".into(), count.into());
        }
        self.send(kind::FUNCTION_EXEC_SUCCEEDED, namespace.as_str(), self.node.to_string(), None, data).await;
    }

    /// A call of a function failed.
    pub async fn execution_failed(&self, namespace: &Namespace, name: &WorkloadName, trigger: &str, error: &str) {
        let data =
            json!({"workload_name": name.as_str(), "trigger_subject": trigger, "namespace": namespace.as_str(), "error": error});
        self.send(kind::FUNCTION_EXEC_FAILED, namespace.as_str(), self.node.to_string(), None, data).await;
    }

    async fn node_event(&self, kind: &str, data: Value) {
        self.send(kind, SYSTEM, self.node.to_string(), None, data).await;
    }

    async fn workload_event(&self, kind: &str, namespace: &Namespace, id: &WorkloadId, data: Value) {
        self.send(kind, namespace.as_str(), format!("{}-{id}", self.node), Some(namespace.to_string()), data).await;
    }

    async fn send(&self, kind: &str, namespace: &str, source: String, extension: Option<String>, data: Value) {
        let event = CloudEvent { namespace: extension, ..CloudEvent::new(kind, source, clock::rfc3339(), data) };
        let body = serde_json::to_vec(&event).unwrap_or_default();
        if let Err(error) = self.nats.publish(subject::event(namespace, kind), body.into()).await {
            tracing::warn!(event = kind, %error, "an event could not be published");
        }
    }
}
