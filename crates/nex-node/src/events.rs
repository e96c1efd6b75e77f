//! What the node tells the world: CloudEvents on `$NEX.events.<namespace>.<type>`.

use std::sync::Arc;
use std::time::Duration;

use nex_protocol::control::Tags;
use nex_protocol::event::{CloudEvent, SYSTEM, kind};
use nex_protocol::id::{AgentId, Namespace, NodeId, WorkloadId};
use nex_protocol::subject;
use serde_json::{Value, json};

use crate::clock;
use crate::history::History;
use crate::journal::{Damage, OwedEvent};
use crate::outbox::Outbox;
use crate::workload::outcome::End;
use crate::workload::spec::WorkloadSpec;

/// Publishes events of one node. Cheap to clone. Nobody waits for NATS here, see [`Outbox`].
#[derive(Debug, Clone)]
pub struct Events {
    outbox: Outbox,
    history: History,
    node: Arc<NodeId>,
    version: &'static str,
}

impl Events {
    /// Events of this node.
    #[must_use]
    pub fn new(outbox: Outbox, history: History, node: &NodeId, version: &'static str) -> Self {
        Self { outbox, history, node: Arc::new(node.clone()), version }
    }

    /// The node is ready.
    pub fn node_started(&self, tags: &Tags) {
        self.node_event(kind::NODE_STARTED, json!({"version": self.version, "id": self.node.as_str(), "tags": tags}));
    }

    /// Its journal was damaged.
    pub fn journal_damaged(&self, damage: &Damage) {
        let data = json!({
            "id": self.node.as_str(), "message": damage.why, "kept": damage.kept.display().to_string(), "workloads": damage.workloads,
        });
        self.node_event(kind::JOURNAL_DAMAGED, data);
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

    /// What tells that a workload runs.
    #[must_use]
    pub fn deployed(&self, spec: &WorkloadSpec) -> OwedEvent {
        let data = json!({"workload_name": spec.name.as_str(), "code": 0, "workload_id": spec.id.as_str()});
        let event = self.about(kind::WORKLOAD_DEPLOYED, spec, data);
        OwedEvent { subject: subject::event(spec.namespace.as_str(), &event.r#type), event }
    }

    /// An instance of it was started, after so many restarts.
    pub fn started(&self, spec: &WorkloadSpec, restarts: u32) {
        let data = json!({"workload_name": spec.name.as_str(), "workload_id": spec.id.as_str(), "restarts": restarts});
        self.workload_event(kind::WORKLOAD_STARTED, spec, data);
    }

    /// It has ended, and is started again after a pause.
    pub fn restarting(&self, spec: &WorkloadSpec, end: &End, pause: Duration) {
        let End { cause, code, reason } = end;
        let data = json!({
            "workload_name": spec.name.as_str(), "workload_id": spec.id.as_str(), "cause": cause, "code": code, "reason": reason,
            "pause_ms": pause.as_millis(),
        });
        self.workload_event(kind::WORKLOAD_RESTARTING, spec, data);
    }

    /// A workload's health check fails; it is ended, and started again if it may.
    pub fn unhealthy(&self, spec: &WorkloadSpec, reason: &str) {
        let data = json!({"workload_name": spec.name.as_str(), "workload_id": spec.id.as_str(), "reason": reason});
        self.workload_event(kind::WORKLOAD_UNHEALTHY, spec, data);
    }

    /// An operator of the node stops what somebody else has started.
    pub fn stopped_by_operator(&self, spec: &WorkloadSpec, operator: &str) {
        let data = json!({
            "workload_name": spec.name.as_str(), "workload_id": spec.id.as_str(), "operator": operator, "issuer": spec.claims.iss,
        });
        self.workload_event(kind::WORKLOAD_STOPPED_BY_OPERATOR, spec, data);
    }

    /// What tells that a workload is gone for good.
    #[must_use]
    pub fn undeployed(&self, spec: &WorkloadSpec, end: &End) -> OwedEvent {
        end_of(&self.node, &spec.namespace, spec.name.as_str(), &spec.id, end)
    }

    /// Tells an event that the journal has.
    pub fn owed(&self, workload: &WorkloadId, event: &OwedEvent) {
        self.keep(&event.event);
        self.outbox.owed(event.key(workload), event);
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

    /// Keeps what tells of the life of a workload or a node. Calls and heartbeats are too many to be kept.
    fn keep(&self, event: &CloudEvent) {
        let is_kept =
            !matches!(event.r#type.as_str(), kind::HEARTBEAT | kind::FUNCTION_EXEC_SUCCEEDED | kind::FUNCTION_EXEC_FAILED);
        if is_kept {
            self.history.event(event.namespace.as_deref().unwrap_or(SYSTEM), event);
        }
    }

    fn send(&self, namespace: &str, event: &CloudEvent) {
        self.keep(event);
        let body = serde_json::to_vec(event).unwrap_or_default();
        self.outbox.event(subject::event(namespace, &event.r#type), body.into());
    }
}

/// What tells that a workload of a node is gone for good.
#[must_use]
pub fn end_of(node: &NodeId, namespace: &Namespace, name: &str, id: &WorkloadId, end: &End) -> OwedEvent {
    let End { cause, code, reason } = end;
    // The fields of both kinds of event that 0.2.7 has for this, and why by name.
    let data = json!({
        "workload_name": name, "code": code, "message": reason, "name": name, "reason": reason, "vmid": id.as_str(),
        "workload_id": id.as_str(), "cause": cause,
    });
    let mut event = CloudEvent::new(kind::WORKLOAD_UNDEPLOYED, format!("{node}-{id}"), clock::rfc3339(), data);
    event.namespace = Some(namespace.to_string());
    OwedEvent { subject: subject::event(namespace.as_str(), &event.r#type), event }
}
