//! The workloads that ended lately, in memory: bounded for the node and for each namespace, so that one that crashes again and again does
//! not push out what others want to see.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use nex_protocol::control::{EndedWorkload, LastExit};
use nex_protocol::id::{Namespace, WorkloadName};

use crate::tail::Tail;
use crate::workload::spec::WorkloadSpec;

/// Most kept in all, and of one namespace.
const IN_ALL: usize = 256;
const OF_A_NAMESPACE: usize = 64;
/// Longest last line told, characters.
const LINE: usize = 200;

/// What ended. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct EndedWorkloads {
    kept: Arc<Mutex<VecDeque<Ended>>>,
}

#[derive(Debug)]
struct Ended {
    namespace: Namespace,
    name: WorkloadName,
    told: EndedWorkload,
    tail: Arc<Tail>,
}

impl EndedWorkloads {
    /// Keeps one that has ended; the oldest of its namespace, or of all, goes.
    pub fn push(&self, spec: &WorkloadSpec, restarts: u32, exit: LastExit, tail: &Arc<Tail>) {
        let last_line = tail.final_lines(1).pop().map(|line| line.text.chars().take(LINE).collect());
        let told = EndedWorkload {
            id: spec.id.to_string(),
            name: spec.name.to_string(),
            r#type: spec.kind.to_string(),
            restarts,
            exit,
            last_line,
            tail: Vec::new(),
        };
        let ended = Ended { namespace: spec.namespace.clone(), name: spec.name.clone(), told, tail: Arc::clone(tail) };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = |other: &&Ended| other.namespace == ended.namespace;
        if kept.iter().filter(of_it).count() >= OF_A_NAMESPACE {
            let oldest = kept.iter().position(|other| other.namespace == ended.namespace);
            oldest.and_then(|at| kept.remove(at));
        } else if kept.len() >= IN_ALL {
            kept.pop_front();
        }
        kept.push_back(ended);
    }

    /// Those of a namespace, with this name or id if one is given, the oldest first, each with its tail.
    #[must_use]
    pub fn of(&self, namespace: &str, wanted: Option<&str>) -> Vec<(EndedWorkload, Arc<Tail>)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |ended: &&Ended| {
            ended.namespace.as_str() == namespace
                && wanted.is_none_or(|wanted| wanted == ended.told.id || wanted.eq_ignore_ascii_case(ended.name.as_str()))
        };
        kept.iter().filter(is_wanted).map(|ended| (ended.told.clone(), Arc::clone(&ended.tail))).collect()
    }
}
