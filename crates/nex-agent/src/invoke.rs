//! One invocation of a function: from the envelope to its outcome, whoever took the message.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, HeaderValue, Message};
use futures::FutureExt as _;
use futures::future::poll_immediate;
use nex_bus::invocation;
use nex_bus::own_headers::to_function;
use nex_engine::{Call, CallError, Function, HostClient, Recorder, Reply, streaming};
use nex_process::TaskScope;
use nex_protocol::agent::invocation::{OUTCOME, STREAMED};
use nex_protocol::agent::streaming::{STREAM, Word};
use nex_protocol::agent::{HostCalls, Invocation, InvocationError, Limit, Outcome};
use nex_protocol::reply::ReplySubject;
use tokio::runtime::Handle;
use tokio::task::unconstrained;

use crate::streaming::{Came, Taker, follow};

/// A call shorter than this is not worth a task of its own.
const SHORT: Duration = Duration::from_micros(50);
/// Replies that may wait for one another before they are written.
const REPLY_BATCH: usize = 16;

/// What is called.
#[derive(Clone)]
pub(crate) struct Callee {
    function: Arc<dyn Function>,
    /// Its host services.
    host: Arc<dyn HostClient>,
    /// How many calls of it are under way at most.
    pub(crate) concurrency: usize,
    /// Where its calls go on that compute long, if that is another place.
    computing: Option<Handle>,
    /// Whether the last call took long.
    is_long: Arc<AtomicBool>,
}

impl Callee {
    /// A function that no call was made of yet.
    pub(crate) fn new(
        (function, host): (Arc<dyn Function>, Arc<dyn HostClient>),
        concurrency: usize,
        computing: Option<Handle>,
    ) -> Self {
        Self { function, host, concurrency, computing, is_long: Arc::default() }
    }

    /// Calls it. A call always ends with an answer, also where an engine has a mistake.
    pub(crate) async fn call(&self, call: Call) -> Result<Reply, CallError> {
        let began = Instant::now();
        let invoked = AssertUnwindSafe(self.function.invoke(call)).catch_unwind().await;
        self.is_long.store(began.elapsed() > SHORT, Ordering::Relaxed);
        invoked.unwrap_or_else(|_panic| Err(CallError::Failed("the engine failed on this call".to_owned())))
    }

    /// Takes a call from whoever reads messages. A short one is answered there, one after the other: a task for each would wake another
    /// thread and, worse, have every reply written by itself instead of many at once. One that waits, or computes long, goes on in a task
    /// of its own.
    pub(crate) async fn begin(&self, answered: impl Future<Output = ()> + Send + 'static, calls: &TaskScope) {
        let mut answered = Box::pin(answered);
        if self.is_long.load(Ordering::Relaxed) || unconstrained(poll_immediate(&mut answered)).await.is_none() {
            let _elsewhere = self.computing.as_ref().map(Handle::enter);
            calls.spawn("call", answered);
        }
    }
}

/// The messages that one task has taken in a row.
#[derive(Default)]
pub(crate) struct Row(usize);

impl Row {
    /// One more; once in a while the connection has its turn, and writes what there is.
    pub(crate) async fn taken(&mut self) {
        self.0 += 1;
        if self.0 == REPLY_BATCH {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// A failed call as its caller hears of it.
pub(crate) fn error(error: &CallError) -> InvocationError {
    let (code, limit) = match error {
        CallError::Timeout(_) => (504, Some(Limit::Time)),
        CallError::Failed(_) => (500, None),
        CallError::Refused { code, .. } => (*code, None),
        CallError::OutOfMemory(_) => (500, Some(Limit::Memory)),
        CallError::ReplyTooLarge { .. } => (500, Some(Limit::Reply)),
        CallError::PayloadTooLarge { .. } => (413, Some(Limit::Payload)),
        CallError::TooManyHostCalls(_) => (500, Some(Limit::HostCalls)),
        CallError::LogTooLong(_) => (500, Some(Limit::Log)),
        CallError::CpuTime(_) => (504, Some(Limit::Cpu)),
    };
    InvocationError { code, message: error.to_string(), limit }
}

/// Answers an invocation that the node sent.
pub(crate) async fn answer(bus: &Client, callee: Option<Callee>, message: Message) {
    let began = Instant::now();
    let mut record = None;
    let to = message.reply.clone();
    let outcome = match (callee, invocation::parse(&message)) {
        (Some(callee), Ok(invocation)) => {
            let is_replay = matches!(invocation.host_calls, HostCalls::Replayed(_));
            let recorder = recorder(&callee.host, &invocation.host_calls);
            let host = recorder.clone().map(|recorder| recorder as Arc<dyn HostClient>);
            let outcome = match called(bus, &callee, (invocation, host), message).await {
                Came::Whole(Ok(reply)) => Outcome::Reply(reply),
                Came::Whole(Err(failed)) => Outcome::Error(error(&failed)),
                Came::Streamed(_) => return,
            };
            let is_told = is_replay || !matches!(outcome, Outcome::Reply(_) | Outcome::Ack);
            record = recorder.filter(|_| is_told).map(|recorder| recorder.record());
            outcome
        }
        (None, _) => {
            let text = "this agent has no function under that instance id".to_owned();
            Outcome::Error(InvocationError { code: 404, message: text, limit: None })
        }
        (_, Err(malformed)) => Outcome::Error(InvocationError { code: 400, message: malformed.to_string(), limit: None }),
    };
    let Some(reply) = to else { return };
    let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let (mut headers, body) = invocation::outcome(outcome, nanos);
    if let Some(record) = record {
        invocation::add_calls(&mut headers, &record);
    }
    bus.publish_with_headers(reply, headers, body).await.ok();
}

/// Calls within the time of an invocation; where the node takes that, what is written goes to it piece by piece.
async fn called(
    bus: &Client,
    callee: &Callee,
    (invocation, host): (Invocation, Option<Arc<dyn HostClient>>),
    message: Message,
) -> Came {
    let within = Duration::from_millis(invocation.deadline_ms);
    let Message { headers, payload, reply, .. } = message;
    let is_pulled =
        headers.as_ref().and_then(|headers| headers.get(STREAM)).map(HeaderValue::as_str) == Some(Word::Pull.as_str());
    let headers = to_function(headers.as_ref());
    let timed = async |call| {
        let called = tokio::time::timeout(within, callee.call(call)).await;
        called.unwrap_or(Err(CallError::Timeout(within)))
    };
    let call = Call { subject: invocation.subject, payload, headers, host, streaming: None };
    match ReplySubject::of(reply.as_deref()).filter(|_| is_pulled) {
        None => Came::Whole(timed(call).await),
        Some(to) => {
            let (streaming, streamed) = streaming();
            let mut envelope = HeaderMap::new();
            envelope.insert(OUTCOME, STREAMED);
            let called = timed(Call { streaming: Some(streaming), ..call });
            Box::pin(follow(called, streamed, Taker { client: bus, to, envelope })).await
        }
    }
}

/// What keeps the host calls of a call, if it is to be told of them.
fn recorder(services: &Arc<dyn HostClient>, calls: &HostCalls) -> Option<Arc<Recorder>> {
    match calls {
        HostCalls::Live => None,
        HostCalls::Recorded => Some(Arc::new(Recorder::recording(Arc::clone(services)))),
        HostCalls::Replayed(replay) => Some(Arc::new(Recorder::replaying(Arc::clone(services), replay.clone()))),
    }
}
