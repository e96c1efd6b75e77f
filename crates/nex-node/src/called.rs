//! What a call goes to: a function, by way of its agent; or a service, which is asked on a subject of its own as any micro service is.
//!
//! A service's answer acknowledges. One with `Nats-Service-Error-Code` says that it failed, and one with the outcome of a call in its
//! headers (`Nex-Outcome: nak` and `Nex-Delay-Ms`, or `term`) says what is to become of the message.

use std::time::Duration;

use async_nats::header::NATS_EXPECTED_STREAM;
use async_nats::service::NATS_SERVICE_ERROR_CODE;
use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind};
use bytes::Bytes;
use nex_bus::{invocation, service_error};
use nex_protocol::agent::invocation::OUTCOME;
use nex_protocol::agent::{HostCalls, Invocation, InvocationError, Outcome, Reply};
use serde::Deserialize;

use crate::agents::{Begun, Invoked, Invoker};
use crate::workload::spec::WorkloadSpec;

/// `JetStream`'s code for a message that is for another stream.
const OF_ANOTHER_STREAM: u64 = 10_060;
/// Longest answer that may be that.
const MAX_REFUSAL: usize = 1_024;

/// What a call goes to. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Called {
    /// An instance on an agent.
    Function(Invoker),
    /// Whatever listens on a service's subject.
    Service(Service),
}

/// A service, as the node asks it.
#[derive(Debug, Clone)]
pub struct Service {
    nats: Client,
    subject: String,
}

/// Nobody listens: it was asked of nobody, so that it was no attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no service listens on {0}; next: have it subscribe the subject in its variable NEX_TRIGGER_SUBJECT, in a queue group")]
pub struct NobodyListens(String);

impl Service {
    /// The service of a workload, on a connection.
    #[must_use]
    pub fn new(nats: Client, spec: &WorkloadSpec) -> Self {
        Self { nats, subject: spec.service_subject() }
    }
}

impl Called {
    /// Where it is asked, if it is a service.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Function(_) => None,
            Self::Service(service) => Some(&service.subject),
        }
    }

    /// One call. `slack` is the time beyond the invocation's deadline in
    /// which an agent answers that it was reached.
    ///
    /// # Errors
    /// [`NobodyListens`], of services only.
    pub async fn invoke(
        &self,
        invocation: &Invocation,
        callers: Option<&HeaderMap>,
        payload: Bytes,
        slack: Duration,
    ) -> Result<Invoked, NobodyListens> {
        match self {
            Self::Function(invoker) => Ok(invoker.invoke(invocation, callers, payload, slack).await),
            Self::Service(service) => service.ask(invocation, callers, payload).await.map(Invoked::of),
        }
    }

    /// One call of whoever takes a response piece by piece.
    ///
    /// # Errors
    /// As [`Self::invoke`].
    pub async fn begin(
        &self,
        invocation: &Invocation,
        callers: Option<&HeaderMap>,
        payload: Bytes,
        slack: Duration,
    ) -> Result<Begun, NobodyListens> {
        match self {
            Self::Function(invoker) => Ok(invoker.begin(invocation, callers, payload, slack).await),
            Self::Service(_) => self.invoke(invocation, callers, payload, slack).await.map(Begun::Whole),
        }
    }
}

impl Service {
    async fn ask(&self, invocation: &Invocation, callers: Option<&HeaderMap>, payload: Bytes) -> Result<Outcome, NobodyListens> {
        let within = Duration::from_millis(invocation.deadline_ms);
        // It makes no host calls by the node, and none of another's are for it to see.
        let invocation = Invocation { host_calls: HostCalls::Live, ..invocation.clone() };
        let mut headers = invocation::headers(&invocation, callers);
        // A stream that takes this subject, too, would acknowledge what no service has seen. No stream is called so, for it has dots.
        headers.insert(NATS_EXPECTED_STREAM, self.subject.as_str());
        let request = Request::new().payload(payload).headers(headers).timeout(Some(within));
        match self.nats.send_request(self.subject.clone(), request).await {
            Ok(answer) => Ok(read(answer)),
            Err(error) => match error.kind() {
                RequestErrorKind::NoResponders => Err(NobodyListens(self.subject.clone())),
                RequestErrorKind::TimedOut => {
                    Ok(failed(504, format!("the service did not answer within {} ms", within.as_millis())))
                }
                _ => Ok(failed(500, format!("the service cannot be asked: {}", nex_protocol::envelope::chain(&error)))),
            },
        }
    }
}

/// What an answer of a service says.
fn read(answer: Message) -> Outcome {
    if let Some(stream) = stream_that_took(&answer.payload) {
        return failed(
            508,
            format!(
                "the stream {stream} has the subject on which the service is asked; next: leave nex.svc.> out of its subjects"
            ),
        );
    }
    let header =
        |name: &str| answer.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str().to_owned());
    if header(OUTCOME).is_some() {
        return invocation::read_outcome(answer).0;
    }
    if let Some((code, why)) = service_error::read(&answer) {
        return failed(code, why);
    }
    match header(NATS_SERVICE_ERROR_CODE) {
        Some(code) => failed(code.parse().unwrap_or(500), format!("the service failed with code {code}")),
        None => Outcome::Reply(Reply { payload: answer.payload, headers: Vec::new() }),
    }
}

fn failed(code: u16, message: String) -> Outcome {
    Outcome::Error(InvocationError { code, message, limit: None })
}

/// The stream whose refusal an answer is.
fn stream_that_took(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        error: Error,
        stream: String,
    }
    #[derive(Deserialize)]
    struct Error {
        err_code: u64,
    }
    if payload.len() > MAX_REFUSAL || !payload.starts_with(b"{") {
        return None;
    }
    let refusal: Refusal = serde_json::from_slice(payload).ok()?;
    (refusal.error.err_code == OF_ANOTHER_STREAM).then_some(refusal.stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&str, &str)], payload: &str) -> Message {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        Message {
            subject: "a".into(),
            reply: None,
            payload: Bytes::from(payload.to_owned()),
            headers: (!headers.is_empty()).then_some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn an_answer_acknowledges_unless_it_says_that_it_failed() {
        let read = |headers: &[(&str, &str)], payload: &str| super::read(answer(headers, payload));
        assert!(matches!(read(&[], "done"), Outcome::Reply(_)));
        assert!(matches!(read(&[("X", "1")], r#"{"error": "of the service's own"}"#), Outcome::Reply(_)));
        let error = |outcome| match outcome {
            Outcome::Error(InvocationError { code, message, .. }) => (code, message),
            other => panic!("{other:?}"),
        };
        let told = [("Nats-Service-Error-Code", "422"), ("Nats-Service-Error", "no total")];
        assert_eq!(error(read(&told, "")), (422, "no total".to_owned()));
        assert_eq!(error(read(&told[..1], "")).0, 422);
        assert_eq!(error(read(&[("Nats-Service-Error-Code", "what")], "")).0, 500);
        assert_eq!(read(&[("Nex-Outcome", "nak"), ("Nex-Delay-Ms", "70")], ""), Outcome::Nak { delay_ms: 70 });
        assert_eq!(read(&[("Nex-Outcome", "term")], "poison"), Outcome::Terminate { reason: "poison".to_owned() });
        let refusal =
            r#"{"error":{"code":400,"err_code":10060,"description":"expected stream does not match"},"stream":"ALL","seq":0}"#;
        assert!(error(read(&[], refusal)).1.contains("the stream ALL has the subject"));
    }
}
