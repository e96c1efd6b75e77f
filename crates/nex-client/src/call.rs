//! Call a function: a request on one of its trigger subjects, answered with the function's bytes or a service error.

use std::time::Duration;

use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{HeaderMap, RequestErrorKind};
use bytes::Bytes;

use crate::Client;

/// A call brought no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens on the subject.
    #[error("nothing listens on '{0}'; next: see the functions there are and their subjects with `nex ps`")]
    NobodyListens(String),
    /// Nobody answered in time.
    #[error("no answer on '{subject}' within {waited:?}; next: see what the function does with `nex logs`, or allow more time")]
    TimedOut {
        /// The subject.
        subject: String,
        /// For how long.
        waited: Duration,
    },
    /// The function, or the node on its behalf, answered with an error (`Nats-Service-Error`).
    #[error("the call failed: {message} (code {code})")]
    Failed {
        /// Code of the error, as in HTTP.
        code: String,
        /// What went wrong.
        message: String,
    },
    /// The call did not leave.
    #[error("cannot call '{subject}'; next: check the subject, the size of the payload and the permissions of the NATS user")]
    NotSent {
        /// The subject.
        subject: String,
        /// Why.
        #[source]
        source: async_nats::RequestError,
    },
}

/// What a function answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its bytes.
    pub payload: Bytes,
    /// Its headers; empty where there are none.
    pub headers: HeaderMap,
}

impl Client {
    /// Sends a payload to a subject and waits for one reply.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn call(&self, subject: &str, payload: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        self.call_with_headers(subject, HeaderMap::new(), payload, timeout).await.map(|reply| reply.payload)
    }

    /// The same with headers, there and back.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn call_with_headers(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        let mut request = async_nats::Request::new().payload(payload).timeout(Some(timeout));
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let reply = self.nats.send_request(subject.to_owned(), request).await.map_err(|source| match source.kind() {
            RequestErrorKind::NoResponders => CallError::NobodyListens(subject.to_owned()),
            RequestErrorKind::TimedOut => CallError::TimedOut { subject: subject.to_owned(), waited: timeout },
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::Other => {
                CallError::NotSent { subject: subject.to_owned(), source }
            }
        })?;
        let header = |name: &str| Some(reply.headers.as_ref()?.get(name)?.as_str().to_owned());
        match header(NATS_SERVICE_ERROR) {
            None => Ok(Reply { payload: reply.payload, headers: reply.headers.unwrap_or_default() }),
            Some(message) => {
                let code = header(NATS_SERVICE_ERROR_CODE).unwrap_or_else(|| "unknown".into());
                Err(CallError::Failed { code, message })
            }
        }
    }
}
