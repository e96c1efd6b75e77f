//! One question to one node, and the envelope of its answer.

use std::time::Duration;

use async_nats::RequestErrorKind;
use nex_protocol::envelope::{self, Failure, ReplyError};
use nex_protocol::id::NodeId;
use serde::de::DeserializeOwned;

use crate::Client;

/// A node did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody listens on the subject.
    #[error("node {node} is not there: nobody answers its {verb}; next: see which nodes are with `nex node ls`")]
    NotThere {
        /// What was asked.
        verb: &'static str,
        /// Of whom.
        node: NodeId,
    },
    /// The node listens and is silent.
    #[error(
        "node {node} did not answer {verb} within {waited:?}; next: see whether it took effect with `nex ps`, or allow more time"
    )]
    TimedOut {
        /// What was asked.
        verb: &'static str,
        /// Of whom.
        node: NodeId,
        /// For how long.
        waited: Duration,
    },
    /// The node said no.
    #[error(transparent)]
    Refused(Failure),
    /// The answer is none.
    #[error("cannot understand the answer of node {node}; next: compare the versions of both sides with `nex node ls`")]
    Malformed {
        /// Of whom.
        node: NodeId,
        /// Why.
        #[source]
        source: ReplyError,
    },
    /// The request did not leave.
    #[error("cannot send {verb} to node {node}; next: check the connection to NATS and the permissions of its user")]
    NotSent {
        /// What was asked.
        verb: &'static str,
        /// Of whom.
        node: NodeId,
        /// Why.
        #[source]
        source: async_nats::RequestError,
    },
}

/// What is asked of a node.
pub(crate) struct Question<'a> {
    pub(crate) verb: &'static str,
    pub(crate) node: &'a NodeId,
    pub(crate) subject: String,
    pub(crate) body: Vec<u8>,
    pub(crate) expected: &'static str,
    pub(crate) timeout: Duration,
}

impl Client {
    pub(crate) async fn ask<T: DeserializeOwned>(&self, question: Question<'_>) -> Result<T, RequestError> {
        let Question { verb, node, subject, body, expected, timeout } = question;
        let request = async_nats::Request::new().payload(body.into()).timeout(Some(timeout));
        let reply = self.nats.send_request(subject, request).await.map_err(|source| {
            let node = node.clone();
            match source.kind() {
                RequestErrorKind::NoResponders => RequestError::NotThere { verb, node },
                RequestErrorKind::TimedOut => RequestError::TimedOut { verb, node, waited: timeout },
                RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::Other => {
                    RequestError::NotSent { verb, node, source }
                }
            }
        })?;
        envelope::open(expected, &reply.payload).map_err(|error| match error {
            ReplyError::Failed(failure) => RequestError::Refused(failure),
            source @ ReplyError::Malformed { .. } => RequestError::Malformed { node: node.clone(), source },
        })
    }
}
