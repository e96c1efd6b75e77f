//! Calls of a function: from a message to its answer, whether the node relays it or the agent subscribed it by itself.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, HeaderValue, Message, Subscriber};
use bytes::Bytes;
use futures::future::poll_immediate;
use futures::{FutureExt as _, StreamExt as _};
use nex_bus::connect::{Persistence, connect};
use nex_bus::service_error;
use nex_bus::settings::{ConnectionSettings, split_servers};
use nex_engine::{Call, CallError, Function};
use nex_process::TaskScope;
use nex_protocol::agent::{AgentEvent, DirectTriggers, RUNTIME_NS, TRIGGER_SUBJECT, host_subject};
use nex_protocol::id::WorkloadId;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::unconstrained;

/// Calls the agent served by itself are reported this often.
const REPORT_EVERY: Duration = Duration::from_millis(250);

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
    if let Some(reply) = reply {
        let text = error.to_string();
        client.publish_with_headers(reply, service_error::headers(code(error), &text), text.into()).await.ok();
    }
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

/// What a trigger has served since the node was last told.
#[derive(Debug)]
struct Tally {
    trigger: String,
    succeeded: AtomicU64,
    nanos: AtomicU64,
}

/// What came of calls the agent served by itself: counted where it happens, told by [`Report`].
#[derive(Debug, Default)]
struct Served {
    tallies: Vec<Tally>,
    /// Set while the node has not been told of everything.
    news: AtomicBool,
    wake: Notify,
}

impl Served {
    fn wake(&self) {
        // Most calls find the report awake already; one look is all they pay.
        if !self.news.load(Ordering::Acquire) && !self.news.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }
}

/// Subscribes a function's triggers on the workload connection and serves them until the scope ends.
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
    let tally = |trigger: &String| Tally { trigger: trigger.clone(), succeeded: AtomicU64::new(0), nanos: AtomicU64::new(0) };
    let served = Arc::new(Served { tallies: triggers.subjects.iter().map(tally).collect(), ..Served::default() });
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
        scope.spawn("trigger", direct.run(subscription, scope.child("calls")));
    }
    client.flush().await.map_err(|error| format!("the trigger connection: {error}"))?;
    scope.spawn("report", report.run(served, failures));
    Ok(())
}

struct Direct {
    client: Client,
    function: Arc<dyn Function>,
    /// Index of its tally.
    trigger: usize,
    permits: Arc<Semaphore>,
    served: Arc<Served>,
    failed: mpsc::Sender<(usize, String)>,
    /// Whether the last call took long.
    is_long: AtomicBool,
}

impl Direct {
    /// Short calls are answered here, one after the other: a task for each would wake another thread and, worse, have every
    /// reply written by itself instead of many at once. A call that waits, or computes long, goes on in a task of its own.
    async fn run(self, mut subscription: Subscriber, calls: TaskScope) {
        let this = Arc::new(self);
        let mut in_a_row = 0;
        while let Some(message) = subscription.next().await {
            let Ok(permit) = Arc::clone(&this.permits).acquire_owned().await else { return };
            let own = Arc::clone(&this);
            let mut call = Box::pin(async move {
                own.answer(message).await;
                drop(permit);
            });
            if this.is_long.load(Ordering::Relaxed) || unconstrained(poll_immediate(&mut call)).await.is_none() {
                calls.spawn("call", call);
            }
            in_a_row += 1;
            if in_a_row == REPLIES_AT_ONCE {
                // The connection has its turn, and writes what there is.
                in_a_row = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    async fn answer(&self, message: Message) {
        let began = Instant::now();
        let call = Call { subject: message.subject.to_string(), payload: message.payload };
        let answer: Result<Bytes, CallError> = invoke(&*self.function, call).await;
        let took = began.elapsed();
        self.is_long.store(took > SHORT, Ordering::Relaxed);
        match answer {
            Ok(answer) => {
                if let Some(reply) = message.reply {
                    self.client.publish(reply, answer).await.ok();
                }
                if let Some(tally) = self.served.tallies.get(self.trigger) {
                    tally.succeeded.fetch_add(1, Ordering::Relaxed);
                    tally.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
                }
            }
            Err(error) => {
                refuse(&self.client, message.reply, &error).await;
                // More failures than can be told of are not worth a wait.
                self.failed.try_send((self.trigger, error.to_string())).ok();
            }
        }
        self.served.wake();
    }
}

/// Tells the node what was served.
pub(crate) struct Report {
    pub(crate) bus: Client,
    pub(crate) agent: WorkloadId,
}

impl Report {
    async fn run(self, served: Arc<Served>, mut failures: mpsc::Receiver<(usize, String)>) {
        loop {
            // Most of the time there is nothing: no timer runs until something was served.
            served.wake.notified().await;
            // First this, then the look: what is served from here on wakes anew.
            served.news.store(false, Ordering::SeqCst);
            for Tally { trigger, succeeded, nanos } in &served.tallies {
                let (succeeded, elapsed_nanos) = (succeeded.swap(0, Ordering::Relaxed), nanos.swap(0, Ordering::Relaxed));
                if succeeded > 0 {
                    self.send(&AgentEvent::Executed { succeeded, elapsed_nanos, subject: trigger.clone() }).await;
                }
            }
            while let Ok((trigger, error)) = failures.try_recv() {
                let subject = served.tallies.get(trigger).map(|tally| tally.trigger.clone()).unwrap_or_default();
                self.send(&AgentEvent::ExecutionFailed { subject, error }).await;
            }
            tokio::time::sleep(REPORT_EVERY).await;
        }
    }

    async fn send(&self, event: &AgentEvent) {
        let body = serde_json::to_vec(event).unwrap_or_default();
        self.bus.publish(host_subject(&self.agent, "events"), body.into()).await.ok();
    }
}
