//! The workloads that ended within the last day: bounded for the node and for each namespace, so that one that crashes again and again does
//! not push out what others want to see. The journal has them as well, for the next process of the node.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nex_protocol::control::{EndedWorkload, ExitCause};
use nex_protocol::id::Namespace;
use nex_protocol::subject::ALL_NAMESPACES;

use crate::clock;
use crate::journal::{EndedRecord, IN_ALL, KEPT, OF_A_NAMESPACE, TokenId};

/// What ended, the oldest first. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct EndedWorkloads {
    kept: Arc<Mutex<VecDeque<EndedRecord>>>,
}

impl EndedWorkloads {
    /// Those that an earlier process has kept, the oldest first.
    #[must_use]
    pub fn new(kept: Vec<EndedRecord>) -> Self {
        Self { kept: Arc::new(Mutex::new(kept.into())) }
    }

    /// Keeps one that has ended; the oldest of its namespace, or of all, goes.
    pub fn push(&self, ended: EndedRecord) {
        let mut kept = self.lock();
        if kept.iter().filter(|other| other.namespace == ended.namespace).count() >= OF_A_NAMESPACE {
            let oldest = kept.iter().position(|other| other.namespace == ended.namespace);
            oldest.and_then(|at| kept.remove(at));
        } else if kept.len() >= IN_ALL {
            kept.pop_front();
        }
        kept.push_back(ended);
    }

    /// Those of a namespace, or of [`ALL_NAMESPACES`], with this name or id if one is given, the oldest first, each with its last lines.
    #[must_use]
    pub fn of(&self, namespace: &str, wanted: Option<&str>) -> Vec<EndedWorkload> {
        let since = clock::unix_seconds().saturating_sub(KEPT);
        let is_wanted = |ended: &&EndedRecord| {
            (namespace == ALL_NAMESPACES || ended.namespace.as_str() == namespace)
                && ended.told.exit.at >= since
                && wanted.is_none_or(|wanted| wanted == ended.told.id || wanted.eq_ignore_ascii_case(&ended.told.name))
        };
        self.lock().iter().filter(is_wanted).map(EndedRecord::with_namespace).collect()
    }

    /// The one that was deployed by this token, unless somebody stopped it.
    #[must_use]
    pub fn unstopped(&self, namespace: &Namespace, token: &TokenId) -> Option<EndedWorkload> {
        let is_it = |ended: &&EndedRecord| {
            let of_token = ended.token == token.id && ended.told.issuer == token.issuer && !token.id.is_empty();
            of_token && ended.namespace == *namespace && ended.told.exit.cause != ExitCause::Stopped
        };
        self.lock().iter().find(is_it).map(EndedRecord::with_namespace)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<EndedRecord>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
