//! Dead letters: what was given up is in a stream of its namespace, payload and headers whole and with the reason, before its own stream
//! hears that it is done with.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::{self, DiscardPolicy};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use nex_protocol::replay::{self, Record};
use nex_protocol::seal::{self, Environment};
use nex_protocol::subject::{dead_letter, dead_letter_stream};
use nex_protocol::trigger::dead::{self, kept_as};
use nkeys::XKey;
use serde_json::json;

use super::failure::TriggerFailure;
use super::jetstream::{Answer, JetStream};
use crate::workload::spec::WorkloadSpec;

/// Most bytes of a namespace's dead letters. Where they are full no more is given up, so that nothing is lost; the operator may change
/// the stream, or make it first.
const MAX_BYTES: i64 = 256 * 1024 * 1024;
/// Time in which the same dead letter is kept once.
const DUPLICATES: Duration = Duration::from_secs(10 * 60);
/// Most bytes of headers that a stream takes, and some room.
const MAX_HEADERS: usize = 63 * 1024;
/// Longest reason, in characters.
const MAX_REASON: usize = 1_024;

/// A message that is given up.
pub(super) struct DeadLetter<'a> {
    pub(super) message: &'a jetstream::Message,
    pub(super) consumer: &'a str,
    pub(super) stream: &'a str,
    pub(super) sequence: u64,
    pub(super) attempts: u32,
    pub(super) trigger: &'a str,
    pub(super) reason: &'a str,
    /// Its last host calls, where they are known.
    pub(super) calls: Option<&'a Record>,
    /// The node's curve key, which seals them.
    pub(super) node: &'a XKey,
}

impl JetStream {
    /// The stream of a namespace's dead letters, made where it is not there.
    pub(super) async fn keep_dead_letters(&self, spec: &WorkloadSpec, replicas: usize) -> Result<(), TriggerFailure> {
        let (name, what) = (dead_letter_stream(&spec.namespace), "a stream for dead letters");
        match self.ask::<stream::Info>(what, format!("STREAM.INFO.{name}"), &json!({})).await? {
            Answer::No(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            answer => return answer.granted(what).map(drop),
        }
        let config = stream::Config {
            name: name.clone(),
            description: Some(format!("messages that triggers of namespace {} gave up; see nex dead", spec.namespace)),
            subjects: vec![dead_letter(&spec.namespace, ">")],
            max_bytes: MAX_BYTES,
            discard: DiscardPolicy::New,
            duplicate_window: DUPLICATES,
            num_replicas: replicas,
            allow_direct: true,
            ..stream::Config::default()
        };
        match self.ask::<stream::Info>(what, format!("STREAM.CREATE.{name}"), &config).await? {
            // Another node was first.
            Answer::No(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => Ok(()),
            answer => answer.granted(what).map(drop),
        }
    }

    /// Keeps a dead letter; it is on disk when this returns.
    pub(super) async fn bury(&self, spec: &WorkloadSpec, letter: &DeadLetter<'_>) -> Result<(), String> {
        let stream = dead_letter_stream(&spec.namespace);
        let subject = dead_letter(&spec.namespace, spec.name.as_str());
        let mut headers = headers(spec, letter, &stream);
        if let Some(sealed) = letter.calls.and_then(|calls| seal_calls(spec, calls, letter.node)) {
            add_within(&mut headers, dead::CALLS, &sealed);
        }
        let mut is_first = true;
        loop {
            let kept = self.publish(&subject, headers.clone(), letter.message.payload.clone()).await;
            let Err((kind, why)) = kept else { return Ok(()) };
            // Somebody deleted the stream since.
            if kind == PublishErrorKind::StreamNotFound && is_first && self.keep_dead_letters(spec, 1).await.is_ok() {
                is_first = false;
                continue;
            }
            return Err(why);
        }
    }

    async fn publish(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<(), (PublishErrorKind, String)> {
        let told = |error: jetstream::context::PublishError| (error.kind(), nex_protocol::envelope::chain(&error));
        let sent = self.context.publish_with_headers(subject.to_owned(), headers, payload).await.map_err(told)?;
        sent.await.map(drop).map_err(told)
    }
}

fn headers(spec: &WorkloadSpec, letter: &DeadLetter<'_>, stream: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, values) in letter.message.headers.iter().flat_map(HeaderMap::iter) {
        for value in values {
            headers.append(kept_as(name.as_ref()), value.clone());
        }
    }
    let reason: String = letter.reason.chars().take(MAX_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect();
    headers.insert(dead::REASON, reason);
    headers.insert(dead::ATTEMPTS, letter.attempts.to_string());
    headers.insert(dead::WORKLOAD, spec.name.as_str());
    headers.insert(dead::WORKLOAD_ID, spec.id.as_str());
    headers.insert(dead::DIGEST, spec.artifact.digest.to_string());
    headers.insert(dead::TRIGGER, letter.trigger);
    headers.insert(dead::STREAM, letter.stream);
    headers.insert(dead::SEQUENCE, letter.sequence.to_string());
    headers.insert(dead::SUBJECT, letter.message.subject.as_str());
    headers.insert(async_nats::header::NATS_MESSAGE_ID, format!("{}:{}:{}", letter.stream, letter.sequence, letter.consumer));
    // Whatever else takes this subject.
    headers.insert(async_nats::header::NATS_EXPECTED_STREAM, stream);
    headers
}

/// Host calls may have all that the function knows: only who deployed it can open them.
fn seal_calls(spec: &WorkloadSpec, calls: &Record, node: &XKey) -> Option<String> {
    let sender = spec.request.sender_public_key.as_deref()?;
    let plain = Environment::from([(replay::CALLS.to_owned(), calls.to_json())]);
    let sealed = seal::seal(&plain, node, sender).ok()?;
    Some(format!("{} {sealed}", node.public_key()))
}

/// Adds a header if there is room for it: a stream refuses a message that has more.
fn add_within(headers: &mut HeaderMap, name: &str, value: &str) {
    let size = |name: &str, value: &str| name.len() + value.len() + 4;
    let there: usize =
        headers.iter().flat_map(|(name, values)| values.iter().map(move |value| size(name.as_ref(), value.as_str()))).sum();
    if there + size(name, value) < MAX_HEADERS {
        headers.insert(name, value);
    }
}
