//! A call made once more with a message, its host calls answered from a record; and what of it differs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::{self, message::StreamMessage};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::kind;
use nex_protocol::id::NodeId;
use nex_protocol::replay::{
    ANSWER, HEAD, HostCall, Kept, LIFE_SECONDS, Record, ReplayHead, ReplayRequest, ReplayResponse, Replayed,
};
use nex_protocol::seal::{self, Environment, SealError};
use nex_protocol::subject;
use nkeys::XKey;

use crate::Client;
use crate::request::{Question, RequestError};

/// A call was not made again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The node did not do it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The request cannot be sealed, or the answer not opened.
    #[error("what is said of a replay cannot be sealed or opened")]
    Sealed(#[from] SealError),
    /// The answer is none.
    #[error("cannot understand what the node tells of the replay; next: compare the versions of both sides with `nex node ls`")]
    Unreadable,
    /// A node of a version that replays nothing, or one that may not subscribe to it.
    #[error("node {0} replays nothing; next: start a node of this version, and permit it to subscribe $NEX.REPLAY.*.*")]
    Unable(NodeId),
}

/// The workload that is called.
#[derive(Debug)]
pub struct Callee<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its node.
    pub node: &'a NodeId,
    /// The curve key of the node.
    pub node_xkey: &'a str,
    /// The curve key that deployed the workload.
    pub deployer: &'a XKey,
}

impl Client {
    /// Calls a workload with a message. The subject, headers, attempt and answers are those of `head`; what it needs besides is put in.
    ///
    /// # Errors
    /// [`ReplayError`]; a call that fails is none.
    pub async fn replay(
        &self,
        callee: &Callee<'_>,
        head: ReplayHead,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Replayed, ReplayError> {
        let Callee { id, node, node_xkey, deployer } = callee;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let expires = i64::try_from(now).unwrap_or(i64::MAX).saturating_add(LIFE_SECONDS / 2);
        let head = ReplayHead { workload_id: (*id).to_owned(), expires, payload: Digest::of(payload), ..head };
        let plain = Environment::from([(HEAD.to_owned(), serde_json::to_string(&head).unwrap_or_default())]);
        let sealed = seal::seal(&plain, deployer, node_xkey)?;
        let request = ReplayRequest { workload_id: (*id).to_owned(), sealed, payload: Kept::of(payload, usize::MAX) };
        let answer = self.ask::<ReplayResponse>(Question {
            verb: "REPLAY",
            node,
            subject: subject::replay(&self.namespace, node),
            body: serde_json::to_vec(&request).unwrap_or_default(),
            expected: kind::REPLAY,
            timeout,
        });
        let answer = answer.await.map_err(|error| match error {
            RequestError::NotThere { node, .. } => ReplayError::Unable(node),
            error => ReplayError::Request(error),
        })?;
        let text = seal::open(&answer.sealed, deployer, node_xkey)?.remove(ANSWER).ok_or(ReplayError::Unreadable)?;
        serde_json::from_str(&text).map_err(|_unreadable| ReplayError::Unreadable)
    }
}

/// A message of a stream cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read message {sequence} of stream {stream}; next: check the name and the number, and that this user may read the stream"
)]
pub struct StoredError {
    stream: String,
    sequence: u64,
    #[source]
    source: async_nats::Error,
}

impl Client {
    /// A message that a stream keeps.
    ///
    /// # Errors
    /// [`StoredError`]
    pub async fn message(&self, stream: &str, sequence: u64) -> Result<StreamMessage, StoredError> {
        let failed = |source: async_nats::Error| StoredError { stream: stream.to_owned(), sequence, source };
        let kept = jetstream::new(self.nats.clone()).get_stream_no_info(stream).await.map_err(|error| failed(error.into()))?;
        kept.get_raw_message(sequence).await.map_err(|error| failed(error.into()))
    }
}

