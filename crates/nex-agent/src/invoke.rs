//! One invocation of a function: from the envelope to its outcome, whoever took the message.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, Message};
use futures::FutureExt as _;
use nex_bus::invocation;
use nex_bus::own_headers::to_function;
use nex_engine::{Call, CallError, Function, HostClient, Recorder, Reply};
use nex_protocol::agent::{HostCalls, InvocationError, Limit, Outcome};

use crate::direct::Callee;

/// Calls a function. A call always ends with an answer, also where an engine has a mistake.
pub(crate) async fn call(function: &dyn Function, call: Call) -> Result<Reply, CallError> {
    let invoked = AssertUnwindSafe(function.invoke(call)).catch_unwind().await;
    invoked.unwrap_or_else(|_panic| Err(CallError::Failed("the engine failed on this call".to_owned())))
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
    let (reply, outcome) = match (callee, invocation::parse(&message)) {
        (Some(callee), Ok(invocation)) => {
            let within = Duration::from_millis(invocation.deadline_ms);
            let headers = to_function(message.headers.as_ref());
            let is_replay = matches!(invocation.host_calls, HostCalls::Replayed(_));
            let recorder = recorder(callee.host, invocation.host_calls);
            let host = recorder.clone().map(|recorder| recorder as Arc<dyn HostClient>);
            let called = Call { subject: invocation.subject, payload: message.payload, headers, host };
            let outcome = match tokio::time::timeout(within, call(&*callee.function, called)).await {
                Ok(Ok(reply)) => Outcome::Reply(reply),
                Ok(Err(failed)) => Outcome::Error(error(&failed)),
                Err(_elapsed) => Outcome::Error(error(&CallError::Timeout(within))),
            };
            let is_told = is_replay || !matches!(outcome, Outcome::Reply(_) | Outcome::Ack);
            record = recorder.filter(|_| is_told).map(|recorder| recorder.record());
            (message.reply, outcome)
        }
        (None, _) => {
            let text = "this agent has no function under that instance id".to_owned();
            (message.reply, Outcome::Error(InvocationError { code: 404, message: text, limit: None }))
        }
        (_, Err(malformed)) => {
            (message.reply, Outcome::Error(InvocationError { code: 400, message: malformed.to_string(), limit: None }))
        }
    };
    let Some(reply) = reply else { return };
    let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let (mut headers, body) = invocation::outcome(outcome, nanos);
    if let Some(record) = record {
        invocation::add_calls(&mut headers, &record);
    }
    bus.publish_with_headers(reply, headers, body).await.ok();
}

/// What keeps the host calls of a call, if it is to be told of them.
fn recorder(services: Arc<dyn HostClient>, calls: HostCalls) -> Option<Arc<Recorder>> {
    match calls {
        HostCalls::Live => None,
        HostCalls::Recorded => Some(Arc::new(Recorder::recording(services))),
        HostCalls::Replayed(replay) => Some(Arc::new(Recorder::replaying(services, replay))),
    }
}
