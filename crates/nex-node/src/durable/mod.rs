//! Triggers that keep their messages until they are dealt with: `stream:`, `kv:`, `object:`, and the schedules.
//!
//! The node reads them, whoever runs the function: a durable pull consumer for each, named for namespace, workload and source, so that all
//! copies on all nodes share it and the next process goes on where this one was. [`lane`] asks for messages, [`delivery`] deals with one,
//! [`verdict`] says what becomes of it, [`dead`] keeps what was given up; [`ordered`] has those of a key wait for each other.

mod board;
mod consumer;
mod credit;
mod dead;
mod delivery;
mod failure;
mod jetstream;
mod key_queues;
mod lane;
mod ordered;
mod schedule;
mod stuck;
mod turns;
mod verdict;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use nex_process::{Deadline, TaskScope};
use nex_protocol::control::TriggerSummary;
use nex_protocol::trigger::{DurableTrigger, Place, Source};
use tokio::sync::Semaphore;

pub use failure::TriggerFailure;

use crate::call_reporter::CallReporter;
use crate::called::Called;
use crate::connections::Connections;
use crate::identity::Identity;
use crate::trigger::AGENT_SLACK;
use crate::workload::spec::WorkloadSpec;
use board::Board;
use consumer::Wanted;
use delivery::Deliverer;
use jetstream::JetStream;
use lane::Lane;

/// The durable triggers of a node's workloads.
#[derive(Debug)]
pub struct DurableTriggers {
    connections: Connections,
    /// Subjects that are nobody's triggers.
    denied: Arc<[String]>,
    /// The node, which seals what only deployers may see.
    identity: Arc<Identity>,
    board: Board,
}

/// What a durable trigger calls.
#[derive(Debug)]
pub struct Callee<'a> {
    /// The function or service.
    pub called: &'a Called,
    /// What hears of its calls.
    pub reporter: &'a CallReporter,
    /// Calls it may have under way.
    pub slots: &'a Arc<Semaphore>,
}

impl DurableTriggers {
    /// On these connections; no trigger hears the denied subjects.
    #[must_use]
    pub fn new(connections: Connections, denied: &[String], identity: Arc<Identity>) -> Self {
        Self { connections, denied: denied.into(), identity, board: Board::default() }
    }

    /// Finds or makes all that the triggers of a new workload need, so that what is wrong is said before it runs.
    ///
    /// # Errors
    /// [`TriggerFailure`]; consumers made for it are deleted again.
    pub async fn bind(&self, spec: &WorkloadSpec, by: Deadline) -> Result<(), TriggerFailure> {
        if spec.durable.is_empty() {
            return Ok(());
        }
        let jetstream = self.jetstream(spec, by).await?;
        let mut made = Vec::new();
        for trigger in &spec.durable {
            if let Err(failure) = self.bind_one(&jetstream, spec, trigger, &mut made).await {
                for place in made {
                    jetstream.retire(spec, &place).await.ok();
                }
                return Err(failure);
            }
        }
        Ok(())
    }

    async fn bind_one(
        &self,
        jetstream: &JetStream,
        spec: &WorkloadSpec,
        trigger: &DurableTrigger,
        made: &mut Vec<Place>,
    ) -> Result<(), TriggerFailure> {
        let place = trigger.place(&spec.namespace, &spec.name);
        let schedule = match &trigger.source {
            Source::Schedule(schedule) => Some(schedule),
            Source::Stream { .. } | Source::Kv { .. } | Source::Object { .. } => None,
        };
        let now = match schedule {
            Some(_) => jetstream.keep_schedules(&spec.namespace).await?,
            None => None,
        };
        let wanted = Wanted { trigger, place: &place, denied: &self.denied, seen: None, concurrency: spec.limits.concurrency };
        let bound = jetstream.bind(&wanted).await?;
        if bound.is_new {
            made.push(place.clone());
        }
        if let Some(schedule) = schedule {
            if bound.is_new && schedule::is_over(schedule) {
                return Err(TriggerFailure::Over(schedule.to_string()));
            }
            jetstream.schedule(&spec.namespace, &place, schedule, now).await?;
        }
        if trigger.delivery.keeps_dead {
            jetstream.keep_dead_letters(spec, bound.replicas).await?;
        }
        Ok(())
    }

