//! The relay: messages on a function's trigger subjects become calls of its agent, and every one gets an answer; so do dead letters that
//! come back, of services as well.
//!
//! Used where the agent must not hold the credentials of the workload connection; see [`crate::direct`] for where it may.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, HeaderName, Message, Subscriber};
use futures::{FutureExt as _, StreamExt as _, stream};
use nex_bus::drain::Draining;
use nex_bus::service_error;
use nex_bus::streaming::word;
use nex_process::TaskScope;
use nex_protocol::agent::streaming::Word;
use nex_protocol::agent::{HostCalls, Invocation, InvocationError, Outcome, Reply, TriggerKind};
use nex_protocol::reply::ReplySubject;
use nex_protocol::subject::{redrive, trigger_queue};
use nex_protocol::trigger::dead;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::agents::{Begun, Invoked, Streamed};
use crate::call_reporter::CallReporter;
use crate::called::{Called, NobodyListens};
use crate::pieces::pass_on;
use crate::workload::spec::WorkloadSpec;

/// Time beyond a call's own limit in which the agent answers that the limit was reached.
pub(crate) const AGENT_SLACK: Duration = Duration::from_secs(1);

/// All that one relayed call needs.
struct Relay {
    nats: Client,
    called: Called,
    trigger: Arc<str>,
    /// Whether its messages are dead letters that come back.
    is_redrive: bool,
    call_timeout: Duration,
    permits: Arc<Semaphore>,
    reporter: CallReporter,
}

/// Subscribes a function's triggers; the scope ends the subscriptions, and waits for calls under way as long as its end may take.
///
/// # Errors
/// When the connection does not take a subscription.
pub async fn relay(
    nats: &Client,
    spec: &WorkloadSpec,
    called: &Called,
    reporter: &CallReporter,
    permits: &Arc<Semaphore>,
) -> Result<TaskScope, async_nats::SubscribeError> {
    let scope = TaskScope::new("triggers");
    let redrive = (!spec.durable.is_empty()).then(|| redrive(&spec.namespace, &spec.name));
    for trigger in spec.triggers.iter().chain(&redrive) {
        let subscription = nats.queue_subscribe(trigger.clone(), trigger_queue(&spec.namespace, &spec.name)).await?;
        let relay = Arc::new(Relay {
            nats: nats.clone(),
            called: called.clone(),
            trigger: trigger.as_str().into(),
            is_redrive: redrive.as_ref() == Some(trigger),
            call_timeout: spec.call_timeout(),
            permits: Arc::clone(permits),
            reporter: reporter.clone(),
        });
        scope.spawn("trigger", serve(subscription, relay, scope.cancel_token()));
    }
    // A caller who sees the deploy's reply may call at once: the server has to know of the subscriptions by then.
    nats.flush().await.ok();
    Ok(scope)
}

/// Until it is told to stop: then no more calls are taken, and those that were taken are answered.
///
/// All calls of a trigger are one task: what has come together goes on together, in one write to the bus and one back. A task for each would
/// wake another thread for each message.
async fn serve(subscription: Subscriber, relay: Arc<Relay>, stop: CancellationToken) {
    let messages = Draining::new(relay.nats.clone(), subscription, stop);
    let taken = stream::unfold((messages, &relay.permits), |(mut messages, permits)| async move {
        let message = messages.next().await?;
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        Some(((message, permit), (messages, permits)))
    });
    // As many as there are permits. Each has its own end, so that the last one has.
    taken
        .for_each_concurrent(None, |(message, permit)| async {
            if AssertUnwindSafe(relay.call(message)).catch_unwind().await.is_err() {
                tracing::error!(trigger = %relay.trigger, "relaying a call panicked");
            }
            drop(permit);
        })
        .await;
}

impl Relay {
    async fn call(&self, message: Message) {
        let began = Instant::now();
        let Message { subject, reply, payload, headers, .. } = message;
        let (kind, subject, headers) = match headers.as_ref().filter(|_| self.is_redrive).map(came_back) {
            Some((subject, headers)) => (TriggerKind::Stream, subject, Some(headers)),
            None => (TriggerKind::Subject, subject.to_string(), headers),
        };
        let invocation = Invocation {
            trigger: kind,
            subject,
            deadline_ms: u64::try_from(self.call_timeout.as_millis()).unwrap_or(u64::MAX),
            attempt: 1,
            host_calls: HostCalls::Live,
        };
        let reply = ReplySubject::of(reply.as_deref());
        let is_pulled = kind == TriggerKind::Subject && word(headers.as_ref()) == Some(Word::Pull);
        let called = match is_pulled {
            true => self.called.begin(&invocation, headers.as_ref(), payload, AGENT_SLACK).await,
            false => self.called.invoke(&invocation, headers.as_ref(), payload, AGENT_SLACK).await.map(Begun::Whole),
        };
        let nobody_listens = |nobody: NobodyListens| {
            Invoked::of(Outcome::Error(InvocationError { code: 503, message: nobody.to_string(), limit: None }))
        };
        let Invoked { outcome, nanos, .. } = match called.unwrap_or_else(|nobody| Begun::Whole(nobody_listens(nobody))) {
            Begun::Whole(invoked) => invoked,
            Begun::Streamed(streamed) => return self.stream(reply, streamed, began).await,
        };
        let answer = match outcome {
            Outcome::Reply(answer) => Ok(answer),
            Outcome::Ack => Ok(Reply::default()),
            // A message on a subject is delivered once: there is no later.
            Outcome::Nak { delay_ms } => Err((503, format!("the function wants to be called again in {delay_ms} ms"))),
            Outcome::Terminate { reason } => Err((500, reason)),
            Outcome::Error(InvocationError { code, message, .. }) => Err((code, message)),
        };
        let sent = match answer {
            // Whoever waits must hear of a reply that is too large.
            Ok(answer) => {
                service_error::answer(&self.nats, reply.clone(), answer).await.map_err(|error| (500, error.to_string()))
            }
            Err(failed) => Err(failed),
        };
        match sent {
            Ok(()) => {
                let nanos = nanos.unwrap_or_else(|| nanos_since(began));
                self.reporter.succeeded(&self.trigger, 1, nanos);
            }
            Err((code, error)) => {
                service_error::refuse(&self.nats, reply, code, &error).await;
                self.reporter.failed(&self.trigger, 1, [error.as_str()]);
            }
        }
    }

    async fn stream(&self, reply: Option<ReplySubject>, streamed: Streamed, began: Instant) {
        // Nobody can take it.
        let Some(to) = reply else { return streamed.gone().await };
        match pass_on(&self.nats, to, streamed).await {
            Ok(()) => self.reporter.succeeded(&self.trigger, 1, nanos_since(began)),
            Err(error) => self.reporter.failed(&self.trigger, 1, [error.as_str()]),
        }
    }
}

fn nanos_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Subject and headers of the message that a dead letter was.
fn came_back(headers: &HeaderMap) -> (String, HeaderMap) {
    let subject = headers.get(dead::SUBJECT).map_or_else(String::new, |subject| subject.as_str().to_owned());
    let mut own = HeaderMap::new();
    for (name, values) in headers.iter() {
        let Some(name) = dead::was_called(name.as_ref()).and_then(|name| name.parse::<HeaderName>().ok()) else { continue };
        for value in values {
            own.append(name.clone(), value.clone());
        }
    }
    for (name, from) in [(async_nats::header::NATS_STREAM, dead::STREAM), (async_nats::header::NATS_SEQUENCE, dead::SEQUENCE)] {
        if let Some(value) = headers.get(from) {
            own.insert(name, value.clone());
        }
    }
    (subject, own)
}
