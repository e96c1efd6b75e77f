//! REPLAY: calls a workload with a message once more, for its deployer only.
//!
//! What is asked is sealed by the curve key that sealed the workload's environment, and what comes of it is sealed to the same: the host
//! calls of a function may have every secret that it knows. A request counts once, and not for long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use nex_process::Deadline;
use nex_protocol::agent::{HostCalls, Invocation, InvocationError, Outcome, TriggerKind};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::{ErrorCode, Failure};
use nex_protocol::replay::{ANSWER, HEAD, Kept, LIFE_SECONDS, REPLY_BYTES, ReplayHead, ReplayRequest, ReplayResponse, Replayed};
use nex_protocol::seal::{self, Environment};

use super::body;
use crate::agents::Invoked;
use crate::callees::Callee;
use crate::clock;
use crate::identity::Identity;
use crate::trigger::AGENT_SLACK;
use crate::workload::Workloads;
use crate::workload::runtime::DriverServices;
use crate::workload::spec::WorkloadSpec;

/// Requests that are remembered, so that none counts twice.
const REMEMBERED: usize = 4_096;

/// Calls workloads once more.
pub(super) struct Replays {
    pub(super) identity: Arc<Identity>,
    pub(super) registry: Workloads,
    pub(super) drivers: Arc<DriverServices>,
    pub(super) seen: Seen,
}

impl Replays {
    /// Makes the call, and tells what came of it.
    pub(super) async fn replay(&self, namespace: &str, body: &[u8], by: Deadline) -> Result<ReplayResponse, Failure> {
        let request: ReplayRequest = body::parse("replay", body)?;
        let workload = self.registry.get(&request.workload_id).filter(|it| it.spec.namespace.as_str() == namespace);
        let workload = workload.ok_or_else(|| Failure::new(ErrorCode::NotFound, "No such workload"))?;
        let spec = &workload.spec;
        let denied = |why: &str| Failure::new(ErrorCode::Denied, format!("the request to replay is refused: {why}"));
        let Some(deployer) = spec.request.sender_public_key.as_deref() else {
            return Err(denied("the workload was deployed without a curve key"));
        };
        let head = self.open(&request.sealed, deployer).ok_or_else(|| {
            denied("it is not sealed to this node by the curve key that deployed the workload; next: give its file with --xkey")
        })?;
        let payload = request.payload.bytes().unwrap_or_default();
        if head.workload_id != request.workload_id || head.payload != Digest::of(&payload) {
            return Err(denied("its parts do not belong together"));
        }
        if !self.seen.is_first(&request.sealed, head.expires, clock::unix_seconds()) {
            return Err(denied("it came before, or its time is over; next: compare the clocks of both sides"));
        }
        let callee = self.drivers.launcher.callees.get(&spec.id);
        let callee = callee.ok_or_else(|| {
            Failure::new(
                ErrorCode::Unavailable,
                "the workload does not run now, or is none that is called; next: see nex describe",
            )
        })?;
        let replayed = call(spec, &callee, head, payload, by).await?;
        let plain = Environment::from([(ANSWER.to_owned(), serde_json::to_string(&replayed).unwrap_or_default())]);
        let sealed = seal::seal(&plain, &self.identity.xkey, deployer);
        Ok(ReplayResponse { sealed: sealed.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))? })
    }

    fn open(&self, sealed: &str, deployer: &str) -> Option<ReplayHead> {
        let text = seal::open(sealed, &self.identity.xkey, deployer).ok()?.remove(HEAD)?;
        serde_json::from_str(&text).ok()
    }
}

async fn call(spec: &WorkloadSpec, callee: &Callee, head: ReplayHead, payload: Bytes, by: Deadline) -> Result<Replayed, Failure> {
    let late = |_| Failure::new(ErrorCode::Unavailable, "all its slots are taken; next: try again");
    let Ok(_slot) = by.bound(callee.slots.acquire()).await.map_err(late)? else {
        return Err(Failure::new(ErrorCode::Unavailable, "the workload is being stopped"));
    };
    let invocation = Invocation {
        trigger: TriggerKind::Stream,
        subject: head.subject,
        deadline_ms: spec.limits.call_timeout_ms,
        attempt: head.attempt,
        host_calls: HostCalls::Replayed(head.replay),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in head.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    let invoked = callee.called.invoke(&invocation, Some(&headers), payload, AGENT_SLACK).await;
    let Invoked { outcome, calls, .. } = invoked.map_err(|nobody| Failure::new(ErrorCode::Unavailable, nobody.to_string()))?;
    if callee.called.subject().is_none() && calls.is_none() {
        let why = match outcome {
            Outcome::Error(InvocationError { message, .. }) => message,
            _ => "its agent has not told its host calls".to_owned(),
        };
        return Err(Failure::new(ErrorCode::Failed, format!("the call was not made again as it should be: {why}")));
    }
    let failed =
        |failure| Replayed { failure, is_later: false, reply: Kept::Text(String::new()), headers: Vec::new(), record: None };
    let replayed = match outcome {
        Outcome::Reply(reply) => {
            Replayed { reply: Kept::of(&reply.payload, REPLY_BYTES), headers: reply.headers, ..failed(None) }
        }
        Outcome::Ack => failed(None),
        Outcome::Nak { .. } => Replayed { is_later: true, ..failed(None) },
        Outcome::Terminate { reason } => failed(Some(reason)),
        Outcome::Error(InvocationError { message, .. }) => failed(Some(message)),
    };
    Ok(Replayed { record: calls, ..replayed })
}

/// Requests that came lately.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<BTreeMap<Digest, i64>>);

impl Seen {
    /// Whether a request counts: within its time, and for the first time.
    fn is_first(&self, sealed: &str, expires: i64, now: i64) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, expires| *expires >= now);
        let is_in_time = expires >= now && expires <= now.saturating_add(LIFE_SECONDS);
        let digest = Digest::of(sealed.as_bytes());
        is_in_time && seen.len() < REMEMBERED && seen.insert(digest, expires).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_once_and_not_for_long() {
        let seen = Seen::default();
        let sealed = |number: usize| number.to_string();
        assert!(seen.is_first(&sealed(1), 1_060, 1_000));
        assert!(!seen.is_first(&sealed(1), 1_060, 1_060), "it came before");
        assert!(!seen.is_first(&sealed(2), 999, 1_000) && !seen.is_first(&sealed(2), 1_000 + LIFE_SECONDS + 1, 1_000));
        assert!(!seen.is_first(&sealed(1), 1_060, 1_061), "it is over");
        for number in 0..REMEMBERED {
            assert!(seen.is_first(&sealed(number), 2_000, 1_990));
        }
        assert!(!seen.is_first(&sealed(REMEMBERED), 2_000, 1_990), "what is not remembered is not taken");
        assert!(seen.is_first(&sealed(REMEMBERED), 2_010, 2_001));
    }
}