    /// Serves the triggers of an instance that runs; the scope ends that. What cannot be served now is served as soon as it can.
    ///
    /// # Errors
    /// When the workload's connection cannot be made.
    pub async fn serve(
        &self,
        spec: &Arc<WorkloadSpec>,
        callee: Callee<'_>,
        by: Deadline,
    ) -> Result<Option<TaskScope>, TriggerFailure> {
        if spec.durable.is_empty() {
            return Ok(None);
        }
        let jetstream = self.jetstream(spec, by).await?;
        let scope = TaskScope::new("durable triggers");
        let entries = self.board.open(&spec.id, spec.durable.iter().map(|trigger| summary(spec, trigger)));
        for (trigger, entry) in spec.durable.iter().zip(entries) {
            let deliverer = Deliverer {
                jetstream: jetstream.clone(),
                identity: Arc::clone(&self.identity),
                spec: Arc::clone(spec),
                trigger: Arc::clone(trigger),
                text: trigger.to_string().into(),
                place: trigger.place(&spec.namespace, &spec.name),
                called: callee.called.clone(),
                reporter: callee.reporter.clone(),
                entry,
                slots: Arc::clone(callee.slots),
                queued: AtomicUsize::new(0),
                stop: scope.cancel_token(),
            };
            let lane = Lane {
                deliverer: Arc::new(deliverer),
                denied: Arc::clone(&self.denied),
                concurrency: spec.limits.concurrency,
                drain: spec.call_timeout() + AGENT_SLACK,
            };
            scope.spawn("trigger", lane.run(scope.cancel_token()));
        }
        Ok(Some(scope))
    }

    /// Deletes the consumers of a workload that was stopped for good, but those that other copies share. What cannot be deleted is logged.
    pub async fn retire(&self, spec: &WorkloadSpec, shared_with: &[Arc<WorkloadSpec>], by: Deadline) {
        if spec.durable.is_empty() {
            return;
        }
        self.board.close(&spec.id);
        let places_of = |spec: &WorkloadSpec| -> Vec<Place> {
            spec.durable.iter().map(|trigger| trigger.place(&spec.namespace, &spec.name)).collect()
        };
        let kept: Vec<_> = shared_with.iter().flat_map(|other| places_of(other)).collect();
        let unread: Vec<_> = places_of(spec).into_iter().filter(|place| !kept.contains(place)).collect();
        let deleted = async {
            let jetstream = self.jetstream(spec, by).await?;
            for place in &unread {
                jetstream.retire(spec, place).await?;
            }
            Ok::<_, TriggerFailure>(())
        };
        if let Err(failure) = by.bound(deleted).await.unwrap_or(Ok(())) {
            tracing::warn!(workload_id = %spec.id, "consumers of a stopped workload are left: {failure}");
        }
        // Made again for this, where it was its own.
        drop(self.connections.forget(&spec.id));
    }

    /// Forgets what was seen of a workload.
    pub fn forget(&self, spec: &WorkloadSpec) {
        self.board.close(&spec.id);
    }

    /// What is seen of a workload's triggers.
    #[must_use]
    pub fn of(&self, spec: &WorkloadSpec) -> Vec<TriggerSummary> {
        match spec.durable.is_empty() {
            true => Vec::new(),
            false => self.board.read(&spec.id),
        }
    }

    async fn jetstream(&self, spec: &WorkloadSpec, by: Deadline) -> Result<JetStream, TriggerFailure> {
        Ok(JetStream::new(self.connections.durable(spec, by).await?))
    }
}

fn summary(spec: &WorkloadSpec, trigger: &DurableTrigger) -> TriggerSummary {
    let Place { stream, consumer, .. } = trigger.place(&spec.namespace, &spec.name);
    TriggerSummary { trigger: trigger.to_string(), state: "starting".to_owned(), stream, consumer, ..TriggerSummary::default() }
}
