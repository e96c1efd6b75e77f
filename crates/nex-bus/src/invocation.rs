//! Calls of functions as messages of the internal bus: the envelope and the outcome, as headers, and back.
//!
//! The caller's own headers travel beside those of the envelope, which have a reserved prefix: a caller cannot forge them.

use async_nats::{HeaderMap, HeaderValue, Message};
use bytes::Bytes;
use nex_protocol::agent::invocation::{
    ATTEMPT, CALLS, DEADLINE_MS, DELAY_MS, LIMIT, OUTCOME, RECORD, REPLAY, RUNTIME_NS, SUBJECT, TRIGGER,
};
use nex_protocol::agent::{HostCalls, Invocation, InvocationError, Outcome, Reply};
use nex_protocol::replay::Record;

use crate::own_headers::{of_function, pass_on, to_function};
use crate::service_error;

/// A message on the invoke verb that is no invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header {header} is missing or unreadable; next: send the whole envelope of agent protocol 2")]
pub struct MalformedInvocation {
    header: &'static str,
}

/// The headers of an invocation, the caller's among them.
#[must_use]
pub fn headers(invocation: &Invocation, callers: Option<&HeaderMap>) -> HeaderMap {
    let mut headers = callers.map(pass_on).unwrap_or_default();
    headers.insert(TRIGGER, invocation.trigger.as_str());
    headers.insert(SUBJECT, invocation.subject.as_str());
    headers.insert(DEADLINE_MS, invocation.deadline_ms.to_string());
    headers.insert(ATTEMPT, invocation.attempt.to_string());
    match &invocation.host_calls {
        HostCalls::Live => {}
        HostCalls::Recorded => headers.insert(RECORD, "failed"),
        HostCalls::Replayed(replay) => headers.insert(REPLAY, serde_json::to_string(replay).unwrap_or_default()),
    }
    headers
}

/// Reads the envelope of a message.
///
/// # Errors
/// [`MalformedInvocation`] names the header.
pub fn parse(message: &Message) -> Result<Invocation, MalformedInvocation> {
    let bad = |header| MalformedInvocation { header };
    Ok(Invocation {
        trigger: header(message, TRIGGER).and_then(|text| text.parse().ok()).ok_or(bad(TRIGGER))?,
        subject: header(message, SUBJECT).map(str::to_owned).ok_or(bad(SUBJECT))?,
        deadline_ms: header(message, DEADLINE_MS).and_then(|text| text.parse().ok()).ok_or(bad(DEADLINE_MS))?,
        attempt: header(message, ATTEMPT).and_then(|text| text.parse().ok()).ok_or(bad(ATTEMPT))?,
        host_calls: match (header(message, REPLAY), header(message, RECORD)) {
            // Not understood is not done: it would be live.
            (Some(replay), _) => HostCalls::Replayed(serde_json::from_str(replay).map_err(|_unreadable| bad(REPLAY))?),
            (None, Some(_)) => HostCalls::Recorded,
            (None, None) => HostCalls::Live,
        },
    })
}

/// An outcome as headers and body.
#[must_use]
pub fn outcome(outcome: Outcome, nanos: u64) -> (HeaderMap, Bytes) {
    let (mut headers, name, body) = match outcome {
        Outcome::Reply(reply) => (of_function(reply.headers), "reply", reply.payload),
        Outcome::Ack => (HeaderMap::new(), "ack", Bytes::new()),
        Outcome::Nak { delay_ms } => {
            let mut headers = HeaderMap::new();
            headers.insert(DELAY_MS, delay_ms.to_string());
            (headers, "nak", Bytes::new())
        }
        Outcome::Terminate { reason } => (HeaderMap::new(), "term", reason.into()),
        Outcome::Error(InvocationError { code, message, limit }) => {
            let mut headers = service_error::headers(code, &message);
            if let Some(limit) = limit {
                headers.insert(LIMIT, limit.as_str());
            }
            (headers, "error", message.into())
        }
    };
    headers.insert(OUTCOME, name);
    headers.insert(RUNTIME_NS, nanos.to_string());
    (headers, body)
}

/// Adds the host calls to the headers of an outcome.
pub fn add_calls(headers: &mut HeaderMap, record: &Record) {
    headers.insert(CALLS, record.to_json());
}

/// Reads the host calls from an outcome, if it has them; one that is too large or unreadable has none.
#[must_use]
pub fn calls(message: &Message) -> Option<Record> {
    header(message, CALLS).and_then(Record::read)
}

