//! Which workloads this node has, and whether there is room for another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nex_protocol::id::{Namespace, WorkloadId};
use nex_protocol::subject;

use crate::config::NodeLimits;
use crate::workload::spec::WorkloadSpec;

/// Why there is no room for a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The node has as many as it may.
    #[error("Node is at maximum workload limit. Deploy request denied")]
    Workloads,
    /// Its artifact alone is too large.
    #[error("Workload file size would exceed node limitations")]
    WorkloadBytes,
    /// All artifacts together would be.
    #[error("Workload file size would exceed node total limitations")]
    TotalBytes,
    /// One of its triggers is heard in another namespace.
    #[error("The trigger subject {0} overlaps with one of another namespace on this node")]
    Trigger(String),
}

#[derive(Debug)]
struct Inner<W> {
    workloads: BTreeMap<WorkloadId, Arc<W>>,
    reserved: usize,
    reserved_bytes: u64,
    /// Triggers of deploys under way.
    reserved_triggers: BTreeMap<u64, (Namespace, Vec<String>)>,
    next: u64,
}

/// The node's workloads, and the room that deploys under way have taken. Cheap to clone. Of a workload it knows the specification only.
#[derive(Debug)]
pub struct Registry<W> {
    limits: NodeLimits,
    inner: Arc<Mutex<Inner<W>>>,
}

impl<W> Clone for Registry<W> {
    fn clone(&self) -> Self {
        Self { limits: self.limits, inner: Arc::clone(&self.inner) }
    }
}

/// Room for one workload that is being deployed; given back when dropped.
#[derive(Debug)]
pub struct Reservation<W> {
    registry: Registry<W>,
    bytes: u64,
    triggers: Option<u64>,
}

impl<W: AsRef<WorkloadSpec>> Registry<W> {
    /// An empty registry under these limits.
    #[must_use]
    pub fn new(limits: NodeLimits) -> Self {
        let inner =
            Inner { workloads: BTreeMap::new(), reserved: 0, reserved_bytes: 0, reserved_triggers: BTreeMap::new(), next: 0 };
        Self { limits, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Takes room for one more workload.
    ///
    /// # Errors
    /// [`NoRoom::Workloads`].
    pub fn reserve(&self) -> Result<Reservation<W>, NoRoom> {
        let mut inner = self.lock();
        if self.limits.workloads.is_some_and(|most| inner.workloads.len() + inner.reserved >= most) {
            return Err(NoRoom::Workloads);
        }
        inner.reserved += 1;
        Ok(Reservation { registry: self.clone(), bytes: 0, triggers: None })
    }

    /// Takes room for a workload that was here before: it is never refused.
    #[must_use]
    pub fn readmit(&self) -> Reservation<W> {
        self.lock().reserved += 1;
        Reservation { registry: self.clone(), bytes: 0, triggers: None }
    }

    /// A workload by id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<W>> {
        self.lock().workloads.get(&id.parse::<WorkloadId>().ok()?).cloned()
    }

    /// All workloads, in the order of their ids.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<W>> {
        self.lock().workloads.values().cloned().collect()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().workloads.len()
    }

    /// Why another workload would be refused right now.
    #[must_use]
    pub fn full(&self) -> Option<String> {
        let inner = self.lock();
        let most = self.limits.workloads.filter(|most| inner.workloads.len() + inner.reserved >= *most)?;
        Some(format!("it runs its maximum of {most} workloads"))
    }

    /// Forgets a workload.
    pub fn remove(&self, id: &WorkloadId) {
        self.lock().workloads.remove(id);
    }
}

impl<W> Registry<W> {
    fn lock(&self) -> MutexGuard<'_, Inner<W>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: AsRef<WorkloadSpec>> Reservation<W> {
    /// Takes room for the artifact's bytes as well.
    ///
    /// # Errors
    /// [`NoRoom::WorkloadBytes`], [`NoRoom::TotalBytes`].
    pub fn reserve_bytes(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let limits = self.registry.limits;
        if limits.workload_bytes.is_some_and(|most| bytes > most) {
            return Err(NoRoom::WorkloadBytes);
        }
        let mut inner = self.registry.lock();
        let running: u64 = inner.workloads.values().map(|workload| (**workload).as_ref().artifact.bytes).sum();
        if limits.total_bytes.is_some_and(|most| running.saturating_add(inner.reserved_bytes).saturating_add(bytes) > most) {
            return Err(NoRoom::TotalBytes);
        }
        inner.reserved_bytes = inner.reserved_bytes.saturating_add(bytes);
        drop(inner);
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    /// The registry it is in.
    #[must_use]
    pub fn registry(&self) -> &Registry<W> {
        &self.registry
    }

    /// Takes the triggers, unless one overlaps with a trigger of another namespace: both would hear what is meant for one.
    ///
    /// # Errors
    /// [`NoRoom::Trigger`].
    pub fn reserve_triggers(&mut self, namespace: &Namespace, triggers: &[String]) -> Result<(), NoRoom> {
        let mut inner = self.registry.lock();
        let running =
            inner.workloads.values().map(|workload| (**workload).as_ref()).map(|spec| (&spec.namespace, &spec.triggers));
        let reserved = inner.reserved_triggers.values().map(|(namespace, triggers)| (namespace, triggers));
        let of_others = running.chain(reserved).filter(|(other, _)| *other != namespace).flat_map(|(_, triggers)| triggers);
        for other in of_others {
            if let Some(mine) = triggers.iter().find(|mine| subject::overlap(mine, other)) {
                return Err(NoRoom::Trigger(mine.clone()));
            }
        }
        let key = inner.next;
        inner.next = key.wrapping_add(1);
        inner.reserved_triggers.insert(key, (namespace.clone(), triggers.to_owned()));
        drop(inner);
        self.triggers = Some(key);
        Ok(())
    }

    /// The workload takes the room.
    pub fn fill(self, workload: W) -> Arc<W> {
        let workload = Arc::new(workload);
        self.registry.lock().workloads.insert((*workload).as_ref().id.clone(), Arc::clone(&workload));
        workload
    }
}

impl<W> Drop for Reservation<W> {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        inner.reserved = inner.reserved.saturating_sub(1);
        inner.reserved_bytes = inner.reserved_bytes.saturating_sub(self.bytes);
        if let Some(key) = self.triggers {
            inner.reserved_triggers.remove(&key);
        }
    }
}
