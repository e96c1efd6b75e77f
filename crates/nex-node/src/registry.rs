//! Which workloads this node has, and whether there is room for another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nex_protocol::control::QuotaSummary;
use nex_protocol::id::{Namespace, WorkloadId};
use nex_protocol::subject;
use tokio::sync::watch;

use crate::config::NodeLimits;
use crate::quota::{Charge, Exceeded, Quotas};
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
    /// Somebody would have more than his quota.
    #[error(transparent)]
    Quota(#[from] Exceeded),
    /// One of its triggers is heard in another namespace.
    #[error("The trigger subject {0} overlaps with one of another namespace on this node; next: choose another")]
    Trigger(String),
}

#[derive(Debug)]
struct Inner<W> {
    workloads: BTreeMap<WorkloadId, Arc<W>>,
    /// What deploys under way have taken.
    reserved: BTreeMap<u64, Held>,
    next: u64,
}

/// What one deploy under way has taken.
#[derive(Debug)]
struct Held {
    charge: Charge,
    triggers: Vec<String>,
    replaced: Option<Replaced>,
}

/// The workload that one under way is to replace.
#[derive(Debug, Clone)]
struct Replaced {
    id: WorkloadId,
    /// Whether there is no room for both.
    lends_room: bool,
}

impl<W> Inner<W> {
    fn load(&self) -> usize {
        self.workloads.len() + self.reserved.len()
    }
}

impl<W: AsRef<WorkloadSpec>> Inner<W> {
    /// What all count for, but one that is under way, and one that is to be replaced.
    fn charges(&self, but: Option<u64>, replaced: Option<&WorkloadId>) -> impl Iterator<Item = &Charge> + Clone {
        let running = self.workloads.iter().filter(move |(id, _)| Some(*id) != replaced);
        let running = running.map(|(_, workload)| &(**workload).as_ref().charge);
        running.chain(self.reserved.iter().filter(move |(key, _)| Some(**key) != but).map(|(_, held)| &held.charge))
    }

    /// The first of these triggers that overlaps with one of another namespace, not counting a deploy that is under way.
    fn taken(&self, namespace: &Namespace, triggers: &[String], but: Option<u64>) -> Option<String> {
        let running = self.workloads.values().map(|workload| (**workload).as_ref()).map(|spec| (&spec.namespace, &spec.triggers));
        let under_way = self.reserved.iter().filter(|(key, _)| Some(**key) != but).map(|(_, held)| held);
        let reserved = under_way.filter_map(|held| Some((held.charge.namespace.as_ref()?, &held.triggers)));
        let mut of_others = running.chain(reserved).filter(|(other, _)| *other != namespace).flat_map(|(_, triggers)| triggers);
        of_others.find_map(|other| triggers.iter().find(|mine| subject::overlap(mine, other))).cloned()
    }

    fn replaceable(&self, charge: &Charge, is_it: impl Fn(&WorkloadSpec) -> bool) -> Option<WorkloadId> {
        let is_replaced =
            |id: &WorkloadId| self.reserved.values().any(|held| held.replaced.as_ref().is_some_and(|it| it.id == *id));
        let is_own = |spec: &WorkloadSpec| {
            (Some(&spec.namespace), Some(&spec.claims.iss)) == (charge.namespace.as_ref(), charge.issuer.as_ref())
        };
        let all = self.workloads.iter().map(|(id, workload)| (id, (**workload).as_ref()));
        all.filter(|(id, spec)| is_own(spec) && is_it(spec) && !is_replaced(id)).map(|(id, _)| id.clone()).next()
    }
}

/// The node's workloads, and the room that deploys under way have taken. Cheap to clone. Of a workload it knows the specification only.
#[derive(Debug)]
pub struct Registry<W> {
    limits: NodeLimits,
    inner: Arc<Mutex<Inner<W>>>,
    /// How many workloads there are, those under way included.
    load: Arc<watch::Sender<usize>>,
}

impl<W> Clone for Registry<W> {
    fn clone(&self) -> Self {
        Self { limits: self.limits, inner: Arc::clone(&self.inner), load: Arc::clone(&self.load) }
    }
}

