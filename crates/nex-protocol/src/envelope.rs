//! The envelope of every control reply: `{"type": …, "data": …, "error": …}`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Reply `type` of each verb, as 0.2.7 writes it.
pub mod kind {
    /// AUCTION
    pub const AUCTION: &str = "io.nats.nex.v1.auction_response";
    /// PING and WPING
    pub const PING: &str = "io.nats.nex.v1.ping_response";
    /// INFO
    pub const INFO: &str = "io.nats.nex.v1.info_response";
    /// DEPLOY
    pub const RUN: &str = "io.nats.nex.v1.run_response";
    /// STOP
    pub const STOP: &str = "io.nats.nex.v1.stop_response";
    /// LAMEDUCK
    pub const LAME_DUCK: &str = "io.nats.nex.v1.lameduck_response";
    /// HISTORY (new)
    pub const HISTORY: &str = "io.nats.nex.v1.history_response";
    /// REPLAY (new)
    pub const REPLAY: &str = "io.nats.nex.v1.replay_response";
}

/// What kind of no a failure is; closed, so programs can act on it. Clients of 0.2.7 ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed; sending it again will not help.
    BadRequest,
    /// Policy or ownership forbids it: issuer, claims, deny list, replay.
    Denied,
    /// What it names does not exist here.
    NotFound,
    /// The node is full, draining, or had nothing ready in time; another node or a later moment may do.
    Unavailable,
    /// The artifact could not be fetched, verified or started.
    Failed,
    /// The node's own fault.
    Internal,
}

/// A refusal or failure: a code for programs, a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind.
    pub code: ErrorCode,
    /// What, why, and what to do; the texts of 0.2.7 where clients match on them.
    pub message: String,
}

impl Failure {
    /// A failure of a kind, with its text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    r#type: &'a str,
    data: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<ErrorCode>,
}

/// Envelope of a success.
#[must_use]
pub fn success<T: Serialize>(kind: &str, data: &T) -> Vec<u8> {
    serde_json::to_vec(&Outgoing { r#type: kind, data, error: None, code: None }).unwrap_or_default()
}

/// Envelope of a failure; `data` is an empty string, as clients of 0.2.7 expect.
#[must_use]
pub fn failure(kind: &str, failure: &Failure) -> Vec<u8> {
    let body = Outgoing { r#type: kind, data: "", error: Some(&failure.message), code: Some(failure.code) };
    serde_json::to_vec(&body).unwrap_or_default()
}

/// A reply that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The node said no.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The reply is not an envelope of the expected kind.
    #[error("the reply is not a nex {expected}: {why}")]
    Malformed {
        /// The reply type that was expected.
        expected: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// Opens a reply of the expected kind.
///
/// # Errors
/// [`ReplyError::Failed`] when the node refused, [`ReplyError::Malformed`] for anything that is no such envelope.
pub fn open<T: DeserializeOwned>(expected: &'static str, body: &[u8]) -> Result<T, ReplyError> {
    #[derive(Deserialize)]
    struct Incoming {
        r#type: String,
        #[serde(default)]
        data: Value,
        error: Option<String>,
        code: Option<ErrorCode>,
    }
    let malformed = |why: String| ReplyError::Malformed { expected, why };
    let incoming: Incoming = serde_json::from_slice(body).map_err(|e| malformed(e.to_string()))?;
    if let Some(message) = incoming.error {
        return Err(Failure { code: incoming.code.unwrap_or(ErrorCode::Failed), message }.into());
    }
    if incoming.r#type != expected {
        return Err(malformed(format!("its type is '{}'", incoming.r#type)));
    }
    serde_json::from_value(incoming.data).map_err(|e| malformed(e.to_string()))
}

/// An error and its causes as one line, as it is told to others.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_the_shape_of_0_2_7() {
        let body = failure(kind::RUN, &Failure::new(ErrorCode::Denied, "no"));
        assert_eq!(
            String::from_utf8(body.clone()).unwrap(),
            r#"{"type":"io.nats.nex.v1.run_response","data":"","error":"no","code":"denied"}"#
        );
        assert_eq!(open::<Value>(kind::RUN, &body), Err(Failure::new(ErrorCode::Denied, "no").into()));
    }

    #[test]
    fn a_reply_of_another_kind_is_refused() {
        let body = success(kind::STOP, &serde_json::json!({}));
        assert!(matches!(open::<Value>(kind::RUN, &body), Err(ReplyError::Malformed { .. })));
        assert!(open::<Value>(kind::STOP, &body).is_ok());
    }
}
