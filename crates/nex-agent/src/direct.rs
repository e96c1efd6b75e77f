//! Triggers that the agent subscribes by itself: messages on the workload connection become calls, and are answered there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, Message, Subscriber};
use futures::future::poll_immediate;
use nex_bus::connect::ConnectError;
use nex_bus::denials::Denial;
use nex_bus::drain::Draining;
use nex_bus::own_headers::to_function;
use nex_bus::service_error;
use nex_engine::{Call, CallError, Function, HostClient};
use nex_process::TaskScope;
use nex_protocol::agent::DirectTriggers;
use nex_protocol::reply::ReplySubject;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;
use tokio_util::sync::CancellationToken;

use crate::connections::{Connected, WorkloadConnection, WorkloadConnections};
use crate::invoke;
use crate::report::{CallCounters, Report};

/// Upper bound of a drain; callers give up earlier.
const MAX_DRAIN: Duration = Duration::from_secs(600);
/// A call shorter than this is not worth a task of its own.
const SHORT: Duration = Duration::from_micros(50);
/// Replies that may wait for one another before they are written.
const REPLY_BATCH: usize = 16;

/// Why triggers cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectError {
    /// The workload connection.
    #[error("the trigger connection: {}", nex_protocol::envelope::chain(.0))]
    Connect(ConnectError),
    /// One of the subjects.
    #[error("the trigger subject {subject} cannot be subscribed")]
    Subscribe {
        /// Which.
        subject: String,
        /// Why.
        #[source]
        source: async_nats::SubscribeError,
    },
    /// The server did not confirm them.
    #[error("the trigger connection does not confirm its subscriptions")]
    Flush(#[from] async_nats::client::FlushError),
    /// The server does not permit one.
    #[error("the trigger connection: {0}")]
    Denied(Denial),
}

/// Subscribes a function's triggers on the workload connection and serves them until the scope ends, then what it had taken.
pub(crate) async fn serve(
    scope: &TaskScope,
    triggers: &DirectTriggers,
    connections: &WorkloadConnections,
    callee: Callee,
    report: Report,
) -> Result<(), DirectError> {
    let connection = connections.of(&triggers.connection).await.map_err(DirectError::Connect)?;
    // It stands, or there would be none.
    let Some(Connected { client, denials }) = connection.get() else { return Ok(()) };
    let permits = Arc::new(Semaphore::new(callee.concurrency.max(1)));
    let counters = Arc::new(CallCounters::new(&triggers.subjects));
    for (trigger, subject) in triggers.subjects.iter().enumerate() {
        let subscribed = client.queue_subscribe(subject.clone(), triggers.queue.clone()).await;
        let subscription = subscribed.map_err(|source| DirectError::Subscribe { subject: subject.clone(), source })?;
        let direct = Direct {
            client: client.clone(),
            _connection: connection.clone(),
            callee: callee.clone(),
            trigger,
            permits: Arc::clone(&permits),
            counters: Arc::clone(&counters),
            is_long: AtomicBool::new(false),
        };
        scope.spawn("trigger", direct.run(subscription, scope.cancel_token(), scope.child("calls")));
    }
    client.flush().await?;
    denials.settle(client).await;
    if let Some(denial) = denials.take(|denial| triggers.subjects.contains(&denial.subject)) {
        return Err(DirectError::Denied(denial));
    }
    scope.spawn("report", report.run(counters));
    Ok(())
}

/// What is called.
#[derive(Clone)]
pub(crate) struct Callee {
    pub(crate) function: Arc<dyn Function>,
    /// Its host services.
    pub(crate) host: Arc<dyn HostClient>,
    /// How many calls of it are under way at most.
    pub(crate) concurrency: usize,
    /// Where its calls go on that compute long, if that is another place.
    pub(crate) computing: Option<Handle>,
}

struct Direct {
    client: Client,
    _connection: WorkloadConnection,
    callee: Callee,
    /// Index of its counters.
    trigger: usize,
    permits: Arc<Semaphore>,
    counters: Arc<CallCounters>,
    /// Whether the last call took long.
    is_long: AtomicBool,
}

impl Direct {
    /// Until it is told to stop: then no more calls are taken, and those that were taken are answered.
    async fn run(self, subscription: Subscriber, stop: CancellationToken, calls: TaskScope) {
        let this = Arc::new(self);
        let mut in_a_row = 0;
        let mut messages = Draining::new(this.client.clone(), subscription, stop);
        while let Some(message) = messages.next().await {
            let Ok(permit) = Arc::clone(&this.permits).acquire_owned().await else { break };
            this.begin(message, permit, &calls).await;
            in_a_row += 1;
            if in_a_row == REPLY_BATCH {
                // The connection has its turn, and writes what there is.
                in_a_row = 0;
                tokio::task::yield_now().await;
            }
        }
        calls.shutdown(MAX_DRAIN).await;
        // The last answers are still on their way to the socket, and the agent may be gone in a moment.
        this.client.flush().await.ok();
        this.counters.close(this.trigger);
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
            let _elsewhere = self.callee.computing.as_ref().map(Handle::enter);
            calls.spawn("call", call);
        }
    }

    async fn answer(&self, message: Message) {
        let began = Instant::now();
        let headers = to_function(message.headers.as_ref());
        let call = Call { subject: message.subject.to_string(), payload: message.payload, headers, host: None };
        let answer = invoke::call(&*self.callee.function, call).await;
        let took = began.elapsed();
        self.is_long.store(took > SHORT, Ordering::Relaxed);
        let sent = match answer {
            Ok(answer) => service_error::answer(&self.client, ReplySubject::of(message.reply.as_deref()), answer)
                .await
                .map_err(|error| CallError::ReplyTooLarge { actual: error.actual, limit: error.limit }),
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => self.counters.succeeded(self.trigger, took),
            Err(error) => {
                let failed = invoke::error(&error);
                service_error::refuse(&self.client, ReplySubject::of(message.reply.as_deref()), failed.code, &failed.message)
                    .await;
                self.counters.failed(self.trigger, failed.message);
            }
        }
    }
}
