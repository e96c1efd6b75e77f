//! Calls of a function: from a message to its answer, whether the node relays it or the agent subscribed it by itself.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, HeaderValue, Message, Subscriber};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::poll_immediate;
use nex_bus::connect::{Persistence, connect_with};
use nex_bus::denials::Denials;
use nex_bus::drain::Draining;
use nex_bus::service_error;
use nex_bus::settings::{ConnectionSettings, split_servers};
use nex_engine::{Call, CallError, Function};
use nex_process::TaskScope;
use nex_protocol::agent::{DirectTriggers, RUNTIME_NS, TRIGGER_SUBJECT};
use nex_protocol::reply::ReplySubject;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::unconstrained;
use tokio_util::sync::CancellationToken;

use crate::report::{Failed, Report, Served};

/// Whoever stops a function has less patience than this.
const LONGEST_DRAIN: Duration = Duration::from_secs(600);

/// A call shorter than this is not worth a task of its own.
const SHORT: Duration = Duration::from_micros(50);
/// Replies that may wait for one another before they are written.
const REPLIES_AT_ONCE: usize = 16;

/// HTTP-like code of a failed call.
fn code(error: &CallError) -> u16 {
    match error {
        CallError::Timeout(_) => 504,
        CallError::Failed(_) | CallError::OutOfMemory(_) | CallError::ReplyTooLarge { .. } => 500,
    }
}

async fn refuse(client: &Client, reply: Option<async_nats::Subject>, error: &CallError) {
    service_error::refuse(client, ReplySubject::of(reply.as_deref()), code(error), &error.to_string()).await;
}

fn too_large(error: service_error::TooLarge) -> CallError {
    CallError::ReplyTooLarge { actual: error.actual, limit: error.limit }
}

/// A call always ends with an answer, also where an engine has a mistake.
async fn invoke(function: &dyn Function, call: Call) -> Result<Bytes, CallError> {
    let invoked = AssertUnwindSafe(function.invoke(call)).catch_unwind().await;
    invoked.unwrap_or_else(|_panic| Err(CallError::Failed("the engine failed on this call".to_owned())))
}

/// Answers one call that the node relays: the subject is in a header, the time spent goes back in one.
pub(crate) async fn relayed(bus: Client, function: Arc<dyn Function>, message: Message) {
    let trigger = message.headers.as_ref().and_then(|headers| headers.get(TRIGGER_SUBJECT)).map(HeaderValue::as_str);
    let call = Call { subject: trigger.unwrap_or_default().to_owned(), payload: message.payload };
    let began = Instant::now();
    match (invoke(&*function, call).await, message.reply) {
        (Ok(answer), Some(reply)) => {
            let mut headers = HeaderMap::new();
            headers.insert(RUNTIME_NS, began.elapsed().as_nanos().to_string().as_str());
            bus.publish_with_headers(reply, headers, answer).await.ok();
        }
        (Ok(_), None) => {}
        (Err(error), reply) => refuse(&bus, reply, &error).await,
    }
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
    let denials = Denials::default();
    let client = connect_with(&settings, Persistence::Once, &denials).await;
    let client = client.map_err(|error| format!("the trigger connection: {error}"))?;
    let permits = Arc::new(Semaphore::new(concurrency.max(1)));
    let served = Arc::new(Served::on(&triggers.subjects));
    let (failed, failures) = mpsc::channel(1_024);
    for (trigger, subject) in triggers.subjects.iter().enumerate() {
        let subscribed = client.queue_subscribe(subject.clone(), triggers.queue.clone()).await;
        let subscription = subscribed.map_err(|error| format!("the trigger subject {subject} cannot be subscribed: {error}"))?;
        let direct = Direct {
            client: client.clone(),
            function: Arc::clone(function),
            trigger,
            permits: Arc::clone(&permits),
            served: Arc::clone(&served),
            failed: failed.clone(),
            is_long: AtomicBool::new(false),
        };
        scope.spawn("trigger", direct.run(subscription, scope.cancel_token(), scope.child("calls")));
    }
    client.flush().await.map_err(|error| format!("the trigger connection: {error}"))?;
    denials.settle(&client).await;
    if let Some(denial) = denials.take(|denial| triggers.subjects.contains(&denial.subject)) {
        return Err(format!("the trigger connection: {denial}"));
    }
    scope.spawn("report", report.run(served, failures, scope.cancel_token()));
    Ok(())
}

struct Direct {
    client: Client,
    function: Arc<dyn Function>,
    /// Index of its tally.
    trigger: usize,
    permits: Arc<Semaphore>,
    served: Arc<Served>,
    failed: mpsc::Sender<Failed>,
    /// Whether the last call took long.
    is_long: AtomicBool,
}

impl Direct {
    /// Until it is told to stop: then no more calls are taken, and those that were taken are answered.
    async fn run(self, subscription: Subscriber, stop: CancellationToken, calls: TaskScope) {
        let this = Arc::new(self);
        let mut in_a_row = 0;
        let mut messages = Draining::new(subscription, stop);
        while let Some(message) = messages.next().await {
            let Ok(permit) = Arc::clone(&this.permits).acquire_owned().await else { return };
            this.begin(message, permit, &calls).await;
            in_a_row += 1;
            if in_a_row == REPLIES_AT_ONCE {
                // The connection has its turn, and writes what there is.
                in_a_row = 0;
                tokio::task::yield_now().await;
            }
        }
        calls.shutdown(LONGEST_DRAIN).await;
        // The last answers are still on their way to the socket, and the agent may be gone in a moment.
        this.client.flush().await.ok();
    }

    /// Short calls are answered here, one after the other: a task for each would wake another thread and, worse, have every
    /// reply written by itself instead of many at once. A call that waits, or computes long, goes on in a task of its own.
    async fn begin(self: &Arc<Self>, message: Message, permit: OwnedSemaphorePermit, calls: &TaskScope) {
        let this = Arc::clone(self);
        let mut call = Box::pin(async move {
            this.answer(message).await;
            drop(permit);
        });
        if self.is_long.load(Ordering::Relaxed) || unconstrained(poll_immediate(&mut call)).await.is_none() {
            calls.spawn("call", call);
        }
    }

    async fn answer(&self, message: Message) {
        let began = Instant::now();
        let call = Call { subject: message.subject.to_string(), payload: message.payload };
        let answer = invoke(&*self.function, call).await;
        let took = began.elapsed();
        self.is_long.store(took > SHORT, Ordering::Relaxed);
        let sent = match answer {
            Ok(answer) => {
                service_error::answer(&self.client, ReplySubject::of(message.reply.as_deref()), answer).await.map_err(too_large)
            }
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => self.served.count(self.trigger, took),
            Err(error) => {
                refuse(&self.client, message.reply, &error).await;
                // More failures than can be told of are not worth a wait.
                self.failed.try_send((self.trigger, error.to_string())).ok();
            }
        }
    }
}