/// Reads an outcome, and the nanoseconds it took.
#[must_use]
pub fn read_outcome(message: Message) -> (Outcome, Option<u64>) {
    let nanos = header(&message, RUNTIME_NS).and_then(|text| text.parse().ok());
    let text = |body: &Bytes| String::from_utf8_lossy(body).into_owned();
    let unreadable = || InvocationError { code: 500, message: "the agent's answer is not understood".to_owned(), limit: None };
    let outcome = match header(&message, OUTCOME) {
        Some("reply") => Outcome::Reply(Reply { headers: to_function(message.headers.as_ref()), payload: message.payload }),
        Some("ack") => Outcome::Ack,
        Some("nak") => {
            let delay = header(&message, DELAY_MS).and_then(|text| text.parse().ok());
            Outcome::Nak { delay_ms: delay.unwrap_or_default() }
        }
        Some("term") => Outcome::Terminate { reason: text(&message.payload) },
        _ => Outcome::Error(match service_error::read(&message) {
            Some((code, message_line)) => InvocationError {
                code,
                // The header is one line of it; the body has the whole.
                message: if message.payload.is_empty() { message_line } else { text(&message.payload) },
                limit: header(&message, LIMIT).and_then(|text| text.parse().ok()),
            },
            None => unreadable(),
        }),
    };
    (outcome, nanos)
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(HeaderValue::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nex_protocol::agent::{Limit, TriggerKind};
    use nex_protocol::replay::{Replay, Rest};

    fn message(headers: HeaderMap, payload: Bytes) -> Message {
        let length = payload.len();
        Message { subject: "a".into(), reply: None, payload, headers: Some(headers), status: None, description: None, length }
    }

    #[test]
    fn an_envelope_is_read_as_it_is_written_and_a_caller_cannot_forge_it() {
        let replay = Replay { record: Record::default(), rest: Rest::Live };
        for host_calls in [HostCalls::Live, HostCalls::Recorded, HostCalls::Replayed(replay)] {
            read_as_written(Invocation {
                trigger: TriggerKind::Subject,
                subject: "a.b".into(),
                deadline_ms: 20,
                attempt: 3,
                host_calls,
            });
        }
    }

    fn read_as_written(invocation: Invocation) {
        let mut callers = HeaderMap::new();
        callers.insert("traceparent", "00-1-2-01");
        callers.append("X-Many", "1");
        callers.append("X-Many", "2");
        callers.insert("nex-subject", "forged");
        callers.insert("Nex-Attempt", "99");
        callers.insert("nex-replay", "{}");
        callers.insert("Nex-Http-Method", "PUT");
        let headers = headers(&invocation, Some(&callers));
        assert_eq!(headers.get("traceparent").map(async_nats::HeaderValue::as_str), Some("00-1-2-01"));
        assert_eq!(headers.get_all("X-Many").count(), 2);
        assert!(headers.get("nex-subject").is_none());
        assert_eq!(to_function(Some(&headers)).into_iter().filter(|(name, _)| name.starts_with("Nex-")).count(), 1);
        assert_eq!(parse(&message(headers, Bytes::new())), Ok(invocation));
        let error = parse(&message(HeaderMap::new(), Bytes::new())).unwrap_err();
        assert!(error.to_string().contains(TRIGGER), "{error}");
    }

    #[test]
    fn every_outcome_is_read_as_it_is_written() {
        let error = |limit| InvocationError { code: 504, message: "two\nlines".into(), limit };
        for written in [
            Outcome::Reply("hello".into()),
            Outcome::Reply(Reply::default()),
            Outcome::Reply(Reply { payload: "x".into(), headers: vec![("Content-Type".into(), "a/b".into())] }),
            Outcome::Ack,
            Outcome::Nak { delay_ms: 250 },
            Outcome::Terminate { reason: "poison".into() },
            Outcome::Error(error(None)),
            Outcome::Error(error(Some(Limit::Time))),
        ] {
            let (headers, body) = outcome(written.clone(), 17);
            assert_eq!(read_outcome(message(headers, body)), (written, Some(17)));
        }
    }

    #[test]
    fn host_calls_come_with_an_outcome_and_those_of_an_agent_that_lies_are_none() {
        let (mut headers, body) = outcome(Outcome::Ack, 1);
        assert_eq!(calls(&message(headers.clone(), body.clone())), None);
        let record = Record { calls: Vec::new(), left_out: 3 };
        add_calls(&mut headers, &record);
        assert_eq!(calls(&message(headers.clone(), body.clone())), Some(record));
        for lie in ["{".to_owned(), "[".repeat(200_000), format!("{{\"calls\":[],\"left_out\":{}}}", "9".repeat(300_000))] {
            headers.insert(CALLS, lie);
            assert_eq!(calls(&message(headers.clone(), body.clone())), None);
        }
    }

    #[test]
    fn an_answer_without_an_outcome_is_an_error() {
        let (read, nanos) = read_outcome(message(HeaderMap::new(), "x".into()));
        assert!(matches!(read, Outcome::Error(InvocationError { code: 500, .. })), "{read:?}");
        assert_eq!(nanos, None);
    }
}
