//! Dead letters: messages that triggers gave up, listed, looked at, removed, and handed to a function once more.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DeleteMessageErrorKind, RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use nex_protocol::id::WorkloadName;
use nex_protocol::replay::{CALLS, Record};
use nex_protocol::seal;
use nex_protocol::subject::{dead_letter, dead_letter_stream, redrive};
use nex_protocol::trigger::dead;
use nkeys::XKey;

use crate::Client;
use crate::call::{CallError, Reply};

/// Dead letters cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}; next: check that JetStream is enabled, and that this user may use the stream {stream}")]
pub struct DeadLetterError {
    what: &'static str,
    stream: String,
    #[source]
    source: async_nats::Error,
}

/// A message that a trigger gave up.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its number among the dead letters of the namespace.
    pub sequence: u64,
    /// When it was given up, seconds since 1970.
    pub at: i64,
    /// Its payload, as it was.
    pub payload: Bytes,
    headers: HeaderMap,
}

/// The dead letters of a namespace.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    client: Client,
    stream: Stream,
}

impl DeadLetter {
    fn of(message: StreamMessage) -> Self {
        let StreamMessage { sequence, payload, headers, time, .. } = message;
        Self { sequence, at: time.unix_timestamp(), payload, headers }
    }

    /// What it says of itself under one of the names in [`dead`]; empty where it does not.
    #[must_use]
    pub fn says(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.as_str())
    }

    /// The host calls of its last attempt; nothing where they were not recorded, or where another curve key deployed the workload.
    #[must_use]
    pub fn calls(&self, deployer: &XKey) -> Option<Record> {
        let (by, sealed) = self.says(dead::CALLS).split_once(' ')?;
        Record::read(&seal::open(sealed, deployer, by).ok()?.remove(CALLS)?)
    }

    /// The headers of the message that it was.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut own = HeaderMap::new();
        for (name, values) in self.headers.iter() {
            // A name that cannot be one any more is nobody's.
            let Some(name) = dead::was_called(name.as_ref()).and_then(|name| name.parse::<async_nats::HeaderName>().ok()) else {
                continue;
            };
            for value in values {
                own.append(name.clone(), value.clone());
            }
        }
        own
    }
}

impl Client {
    /// The dead letters of the namespace; nothing where there has never been one.
    ///
    /// # Errors
    /// [`DeadLetterError`]
    pub async fn dead_letters(&self) -> Result<Option<DeadLetters>, DeadLetterError> {
        let name = dead_letter_stream(&self.namespace);
        match jetstream::new(self.nats.clone()).get_stream(&name).await {
            Ok(stream) => Ok(Some(DeadLetters { client: self.clone(), stream })),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(DeadLetterError { what: "look for dead letters", stream: name, source: error.into() }),
            },
        }
    }
}

impl DeadLetters {
    /// The first one from this number on, of this workload if one is named.
    ///
    /// # Errors
    /// [`DeadLetterError`]
    pub async fn next(&self, from: u64, workload: Option<&WorkloadName>) -> Result<Option<DeadLetter>, DeadLetterError> {
        let filter = dead_letter(&self.client.namespace, workload.map_or(">", WorkloadName::as_str));
        match self.stream.raw_message_builder().sequence(from.max(1)).next_by_subject(filter).send().await {
            Ok(message) => Ok(Some(DeadLetter::of(message))),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.error("read a dead letter", error)),
        }
    }

    /// The one of this number.
    ///
    /// # Errors
    /// [`DeadLetterError`]
    pub async fn get(&self, sequence: u64) -> Result<Option<DeadLetter>, DeadLetterError> {
        Ok(self.next(sequence, None).await?.filter(|letter| letter.sequence == sequence))
    }

    /// Removes one. Says whether it was there.
    ///
    /// # Errors
    /// [`DeadLetterError`]
    pub async fn remove(&self, sequence: u64) -> Result<bool, DeadLetterError> {
        match self.stream.delete_message(sequence).await {
            Ok(is_gone) => Ok(is_gone),
            Err(error) => match error.kind() {
                DeleteMessageErrorKind::JetStream(error) if error.error_code() == ErrorCode::SEQUENCE_NOT_FOUND => Ok(false),
                DeleteMessageErrorKind::JetStream(error) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(false),
                _ => Err(self.error("remove a dead letter", error)),
            },
        }
    }

    /// Hands one to the workload that gave it up, or to whoever listens on a subject. It stays where it is.
    ///
    /// # Errors
    /// [`CallError`], where it fails once more.
    pub async fn redrive(&self, letter: &DeadLetter, to: Option<&str>, timeout: Duration) -> Result<Reply, CallError> {
        let own = || letter.says(dead::WORKLOAD).parse().map(|name: WorkloadName| redrive(&self.client.namespace, &name)).ok();
        let nobody = || CallError::NobodyListens(letter.says(dead::WORKLOAD).to_owned());
        let (subject, is_kept): (String, fn(&str) -> bool) = match to {
            // Only what nobody acts by.
            Some(subject) => (subject.to_owned(), |name| dead::was_called(name) == Some(name)),
            // The node gives the others their names back; those of the letter's own publication are no message's.
            None => (own().ok_or_else(nobody)?, |name| !name.starts_with("Nats-") && name != dead::CALLS),
        };
        let mut headers = HeaderMap::new();
        for (name, values) in letter.headers.iter().filter(|(name, _)| is_kept(name.as_ref())) {
            values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
        }
        self.client.call_with_headers(&subject, headers, letter.payload.clone(), timeout).await
    }

    fn error(&self, what: &'static str, source: impl Into<async_nats::Error>) -> DeadLetterError {
        DeadLetterError { what, stream: dead_letter_stream(&self.client.namespace), source: source.into() }
    }
}