/// One host call that was made, or is, as the other record does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference<'a> {
    /// It was made, and is not any more.
    Gone(&'a HostCall),
    /// It is made now.
    New(&'a HostCall),
    /// It is made still, with another body or other headers.
    Changed(&'a HostCall, &'a HostCall),
}

/// What differs between two records, in the order of the calls.
#[must_use]
pub fn differences<'a>(before: &'a Record, now: &'a Record) -> Vec<Difference<'a>> {
    let (before, now) = (before.calls.as_slice(), now.calls.as_slice());
    let common = common(before, now);
    let (mut found, mut left, mut right) = (Vec::new(), before.iter(), now.iter());
    loop {
        let (rest, others) = (left.as_slice(), right.as_slice());
        let length = |left: usize, right: usize| common.get(left).and_then(|row| row.get(right)).copied().unwrap_or(0);
        let (at, other) = (before.len() - rest.len(), now.len() - others.len());
        match (rest.first(), others.first()) {
            (None, None) => return found,
            (Some(was), Some(is)) if was.is_like(is) => {
                if !was.sends_as(is) {
                    found.push(Difference::Changed(was, is));
                }
                left.next();
                right.next();
            }
            (Some(was), is) if is.is_none() || length(at + 1, other) >= length(at, other + 1) => {
                found.push(Difference::Gone(was));
                left.next();
            }
            (_, Some(is)) => {
                found.push(Difference::New(is));
                right.next();
            }
            (Some(_), None) => return found,
        }
    }
}

/// For each pair of beginnings, how many calls what follows has in common. Records are bounded, and so is this.
fn common(before: &[HostCall], now: &[HostCall]) -> Vec<Vec<u32>> {
    let mut rows = vec![vec![0; now.len() + 1]];
    for was in before.iter().rev() {
        let below = rows.last().map(Vec::as_slice).unwrap_or_default();
        let mut row = vec![0; now.len() + 1];
        let mut right = 0;
        for (index, is) in now.iter().enumerate().rev() {
            let of = |index: usize| below.get(index).copied().unwrap_or(0);
            right = if was.is_like(is) { of(index + 1) + 1 } else { of(index).max(right) };
            if let Some(cell) = row.get_mut(index) {
                *cell = right;
            }
        }
        rows.push(row);
    }
    rows.reverse();
    rows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(calls: &str) -> Record {
        let call = |text: &str| HostCall {
            call: "kv.set".into(),
            target: text.chars().take(1).collect(),
            headers: Vec::new(),
            body: Kept::Text(text.chars().skip(1).collect()),
            answer: None,
        };
        Record { calls: calls.split_whitespace().map(call).collect(), left_out: 0 }
    }

    fn told(before: &str, now: &str) -> String {
        let (before, now) = (record(before), record(now));
        let tell = |difference: &Difference<'_>| match difference {
            Difference::Gone(call) => format!("-{}", call.target),
            Difference::New(call) => format!("+{}", call.target),
            Difference::Changed(was, _) => format!("~{}", was.target),
        };
        differences(&before, &now).iter().map(tell).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_what_differs_is_told_in_its_order() {
        for (before, now, expected) in [
            ("a b c", "a b c", ""),
            ("", "", ""),
            ("a b c", "a c", "-b"),
            ("a c", "a b c", "+b"),
            ("a1 b", "a2 b", "~a"),
            ("a b", "b a", "-a +a"),
            ("", "a", "+a"),
            ("a", "", "-a"),
            ("x a b", "a b y", "-x +y"),
        ] {
            assert_eq!(told(before, now), expected, "{before} | {now}");
        }
    }

    proptest! {
        #[test]
        fn what_is_gone_and_new_leads_from_one_to_the_other(before in "([a-d] ){0,12}", now in "([a-d] ){0,12}") {
            let (was, is) = (record(&before), record(&now));
            let found = differences(&was, &is);
            let gone = found.iter().filter(|it| matches!(it, Difference::Gone(_))).count();
            let new = found.iter().filter(|it| matches!(it, Difference::New(_))).count();
            prop_assert_eq!(was.calls.len() - gone, is.calls.len() - new);
            prop_assert_eq!(found.is_empty(), was == is);
        }
    }
}
