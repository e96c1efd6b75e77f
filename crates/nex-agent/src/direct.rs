//! Triggers that the agent subscribes by itself: messages on the workload connection become calls, and are answered there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, Message, Subscriber};
use nex_bus::connect::ConnectError;
use nex_bus::denials::Denial;
use nex_bus::drain::Draining;
use nex_bus::own_headers::to_function;
use nex_bus::service_error;
use nex_engine::{Call, CallError, streaming};
use nex_process::TaskScope;
use nex_protocol::agent::DirectTriggers;
use nex_protocol::reply::ReplySubject;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::connections::{Connected, WorkloadConnection, WorkloadConnections};
use crate::invoke::{self, Callee, Row};
use crate::report::{CallCounters, Report};
use crate::streaming::{Came, Taker, follow, is_taken};

/// Upper bound of a drain; callers give up earlier.
const MAX_DRAIN: Duration = Duration::from_secs(600);

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

struct Direct {
    client: Client,
    _connection: WorkloadConnection,
    callee: Callee,
    /// Index of its counters.
    trigger: usize,
    permits: Arc<Semaphore>,
    counters: Arc<CallCounters>,
}

impl Direct {
    /// Until it is told to stop: then no more calls are taken, and those that were taken are answered.
    async fn run(self, subscription: Subscriber, stop: CancellationToken, calls: TaskScope) {
        let this = Arc::new(self);
        let mut row = Row::default();
        let mut messages = Draining::new(this.client.clone(), subscription, stop);
        while let Some(message) = messages.next().await {
            let Ok(permit) = Arc::clone(&this.permits).acquire_owned().await else { break };
            let direct = Arc::clone(&this);
            let answered = async move {
                direct.answer(message).await;
                drop(permit);
            };
            this.callee.begin(answered, &calls).await;
            row.taken().await;
        }
        calls.shutdown(MAX_DRAIN).await;
        // The last answers are still on their way to the socket, and the agent may be gone in a moment.
        this.client.flush().await.ok();
        this.counters.close(this.trigger);
    }

    async fn answer(&self, message: Message) {
        let began = Instant::now();
        let headers = to_function(message.headers.as_ref());
        let to = ReplySubject::of(message.reply.as_deref());
        let call = Call { subject: message.subject.to_string(), payload: message.payload, headers, host: None, streaming: None };
        let came = match to.clone().filter(|_| is_taken(message.headers.as_ref())) {
            None => Came::Whole(self.callee.call(call).await),
            Some(to) => {
                let (streaming, streamed) = streaming();
                let called = self.callee.call(Call { streaming: Some(streaming), ..call });
                Box::pin(follow(called, streamed, Taker { client: &self.client, to, envelope: HeaderMap::new() })).await
            }
        };
        let took = began.elapsed();
        let answer = match came {
            Came::Whole(answer) => answer,
            Came::Streamed(Ok(())) => return self.counters.succeeded(self.trigger, took),
            Came::Streamed(Err(error)) => return self.counters.failed(self.trigger, invoke::error(&error).message),
        };
        let sent = match answer {
            Ok(answer) => service_error::answer(&self.client, to.clone(), answer)
                .await
                .map_err(|error| CallError::ReplyTooLarge { actual: error.actual, limit: error.limit }),
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => self.counters.succeeded(self.trigger, took),
            Err(error) => {
                let failed = invoke::error(&error);
                service_error::refuse(&self.client, to, failed.code, &failed.message).await;
                self.counters.failed(self.trigger, failed.message);
            }
        }
    }
}
