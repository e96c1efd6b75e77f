//! Calls of a function: from a message to its answer, whether the node relays it or the agent subscribed it by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, HeaderValue, Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use nex_bus::connect::{Persistence, connect};
use nex_bus::service_error;
use nex_bus::settings::{ConnectionSettings, split_servers};
use nex_engine::{Call, CallError, Function};
use nex_process::TaskScope;
use nex_protocol::agent::{AgentEvent, DirectTriggers, RUNTIME_NS, TRIGGER_SUBJECT, host_subject};
use nex_protocol::id::WorkloadId;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Calls the agent served by itself are reported this often.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// Whoever stops a function has less patience than this.
const LONGEST_DRAIN: Duration = Duration::from_secs(600);

/// HTTP-like code of a failed call.
fn code(error: &CallError) -> u16 {
    match error {
        CallError::Timeout(_) => 504,
        CallError::Failed(_) | CallError::OutOfMemory(_) | CallError::ReplyTooLarge { .. } => 500,
    }
}

async fn refuse(client: &Client, reply: Option<async_nats::Subject>, error: &CallError) {
    if let Some(reply) = reply {
        let text = error.to_string();
        client.publish_with_headers(reply, service_error::headers(code(error), &text), text.into()).await.ok();
    }
}

/// Answers one call that the node relays: the subject is in a header, the time spent goes back in one.
pub(crate) async fn relayed(bus: Client, function: Arc<dyn Function>, message: Message) {
    let trigger = message.headers.as_ref().and_then(|headers| headers.get(TRIGGER_SUBJECT)).map(HeaderValue::as_str);
    let call = Call { subject: trigger.unwrap_or_default().to_owned(), payload: message.payload };
    let began = Instant::now();
    match (function.invoke(call).await, message.reply) {
        (Ok(answer), Some(reply)) => {
            let mut headers = HeaderMap::new();
            headers.insert(RUNTIME_NS, began.elapsed().as_nanos().to_string().as_str());
            bus.publish_with_headers(reply, headers, answer).await.ok();
        }
        (Ok(_), None) => {}
        (Err(error), reply) => refuse(&bus, reply, &error).await,
    }
}

/// What came of a call the agent served by itself.
struct Served {
    trigger: Arc<str>,
    outcome: Result<u64, String>,
}

/// Subscribes a function's triggers on the workload connection and serves them until the scope ends, then what it had taken.
///
/// # Errors
/// A text for whoever deployed the function.
pub(crate) async fn serve(
    scope: &TaskScope,
    triggers: &DirectTriggers,
    function: &Arc<dyn Function>,
    concurrency: usize,
    report: Report,
) -> Result<(), String> {
    let details = &triggers.connection;
    let mut settings = ConnectionSettings {
        servers: split_servers(&details.nats_url),
        name: Some("nex-function".into()),
        ..ConnectionSettings::default()
    };
    if !details.nats_user_jwt.is_empty() {
        settings.user_jwt = Some(details.nats_user_jwt.clone().into());
        settings.user_seed = Some(details.nats_user_seed.clone().into());
    }
    let client = connect(&settings, Persistence::Once).await.map_err(|error| format!("the trigger connection: {error}"))?;
    let permits = Arc::new(Semaphore::new(concurrency.max(1)));
    let (told, outcomes) = mpsc::channel(4_096);
    for subject in &triggers.subjects {
        let subscribed = client.queue_subscribe(subject.clone(), triggers.queue.clone()).await;
        let subscription = subscribed.map_err(|error| format!("the trigger subject {subject} cannot be subscribed: {error}"))?;
        let direct = Direct {
            client: client.clone(),
            function: Arc::clone(function),
            trigger: subject.as_str().into(),
            permits: Arc::clone(&permits),
            told: told.clone(),
        };
        scope.spawn("trigger", direct.run(subscription, scope.cancel_token(), scope.child("calls")));
    }
    client.flush().await.map_err(|error| format!("the trigger connection: {error}"))?;
    scope.spawn("report", report.run(outcomes, scope.cancel_token()));
    Ok(())
}