/// Room for one workload that is being deployed; given back when dropped.
#[derive(Debug)]
pub struct Reservation<W> {
    registry: Registry<W>,
    key: u64,
}

impl<W: AsRef<WorkloadSpec>> Registry<W> {
    /// An empty registry under these limits.
    #[must_use]
    pub fn new(limits: NodeLimits) -> Self {
        let inner = Inner { workloads: BTreeMap::new(), reserved: BTreeMap::new(), next: 0 };
        Self { limits, inner: Arc::new(Mutex::new(inner)), load: Arc::new(watch::Sender::new(0)) }
    }

    /// Whether there is room for one more workload of somebody.
    ///
    /// # Errors
    /// [`NoRoom::Workloads`].
    pub fn has_room(&self) -> Result<(), NoRoom> {
        self.room(&self.lock(), None)
    }

    fn room(&self, inner: &Inner<W>, replaced: Option<&WorkloadId>) -> Result<(), NoRoom> {
        let load = inner.load() - usize::from(replaced.is_some());
        match self.limits.workloads.is_some_and(|most| load >= most) {
            true => Err(NoRoom::Workloads),
            false => Ok(()),
        }
    }

    /// The workload of the same namespace and issuer that one with this charge may replace, where no other deploy does that already.
    #[must_use]
    pub fn replaceable(&self, charge: &Charge, is_it: impl Fn(&WorkloadSpec) -> bool) -> Option<WorkloadId> {
        self.lock().replaceable(charge, is_it)
    }

    /// Takes room for one more workload, within the quotas of those it counts for. One that it replaces lends its room, if it must.
    ///
    /// # Errors
    /// [`NoRoom::Workloads`], [`NoRoom::Quota`].
    pub fn reserve(&self, quotas: &Quotas, charge: Charge, replaced: Option<WorkloadId>) -> Result<Reservation<W>, NoRoom> {
        let mut inner = self.lock();
        let fits = |inner: &Inner<W>, replaced: Option<&WorkloadId>| {
            self.room(inner, replaced)?;
            Ok::<_, NoRoom>(quotas.admit(&charge, &inner.charges(None, replaced))?)
        };
        // Somebody else's deploy may have come first.
        let replaced = replaced.and_then(|id| inner.replaceable(&charge, |spec| spec.id == id));
        let alone = fits(&inner, None);
        let lends_room = alone.is_err();
        match &replaced {
            Some(id) if lends_room => fits(&inner, Some(id))?,
            _ => alone?,
        }
        Ok(self.hold(&mut inner, charge, replaced.map(|id| Replaced { id, lends_room })))
    }

    /// Takes room for a workload that was here before: it is never refused.
    #[must_use]
    pub fn readmit(&self, charge: Charge) -> Reservation<W> {
        self.hold(&mut self.lock(), charge, None)
    }

    fn hold(&self, inner: &mut Inner<W>, charge: Charge, replaced: Option<Replaced>) -> Reservation<W> {
        let key = inner.next;
        inner.next = key.wrapping_add(1);
        inner.reserved.insert(key, Held { charge, triggers: Vec::new(), replaced });
        self.tell(inner);
        Reservation { registry: self.clone(), key }
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

    /// Why another workload would be refused right now, or one in the place of a workload of this name.
    #[must_use]
    pub fn full(&self, quotas: &Quotas, charge: &Charge, replaced: Option<&str>) -> Vec<String> {
        let inner = self.lock();
        let replaced = replaced.and_then(|name| inner.replaceable(charge, |spec| spec.name.as_str() == name));
        let most = self.limits.workloads.filter(|_| self.room(&inner, replaced.as_ref()).is_err());
        let full = most.map(|most| format!("it runs its maximum of {most} workloads"));
        let exceeded = quotas.admit(charge, &inner.charges(None, replaced.as_ref())).err().map(|exceeded| exceeded.to_string());
        full.into_iter().chain(exceeded).collect()
    }

    /// The first of these triggers that another namespace has here.
    #[must_use]
    pub fn taken_trigger(&self, namespace: &Namespace, triggers: &[String]) -> Option<String> {
        self.lock().taken(namespace, triggers, None)
    }

    /// What there is of the quotas that concern a namespace.
    #[must_use]
    pub fn quotas(&self, quotas: &Quotas, namespace: &str) -> Vec<QuotaSummary> {
        let inner = self.lock();
        quotas.summary(namespace, &inner.charges(None, None))
    }

    /// Forgets a workload.
    pub fn remove(&self, id: &WorkloadId) {
        let mut inner = self.lock();
        inner.workloads.remove(id);
        self.tell(&inner);
    }

    /// Waits until there is no workload, and none is being deployed.
    pub async fn is_empty(&self) {
        self.load.subscribe().wait_for(|load| *load == 0).await.ok();
    }
}

impl<W> Registry<W> {
    fn tell(&self, inner: &Inner<W>) {
        self.load.send_replace(inner.load());
    }

