//! The relay: messages on a function's trigger subjects become calls of its agent, and every one gets an answer.
//!
//! Used where the agent must not hold the credentials of the workload connection; see [`crate::direct`] for where it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, Message, Subscriber};
use nex_bus::drain::Draining;
use nex_bus::service_error;
use nex_process::TaskScope;
use nex_protocol::agent::RUNTIME_NS;
use nex_protocol::reply::ReplySubject;
use nex_protocol::subject::trigger_queue;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::agents::session::Caller;
use crate::workload::spec::WorkloadSpec;

/// Time beyond a call's own limit in which the agent answers that the limit was reached.
const AGENT_SLACK: Duration = Duration::from_secs(1);

/// What a function has done, for INFO and events.
#[derive(Debug, Default)]
pub struct Counters {
    /// Nanoseconds spent in calls.
    pub nanos: AtomicU64,
    /// Calls that ended well.
    pub succeeded: AtomicU64,
    /// Calls that failed.
    pub failed: AtomicU64,
}

impl Counters {
    /// Counts calls that ended well.
    pub fn add(&self, succeeded: u64, nanos: u64) {
        self.succeeded.fetch_add(succeeded, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// What came of a call, for events and the log.
#[derive(Debug)]
pub enum Outcome {
    /// It ended well.
    Succeeded {
        /// The subscribed pattern.
        trigger: Arc<str>,
        /// Nanoseconds in the function.
        nanos: u64,
    },
    /// It did not.
    Failed {
        /// The subscribed pattern.
        trigger: Arc<str>,
        /// Why.
        error: String,
    },
}

/// All that one relayed call needs.
struct Relay {
    nats: Client,
    caller: Caller,
    trigger: Arc<str>,
    within: Duration,
    permits: Arc<Semaphore>,
    outcomes: mpsc::Sender<Outcome>,
}

/// Subscribes a function's triggers; the scope ends the subscriptions, and waits for calls under way as long as its end may take.
///
/// # Errors
/// When the connection does not take a subscription.
pub async fn relay(
    nats: &Client,
    spec: &WorkloadSpec,
    caller: &Caller,
    outcomes: &mpsc::Sender<Outcome>,
) -> Result<TaskScope, async_nats::SubscribeError> {
    let scope = TaskScope::new("triggers");
    let permits = Arc::new(Semaphore::new(spec.limits.concurrency));
    for trigger in &spec.triggers {
        let subscription = nats.queue_subscribe(trigger.clone(), trigger_queue(&spec.namespace, &spec.name)).await?;
        let relay = Arc::new(Relay {
            nats: nats.clone(),
            caller: caller.clone(),
            trigger: trigger.as_str().into(),
            within: spec.call_timeout() + AGENT_SLACK,
            permits: Arc::clone(&permits),
            outcomes: outcomes.clone(),
        });
        let calls = scope.child("calls");
        scope.spawn("trigger", serve(subscription, relay, scope.cancel_token(), calls));
    }
    // A caller who sees the deploy's reply may call at once: the server has to know of the subscriptions by then.
    nats.flush().await.ok();
    Ok(scope)
}

/// Until it is told to stop: then no more calls are taken, and those that were taken are answered.
async fn serve(subscription: Subscriber, relay: Arc<Relay>, stop: CancellationToken, calls: TaskScope) {
    let mut messages = Draining::new(subscription, stop);
    while let Some(message) = messages.next().await {
        let Ok(permit) = Arc::clone(&relay.permits).acquire_owned().await else { return };
        let relay = Arc::clone(&relay);
        calls.spawn("call", async move {
            relay.call(message).await;
            drop(permit);
        });
    }
    calls.shutdown(relay.within).await;
}

impl Relay {
    async fn call(&self, message: Message) {
        let began = Instant::now();
        let reply = ReplySubject::of(message.reply.as_deref());
        let answer = self.caller.call(message.subject.as_str(), message.payload, self.within).await;
        let failure = match answer {
            Ok(answer) => match service_error::read(&answer) {
                None => {
                    let own = || u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    let nanos = header(&answer, RUNTIME_NS).and_then(|text| text.parse().ok()).unwrap_or_else(own);
                    match service_error::answer(&self.nats, reply.clone(), answer.payload).await {
                        Ok(()) => return self.tell(Outcome::Succeeded { trigger: Arc::clone(&self.trigger), nanos }),
                        // A failed call; whoever waits for it must hear that.
                        Err(too_large) => (500, too_large.to_string()),
                    }
                }
                Some(error) => error,
            },
            Err(error) => (500, error),
        };
        let (code, error) = failure;
        service_error::refuse(&self.nats, reply, code, &error).await;
        self.tell(Outcome::Failed { trigger: Arc::clone(&self.trigger), error });
    }

    /// The outcome is for events; a call never waits for them.
    fn tell(&self, outcome: Outcome) {
        self.outcomes.try_send(outcome).ok();
    }
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
}