struct Direct {
    client: Client,
    function: Arc<dyn Function>,
    trigger: Arc<str>,
    permits: Arc<Semaphore>,
    told: mpsc::Sender<Served>,
}

impl Direct {
    /// Until it is told to stop: then no more calls are taken, and those that were taken are answered.
    async fn run(self, mut subscription: Subscriber, stop: CancellationToken, calls: TaskScope) {
        let this = Arc::new(self);
        let mut draining = false;
        loop {
            let message = tokio::select! {
                message = subscription.next() => message,
                () = stop.cancelled(), if !draining => {
                    draining = true;
                    match subscription.drain().await {
                        Ok(()) => continue,
                        Err(_closed) => break,
                    }
                }
            };
            let Some(message) = message else { break };
            let Ok(permit) = Arc::clone(&this.permits).acquire_owned().await else { return };
            let this = Arc::clone(&this);
            calls.spawn("call", async move {
                this.answer(message).await;
                drop(permit);
            });
        }
        calls.shutdown(LONGEST_DRAIN).await;
        // The last answers are still on their way to the socket, and the agent may be gone in a moment.
        this.client.flush().await.ok();
    }

    async fn answer(&self, message: Message) {
        let began = Instant::now();
        let call = Call { subject: message.subject.to_string(), payload: message.payload };
        let answer = self.function.invoke(call).await;
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let sent = match answer {
            Ok(answer) => self.reply(message.reply.clone(), answer).await,
            Err(error) => Err(error),
        };
        let outcome = match sent {
            Ok(()) => Ok(nanos),
            Err(error) => {
                refuse(&self.client, message.reply, &error).await;
                Err(error.to_string())
            }
        };
        self.told.try_send(Served { trigger: Arc::clone(&self.trigger), outcome }).ok();
    }

    /// A reply that the server does not take is a failed call; whoever waits for it must hear that.
    async fn reply(&self, to: Option<async_nats::Subject>, answer: Bytes) -> Result<(), CallError> {
        let (Some(to), actual) = (to, answer.len()) else { return Ok(()) };
        match self.client.publish(to, answer).await {
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Err(CallError::ReplyTooLarge { actual, limit: self.client.server_info().max_payload })
            }
            _ => Ok(()),
        }
    }
}

/// Tells the node what was served.
pub(crate) struct Report {
    pub(crate) bus: Client,
    pub(crate) agent: WorkloadId,
}

impl Report {
    async fn run(self, mut outcomes: mpsc::Receiver<Served>, stop: CancellationToken) {
        let mut waiting = Vec::new();
        // Most of the time there is nothing: no timer runs until something was served.
        while outcomes.recv_many(&mut waiting, 4_096).await > 0 {
            let mut sums: Vec<(Arc<str>, u64, u64)> = Vec::new();
            for Served { trigger, outcome } in waiting.drain(..) {
                match outcome {
                    Ok(nanos) => add(&mut sums, trigger, nanos),
                    Err(error) => self.send(&AgentEvent::ExecutionFailed { subject: trigger.to_string(), error }).await,
                }
            }
            for (trigger, succeeded, elapsed_nanos) in sums {
                self.send(&AgentEvent::Executed { succeeded, elapsed_nanos, subject: trigger.to_string() }).await;
            }
            stop.run_until_cancelled(tokio::time::sleep(REPORT_EVERY)).await;
        }
    }

    async fn send(&self, event: &AgentEvent) {
        let body = serde_json::to_vec(event).unwrap_or_default();
        self.bus.publish(host_subject(&self.agent, "events"), body.into()).await.ok();
    }
}

fn add(sums: &mut Vec<(Arc<str>, u64, u64)>, trigger: Arc<str>, nanos: u64) {
    match sums.iter_mut().find(|(known, _, _)| *known == trigger) {
        Some((_, count, total)) => (*count, *total) = (*count + 1, total.saturating_add(nanos)),
        None => sums.push((trigger, 1, nanos)),
    }
}
