//! Host calls as they are recorded, and a call that is made again with their answers.
//!
//! A record travels only sealed: to whoever deployed the function, who could print all of it from inside, and to nobody else.

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::agent::invocation::{Headers, TRACEPARENT, TRACESTATE};
use crate::digest::Digest;
use crate::host::{HostError, HostRequest};

/// Largest record of a call, in bytes of its JSON: sealed, it is a header of a dead letter, of which a stream takes 64 KiB in all.
pub const RECORD_BYTES: usize = 32 * 1024;
/// Largest record of a call that is made again: its answer goes in one message.
pub const REPLAYED_BYTES: usize = 64 * 1024;
/// Longest body that is kept whole.
pub const BODY_BYTES: usize = 8 * 1024;
/// Longest reply that is told whole.
pub const REPLY_BYTES: usize = 32 * 1024;
/// Longest time between a request to replay and its end, in seconds.
pub const LIFE_SECONDS: i64 = 600;

/// Name of the one member of the sealed map that a [`ReplayHead`] is in.
pub const HEAD: &str = "nex:replay";
/// The same of a [`Replayed`].
pub const ANSWER: &str = "nex:replayed";
/// The same of a [`Record`].
pub const CALLS: &str = "nex:calls";

/// Bytes as they are kept: whole, or what tells them from others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// A text.
    Text(String),
    /// Anything else, in base64.
    Base64(String),
    /// Too long to be kept.
    Cut {
        /// Its length.
        bytes: u64,
        /// Its digest.
        sha256: Digest,
    },
}

impl Kept {
    /// Keeps bytes, whole if they are no more than `most`.
    #[must_use]
    pub fn of(bytes: &[u8], most: usize) -> Self {
        if bytes.len() > most {
            return Self::cut(bytes);
        }
        match std::str::from_utf8(bytes) {
            // Others take more room as JSON than in base64.
            Ok(text) if !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) => Self::Text(text.to_owned()),
            _ => Self::Base64(BASE64.encode(bytes)),
        }
    }

    /// Keeps what tells bytes from others.
    #[must_use]
    pub fn cut(bytes: &[u8]) -> Self {
        Self::Cut { bytes: bytes.len() as u64, sha256: Digest::of(bytes) }
    }

    /// The bytes, if they were kept whole.
    #[must_use]
    pub fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Text(text) => Some(text.clone().into()),
            Self::Base64(text) => BASE64.decode(text.as_bytes()).ok().map(Bytes::from),
            Self::Cut { .. } => None,
        }
    }

    /// Whether it was made of these bytes.
    #[must_use]
    pub fn is_of(&self, other: &[u8]) -> bool {
        match self {
            Self::Cut { .. } => *self == Self::cut(other),
            Self::Text(text) => text.as_bytes() == other,
            Self::Base64(_) => self.bytes().is_some_and(|bytes| bytes == other),
        }
    }
}

/// What a host service answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was done.
    Ok(Kept),
    /// It was not.
    Err {
        /// As in HTTP.
        code: u16,
        /// What the function was told.
        message: String,
    },
}

/// A host call as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCall {
    /// `<service>.<method>`
    pub call: String,
    /// The key, name, subject or URL.
    pub target: String,
    /// Headers, without those of a trace, which are another's in each call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Headers,
    /// What was sent.
    pub body: Kept,
    /// What was answered, if the function waited for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

impl HostCall {
    /// Records a call before it is made.
    #[must_use]
    pub fn of(request: &HostRequest) -> Self {
        let is_trace = |name: &str| [TRACEPARENT, TRACESTATE].iter().any(|trace| name.eq_ignore_ascii_case(trace));
        Self {
            call: format!("{}.{}", request.service, request.method),
            target: request.target.clone(),
            headers: request.headers.iter().filter(|(name, _)| !is_trace(name)).cloned().collect(),
            body: Kept::of(&request.body, BODY_BYTES),
            answer: None,
        }
    }

    /// Records what was answered.
    pub fn answered(&mut self, answer: &Result<Bytes, HostError>) {
        self.answer = Some(match answer {
            Ok(bytes) => Answer::Ok(Kept::of(bytes, BODY_BYTES)),
            Err(HostError { code, message }) => Answer::Err { code: *code, message: message.clone() },
        });
    }

    /// Keeps only what tells the answer from others.
    pub fn cut_answer(&mut self) {
        match &mut self.answer {
            Some(Answer::Ok(kept)) => {
                if let Some(bytes) = kept.bytes() {
                    *kept = Kept::cut(&bytes);
                }
            }
            Some(Answer::Err { message, .. }) => message.clear(),
            None => {}
        }
    }

