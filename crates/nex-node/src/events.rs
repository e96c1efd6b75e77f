//! What the node tells the world: CloudEvents on `$NEX.events.<namespace>.<type>`.

use std::sync::Arc;
use std::time::Duration;

use nex_protocol::control::Tags;
use nex_protocol::event::{CloudEvent, SYSTEM, kind};
use nex_protocol::id::{AgentId, NodeId, WorkloadId};
use nex_protocol::subject;
use serde_json::{Value, json};

use crate::clock;
use crate::journal::OwedEvent;
use crate::outbox::Outbox;
use crate::workload::spec::WorkloadSpec;

/// Publishes events of one node. Cheap to clone. Nobody waits for NATS here, see [`Outbox`].
#[derive(Debug, Clone)]
pub struct Events {
    outbox: Outbox,
    node: Arc<NodeId>,
    version: &'static str,
}

impl Events {
    /// Events of this node.
    #[must_use]
    pub fn new(outbox: Outbox, node: &NodeId, version: &'static str) -> Self {
        Self { outbox, node: Arc::new(node.clone()), version }
    }

    /// The node is ready.
    pub fn node_started(&self, tags: &Tags) {
        self.node_event(kind::NODE_STARTED, json!({"version": self.version, "id": self.node.as_str(), "tags": tags}));
    }

    /// The node has stopped.
    pub fn node_stopped(&self) {
        self.node_event(kind::NODE_STOPPED, json!({"id": self.node.as_str(), "graceful": true}));
    }

    /// The node drains.
    pub fn entered_lame_duck(&self) {
        self.node_event(kind::NODE_ENTERED_LAMEDUCK, json!({"version": self.version, "id": self.node.as_str()}));
    }

    /// The node lives.
    pub fn heartbeat(&self, nexus: &str, uptime: &str, tags: &Tags, running: usize) {
        let data = json!({
            "version": self.version, "node_id": self.node.as_str(), "nexus": nexus, "uptime": uptime, "tags": tags, "running_machines": running,
        });
        self.node_event(kind::HEARTBEAT, data);
    }

    /// An agent shook hands.
    pub fn agent_started(&self, agent: &AgentId, version: &str) {
        self.node_event(kind::AGENT_STARTED, json!({"agent_version": version, "agent_id": agent.as_str()}));
    }

    /// The agent of a workload was lost.
    pub fn agent_stopped(&self, agent: &AgentId, message: &str) {
        let data = json!({"message": message, "code": -1, "agent_id": agent.as_str()});
        self.node_event(kind::AGENT_STOPPED, data);
    }

    /// A workload runs.
    pub fn deployed(&self, spec: &WorkloadSpec) {
        let data = json!({"workload_name": spec.name.as_str(), "code": 0, "workload_id": spec.id.as_str()});
        self.workload_event(kind::WORKLOAD_DEPLOYED, spec, data);
    }

    /// What tells that a workload is gone for good.
    #[must_use]
    pub fn undeployed(&self, spec: &WorkloadSpec, code: i32, message: &str) -> OwedEvent {
        // The fields of both kinds of event that 0.2.7 has for this.
        let data = json!({
            "workload_name": spec.name.as_str(), "code": code, "message": message, "name": spec.name.as_str(), "reason": message,
            "vmid": spec.id.as_str(), "workload_id": spec.id.as_str(),
        });
        let event = self.about(kind::WORKLOAD_UNDEPLOYED, spec, data);
        OwedEvent { subject: subject::event(spec.namespace.as_str(), &event.r#type), event }
    }

    /// Tells an event that the journal has.
    pub fn owed(&self, workload: &WorkloadId, event: &OwedEvent) {
        self.outbox.owed(workload.clone(), event);
    }

    /// Calls of a function ended well; many within a moment make one event with their count.
    pub fn executed(&self, spec: &WorkloadSpec, trigger: &str, count: u64, elapsed: Duration) {
        let elapsed = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let mut data = json!({
            "workload_name": spec.name.as_str(), "trigger_subject": trigger, "elapsed_nanos": elapsed, "namespace": spec.namespace.as_str(),
        });
        if let Some(members) = data.as_object_mut().filter(|_| count != 1) {
            members.insert("executions".into(), count.into());
        }
        let event = CloudEvent::new(kind::FUNCTION_EXEC_SUCCEEDED, self.node.to_string(), clock::rfc3339(), data);
        self.send(spec.namespace.as_str(), &event);
    }

    /// A call of a function failed.
    pub fn execution_failed(&self, spec: &WorkloadSpec, trigger: &str, error: &str) {
        let data = json!({
            "workload_name": spec.name.as_str(), "trigger_subject": trigger, "namespace": spec.namespace.as_str(), "error": error,
        });
        let event = CloudEvent::new(kind::FUNCTION_EXEC_FAILED, self.node.to_string(), clock::rfc3339(), data);
        self.send(spec.namespace.as_str(), &event);
    }

    fn node_event(&self, kind: &str, data: Value) {
        let event = CloudEvent::new(kind, self.node.to_string(), clock::rfc3339(), data);
        self.send(SYSTEM, &event);
    }

    fn workload_event(&self, kind: &str, spec: &WorkloadSpec, data: Value) {
        self.send(spec.namespace.as_str(), &self.about(kind, spec, data));
    }

    fn about(&self, kind: &str, spec: &WorkloadSpec, data: Value) -> CloudEvent {
        let mut event = CloudEvent::new(kind, format!("{}-{}", self.node, spec.id), clock::rfc3339(), data);
        event.namespace = Some(spec.namespace.to_string());
        event
    }

    fn send(&self, namespace: &str, event: &CloudEvent) {
        let body = serde_json::to_vec(event).unwrap_or_default();
        self.outbox.event(subject::event(namespace, &event.r#type), body.into());
    }
}
