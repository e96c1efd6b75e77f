//! An instance on a node from its start to its end: what it and its agent report is passed on, while it runs and while it is stopped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use nex_process::TaskScope;
use nex_protocol::agent::AgentEvent;
use nex_protocol::control::ExitCause;
use nex_protocol::deploy::StopSignal;
use nex_protocol::log::Level;

use super::cause;
use super::launched::Launched;
use super::outcome::Seen;
use super::spec::WorkloadSpec;
use crate::agents::inbox::{self, Inbox, LogBatch};
use crate::call_reporter::CallReporter;
use crate::host_calls::HostCallServer;
use crate::journal::RunningRecord;
use crate::logs::Log;

/// Longest complaint of a health check, bytes.
const COMPLAINT: usize = 1_024;

/// An instance on a node, and the tasks that serve it.
pub(super) struct NodeInstance {
    launched: Launched,
    lost: BoxFuture<'static, String>,
    serving: TaskScope,
}

/// Where what an instance reports goes.
#[derive(Clone)]
pub(super) struct Reports {
    log: Arc<Mutex<Log>>,
    /// What its calls come to.
    pub(super) calls: CallReporter,
}

impl NodeInstance {
    /// Begins to serve its host calls.
    pub(super) fn new(mut launched: Launched, host_calls: &HostCallServer, spec: Arc<WorkloadSpec>, serving: TaskScope) -> Self {
        if let Some(calls) = launched.instance.inbox.host_calls.take() {
            host_calls.serve(&serving, spec, calls);
        }
        let lost = launched.instance.agent().lost();
        Self { launched, lost: Box::pin(async move { lost.await.to_string() }), serving }
    }

    /// What the journal keeps of it.
    pub(super) fn record(&self) -> RunningRecord {
        self.launched.record()
    }

    /// Waits for what it comes to. Where its agent is lost, `tells_of_loss` says whether this is the workload that tells the world so.
    pub(super) async fn watch(&mut self, spec: &WorkloadSpec, reports: &Reports, tells_of_loss: &mut bool) -> Seen {
        let Self { launched, lost, .. } = self;
        let (agent, is_shared) = (launched.instance.agent().id().clone(), launched.is_shared());
        let Inbox { events, logs, .. } = &mut launched.instance.inbox;
        loop {
            tokio::select! {
                // What it said comes before the news of its end.
                biased;
                Some(event) = events.recv() => match event {
                    AgentEvent::Exited { code, message: signal } => {
                        // Its last lines were sent before this event.
                        while let Some(batch) = logs.try_recv() {
                            reports.lines(batch);
                        }
                        let memory = launched.instance.agent().memory();
                        let (cause, why) = cause::of_exit(code, &signal, memory);
                        reports.say(why.as_deref());
                        let signal = why.unwrap_or(signal);
                        let suffix = if signal.is_empty() { String::new() } else { format!(" ({signal})") };
                        let message = format!("Exited workload: {}; vm: {}; status: {code}{suffix}", spec.name, spec.id);
                        return Seen::Exited { cause, code, signal, message };
                    }
                    // Nobody here asked for it: the process that did was killed before it could tell so.
                    AgentEvent::Stopped => {
                        let reason = format!("the agent of {} had stopped it", spec.name);
                        return Seen::AgentLost { cause: ExitCause::Lost, agent, reason };
                    }
                    AgentEvent::Stuck { message } if is_shared => {
                        let why = launched.give_up(spec, &bounded(message));
                        reports.say(Some(&why));
                        *tells_of_loss = launched.instance.agent().is_untold();
                        return Seen::AgentLost { cause: ExitCause::Limit, agent, reason: why };
                    }
                    // It has one thread less, and nobody else's.
                    AgentEvent::Stuck { message } => reports.say(Some(&bounded(message))),
                    AgentEvent::Health { healthy: true, .. } => return Seen::Healthy,
                    AgentEvent::Health { healthy: false, message } => return Seen::Sick(bounded(message)),
                    calls @ AgentEvent::Calls { .. } => reports.calls(calls),
                },
                why = &mut *lost => {
                    while let Some(batch) = logs.try_recv() {
                        reports.lines(batch);
                    }
                    let lost_agent = launched.instance.agent();
                    let (cause, used_up) = cause::of_loss(lost_agent.memory());
                    reports.say(used_up.as_deref());
                    let why = used_up.unwrap_or(why);
                    let shared = if is_shared { ", which it shared," } else { "" };
                    let reason = format!("the agent of {}{shared} was lost: {why}", spec.name);
                    *tells_of_loss = lost_agent.is_untold();
                    return Seen::AgentLost { cause, agent, reason };
                }
                Some(batch) = logs.recv() => reports.lines(batch),
            }
        }
    }

    /// Has its agent stop it within a grace, and ends it.
    pub(super) async fn undeploy(self, reports: Reports, grace: Duration, signal: Option<StopSignal>) {
        let Self { mut launched, serving, .. } = self;
        // Read while it is stopped: its last lines, and calls that end now.
        let mut inbox = std::mem::replace(&mut launched.instance.inbox, inbox::closed());
        let undeployed = async {
            launched.undeploy(grace, signal).await;
            launched
        };
        tokio::pin!(undeployed);
        let launched = loop {
            tokio::select! {
                launched = &mut undeployed => break launched,
                Some(event) = inbox.events.recv() => reports.calls(event),
                Some(batch) = inbox.logs.recv() => reports.lines(batch),
            }
        };
        while let Ok(event) = inbox.events.try_recv() {
            reports.calls(event);
        }
        while let Some(batch) = inbox.logs.try_recv() {
            reports.lines(batch);
        }
        launched.end().await;
        serving.shutdown(Duration::ZERO).await;
    }

    /// Ends it; nothing is left of it then.
    pub(super) async fn end(self) {
        self.launched.end().await;
        self.serving.shutdown(Duration::ZERO).await;
    }
}

/// The beginning of what an agent says of its workload.
fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(COMPLAINT));
    text
}

impl Reports {
    /// To a log, and to what counts calls.
    pub(super) fn new(log: Log, calls: CallReporter) -> Self {
        Self { log: Arc::new(Mutex::new(log)), calls }
    }

    /// The log.
    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be read among the last lines.
    fn say(&self, text: Option<&str>) {
        if let Some(text) = text {
            self.log().line(Level::Error, text.to_owned());
        }
    }

    fn lines(&self, batch: LogBatch) {
        let mut log = self.log();
        log.lost(batch.logs.dropped, batch.lost_bytes);
        for line in batch.logs.lines {
            log.line(if line.stderr { Level::Error } else { Level::Info }, line.text);
        }
    }

    fn calls(&self, event: AgentEvent) {
        if let AgentEvent::Calls { trigger, succeeded, failed, elapsed_nanos, errors } = event {
            if succeeded > 0 {
                self.calls.succeeded(&trigger.as_str().into(), succeeded, elapsed_nanos);
            }
            if failed > 0 {
                self.calls.failed(&trigger, failed, errors.iter().map(String::as_str));
            }
        }
    }
}