    /// Whether both ask the same service for the same thing, whatever they send.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.call == other.call && self.target == other.target
    }

    /// Whether both ask the same and send the same.
    #[must_use]
    pub fn sends_as(&self, other: &Self) -> bool {
        self.is_like(other) && self.headers == other.headers && self.body == other.body
    }

    /// The answer as the function gets it; nothing where it was not kept whole.
    #[must_use]
    pub fn to_answer(&self) -> Option<Result<Bytes, HostError>> {
        match self.answer.as_ref()? {
            Answer::Ok(kept) => kept.bytes().map(Ok),
            Answer::Err { code, message } => Some(Err(HostError { code: *code, message: message.clone() })),
        }
    }

    /// Bytes of it as JSON.
    #[must_use]
    pub fn size(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |json| json.len())
    }
}

/// The host calls of one call, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// They.
    pub calls: Vec<HostCall>,
    /// How many more were made than there was room for.
    #[serde(default)]
    pub left_out: u64,
}

impl Record {
    /// Reads one, if it is not larger than any is.
    #[must_use]
    pub fn read(json: &str) -> Option<Self> {
        // A few bytes around the calls.
        (json.len() <= REPLAYED_BYTES + 1_024).then(|| serde_json::from_str(json).ok())?
    }

    /// Writes it, without a line break.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What becomes of host calls that are not in the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// They fail.
    #[default]
    Refuse,
    /// They are made.
    Live,
}

/// How the host calls of a call are answered that is made again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// From here.
    pub record: Record,
    /// What is not there.
    #[serde(default)]
    pub rest: Rest,
}

/// Body of REPLAY: a message for a workload that runs on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRequest {
    /// Id of the workload.
    pub workload_id: String,
    /// A [`ReplayHead`], sealed to the node by the curve key that sealed the workload's environment.
    pub sealed: String,
    /// The payload, whole.
    pub payload: Kept,
}

/// What only the deployer may say of a call that is made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayHead {
    /// Id of the workload.
    pub workload_id: String,
    /// After which it counts no more, seconds since 1970; at most [`LIFE_SECONDS`] ahead.
    pub expires: i64,
    /// Digest of the payload beside it.
    pub payload: Digest,
    /// Subject of the message.
    pub subject: String,
    /// Its headers.
    #[serde(default)]
    pub headers: Headers,
    /// Which attempt it was.
    pub attempt: u32,
    /// Answers.
    pub replay: Replay,
}

/// Answer to REPLAY.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayResponse {
    /// A [`Replayed`], sealed to who asked.
    pub sealed: String,
}

/// What came of a call that was made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Why it failed, as a dead letter has it; nothing where it did not.
    #[serde(default)]
    pub failure: Option<String>,
    /// Whether the function wants the message later.
    #[serde(default)]
    pub is_later: bool,
    /// What it replied.
    pub reply: Kept,
    /// Headers of the reply.
    #[serde(default)]
    pub headers: Headers,
    /// Its host calls; nothing of a service, which makes none by the node.
    #[serde(default)]
    pub record: Option<Record>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::Service;

    #[test]
    fn a_host_call_is_kept_without_its_trace_and_its_answer_comes_back() {
        let headers = vec![("TraceParent".to_owned(), "00-1".to_owned()), ("X".to_owned(), "1".to_owned())];
        let body = Bytes::from(vec![b'x'; BODY_BYTES + 1]);
        let request =
            HostRequest { service: Service::KeyValue, method: "set".into(), target: "total".into(), body: body.clone(), headers };
        let mut call = HostCall::of(&request);
        assert_eq!((call.call.as_str(), call.headers.len()), ("kv.set", 1));
        assert!(call.body.bytes().is_none() && call.body.is_of(&body) && !call.body.is_of(b"x"));
        assert_eq!(call.to_answer(), None, "nobody waited for it");
        for answer in [Ok(Bytes::from_static(b"\0\xff")), Ok(Bytes::new()), Err(HostError { code: 404, message: "no".into() })] {
            call.answered(&answer);
            let record = Record { calls: vec![call.clone()], left_out: 2 };
            assert_eq!(Record::read(&record.to_json()), Some(record));
            assert_eq!(call.to_answer(), Some(answer));
        }
        call.answered(&Ok(body));
        assert_eq!(call.to_answer(), None, "it was not kept whole");
        assert_eq!(Record::read(&" ".repeat(REPLAYED_BYTES * 2)), None);
    }

    proptest! {
        #[test]
        fn what_is_kept_whole_comes_back_in_bounded_room(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,80}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                let kept = Kept::of(bytes, 300);
                prop_assert!(kept.bytes().is_some_and(|kept| kept == bytes));
                prop_assert!(kept.is_of(bytes));
                prop_assert!(serde_json::to_vec(&kept).unwrap().len() <= bytes.len() * 2 + 32);
            }
        }
    }
}