    fn lock(&self) -> MutexGuard<'_, Inner<W>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: AsRef<WorkloadSpec>> Reservation<W> {
    /// Takes room for the artifact's bytes as well.
    ///
    /// # Errors
    /// [`NoRoom::WorkloadBytes`], [`NoRoom::TotalBytes`], [`NoRoom::Quota`].
    pub fn reserve_bytes(&mut self, quotas: &Quotas, bytes: u64) -> Result<(), NoRoom> {
        let limits = self.registry.limits;
        if limits.workload_bytes.is_some_and(|most| bytes > most) {
            return Err(NoRoom::WorkloadBytes);
        }
        let mut inner = self.registry.lock();
        let Some(held) = inner.reserved.get(&self.key) else { return Ok(()) };
        let (mut charge, mut replaced) = (held.charge.clone(), held.replaced.clone());
        charge.demand.artifact_bytes = bytes;
        let fits = |replaced: Option<&WorkloadId>| {
            let others = inner.charges(Some(self.key), replaced);
            let total = others.clone().map(|charge| charge.demand.artifact_bytes).fold(bytes, u64::saturating_add);
            if limits.total_bytes.is_some_and(|most| total > most) {
                return Err(NoRoom::TotalBytes);
            }
            Ok(quotas.admit(&charge, &others)?)
        };
        match (fits(None), &mut replaced) {
            (Err(_), Some(replaced)) => {
                fits(Some(&replaced.id))?;
                replaced.lends_room = true;
            }
            (alone, _) => alone?,
        }
        if let Some(held) = inner.reserved.get_mut(&self.key) {
            (held.charge, held.replaced) = (charge, replaced);
        }
        Ok(())
    }

    /// The workload that has to go when this one runs: there is no room for both.
    #[must_use]
    pub fn lender(&self) -> Option<WorkloadId> {
        let inner = self.registry.lock();
        let replaced = inner.reserved.get(&self.key)?.replaced.as_ref()?;
        replaced.lends_room.then(|| replaced.id.clone())
    }

    /// Whom it counts for, and what.
    #[must_use]
    pub fn charge(&self) -> Charge {
        self.registry.lock().reserved.get(&self.key).map(|held| held.charge.clone()).unwrap_or_default()
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
        if let Some(mine) = inner.taken(namespace, triggers, Some(self.key)) {
            return Err(NoRoom::Trigger(mine));
        }
        if let Some(held) = inner.reserved.get_mut(&self.key) {
            triggers.clone_into(&mut held.triggers);
        }
        Ok(())
    }

    /// The workload takes the room: it never counts twice, and never for nothing.
    pub fn fill(self, workload: W) -> Arc<W> {
        let workload = Arc::new(workload);
        let mut inner = self.registry.lock();
        inner.reserved.remove(&self.key);
        inner.workloads.insert((*workload).as_ref().id.clone(), Arc::clone(&workload));
        drop(inner);
        workload
    }
}

impl<W> Drop for Reservation<W> {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        inner.reserved.remove(&self.key);
        self.registry.tell(&inner);
    }
}
