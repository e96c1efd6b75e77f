//! A deploy that is asked for again, with the same token and the same request: by a client that lost the answer. It gets that answer, and
//! nothing is started twice.
//!
//! Answers are remembered in memory for a while; what was accepted and lives is in the registry, and what ended by itself among the ended,
//! also after the node was started again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use nex_protocol::claims::Claims;
use nex_protocol::control::EndedWorkload;
use nex_protocol::deploy::{DeployRequest, DeployResponse};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::Failure;
use nex_protocol::id::Namespace;

use crate::ended::EndedWorkloads;
use crate::workload::Workloads;

/// Answers remembered.
const MAX_REMEMBERED: usize = 256;
/// Longest text of a failure remembered, bytes.
const TEXT: usize = 8 * 1024;

/// What a deploy was answered with.
type Answer = Result<DeployResponse, Failure>;

/// The last answers to deploys whose token was used up, by the digest of the request and its namespace.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    answers: Mutex<VecDeque<(Digest, Answer)>>,
}

/// Names a request in a namespace: the token is in the body.
pub(super) fn key(namespace: &Namespace, body: &[u8]) -> Digest {
    Digest::of(&[namespace.as_str().as_bytes(), b" ", body].concat())
}

impl Repeats {
    /// The answer that this request had before, if it had one.
    pub(super) fn find(
        &self,
        key: &Digest,
        (registry, ended): (&Workloads, &EndedWorkloads),
        (namespace, claims): (&Namespace, &Claims),
        request: &DeployRequest,
    ) -> Option<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, answer)) = answers.iter().find(|(known, _)| known == key) {
            return Some(answer.clone());
        }
        drop(answers);
        // A request without a token was never taken.
        let token = request.workload_jwt.as_ref()?;
        let is_it = |spec: &crate::workload::spec::WorkloadSpec| {
            spec.request.workload_jwt.as_ref() == Some(token) && spec.namespace == *namespace && spec.request == *request
        };
        if let Some(found) = registry.all().into_iter().find(|workload| is_it(&workload.spec)) {
            return Some(Ok(DeployResponse::started(&found.spec.id, &found.spec.claims.iss, &found.spec.name)));
        }
        // It ran, and ended before it was asked for again.
        let EndedWorkload { id, issuer, name, exit, .. } = ended.unstopped(namespace, &claims.into())?;
        Some(Ok(DeployResponse { started: true, id, issuer, name, exit_code: Some(exit.code) }))
    }

    /// Remembers an answer, and forgets the oldest where there are too many.
    pub(super) fn remember(&self, key: Digest, answer: &Answer) {
        if answer.as_ref().is_err_and(|failure| failure.message.len() > TEXT) {
            return;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() == MAX_REMEMBERED {
            answers.pop_front();
        }
        answers.push_back((key, answer.clone()));
    }
}
