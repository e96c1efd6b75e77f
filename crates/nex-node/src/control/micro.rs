//! What a micro service answers to PING, INFO and STATS: the node's own, and the functions', for which the node answers: it has their
//! counters, whoever takes their calls.

use std::sync::atomic::Ordering;

use nex_protocol::subject::{Discovery, function_service};
use serde_json::{Value, json};

use crate::call_reporter::TriggerCounters;
use crate::workload::Workload;

/// What a function is without a version: it has a digest.
const NO_VERSION: &str = "0.0.0";

/// A service, as discovery shows it.
pub(super) struct Service {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) version: &'static str,
    pub(super) description: String,
    pub(super) metadata: Value,
    pub(super) started: jiff::Timestamp,
    pub(super) endpoints: Vec<Served>,
}

/// A subject that it serves, and how much.
pub(super) struct Served {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) queue: String,
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) nanos: u64,
    pub(super) last_error: String,
}

impl Service {
    /// A workload that is called.
    pub(super) fn of_function(workload: &Workload) -> Self {
        let spec = &workload.spec;
        let queue = nex_protocol::subject::trigger_queue(&spec.namespace, &spec.name);
        Self {
            name: function_service(&spec.namespace, &spec.name),
            id: spec.id.to_string(),
            version: NO_VERSION,
            description: spec.description.clone(),
            metadata: json!({
                "namespace": spec.namespace, "workload": spec.name, "type": spec.kind, "digest": spec.artifact.digest.to_string(),
            }),
            started: jiff::Timestamp::from_second(spec.deployed_at).unwrap_or_default(),
            endpoints: workload.counters.all().iter().map(|counters| Served::of_trigger(counters, &queue)).collect(),
        }
    }

    /// The answer to a question.
    pub(super) fn answer(&self, question: Discovery) -> Value {
        let kind = question.as_str();
        let mut answer = json!({
            "type": format!("io.nats.micro.v1.{kind}_response"), "name": self.name, "id": self.id, "version": self.version,
            "metadata": self.metadata,
        });
        let more = match question {
            Discovery::Ping => json!({}),
            Discovery::Info => {
                json!({"description": self.description, "endpoints": self.endpoints.iter().map(Served::info).collect::<Value>()})
            }
            Discovery::Stats => {
                json!({"started": self.started.to_string(), "endpoints": self.endpoints.iter().map(Served::stats).collect::<Value>()})
            }
        };
        if let (Some(answer), Value::Object(more)) = (answer.as_object_mut(), more) {
            answer.extend(more);
        }
        answer
    }
}

impl Served {
    fn of_trigger(counters: &TriggerCounters, queue: &str) -> Self {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (succeeded, failed) = (count(&counters.succeeded), count(&counters.failed));
        Self {
            name: endpoint_name(&counters.trigger),
            subject: counters.trigger.clone(),
            queue: queue.to_owned(),
            requests: succeeded.saturating_add(failed),
            errors: failed,
            nanos: count(&counters.nanos),
            last_error: counters.last_error(),
        }
    }

    fn info(&self) -> Value {
        json!({"name": self.name, "subject": self.subject, "queue_group": self.queue, "metadata": {}})
    }

    fn stats(&self) -> Value {
        json!({
            "name": self.name, "subject": self.subject, "queue_group": self.queue, "num_requests": self.requests,
            "num_errors": self.errors, "processing_time": self.nanos,
            "average_processing_time": self.nanos.checked_div(self.requests).unwrap_or_default(), "last_error": self.last_error,
        })
    }
}

/// A subject in the letters that names of endpoints may have.
pub(super) fn endpoint_name(subject: &str) -> String {
    subject.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect()
}
