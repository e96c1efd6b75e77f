//! Agents that functions of one namespace share: an instance has a seat, the next agent is made when all seats are taken, and an agent ends
//! with its last seat. What disturbs its neighbours again and again gets no seat any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nex_process::shares::Shares;
use nex_process::{Deadline, Elapsed, TaskScope};
use nex_protocol::id::{AgentId, InstanceId, Namespace, WorkloadId};

use super::agent::{Agent, AgentRecord};
use super::factory::AgentFactory;
use super::instance;
use super::left::{LeftAgent, LeftSeat};
use super::seating::Seating;
use crate::pool::CreateFailed;
use crate::status::VERSION;

/// Time an agent has to end: calls of neighbours that are under way are answered.
const GRACE: Duration = Duration::from_secs(1);
/// How often a workload may bring an agent down before it gets one of its own.
const STRIKES: u32 = 3;

/// The shared agents of a node. Cheap to clone.
#[derive(Clone)]
pub struct SharedAgents {
    factory: AgentFactory,
    memory_mib: u32,
    most: usize,
    state: Arc<Mutex<State>>,
    /// One agent of a namespace is made at a time.
    making: Shares,
    /// Owner of what is left to do for seats that were dropped.
    leaving: Arc<TaskScope>,
}

#[derive(Default)]
struct State {
    namespaces: HashMap<Namespace, Seating<AgentId>>,
    agents: HashMap<AgentId, Arc<Agent>>,
    strikes: HashMap<WorkloadId, u32>,
}

impl std::fmt::Debug for SharedAgents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedAgents").field("memory_mib", &self.memory_mib).field("most", &self.most).finish_non_exhaustive()
    }
}

/// An instance's seat on a shared agent. Whoever has it ends it; dropped, the instance is ended in the background.
#[derive(Debug)]
pub struct Seat {
    shared: SharedAgents,
    namespace: Namespace,
    agent: Arc<Agent>,
    instance: InstanceId,
    is_left: bool,
}

impl SharedAgents {
    /// None yet; each will have this much memory, and so many instances at most.
    #[must_use]
    pub fn new(factory: AgentFactory, memory_mib: u32, most: usize) -> Self {
        let (state, making, leaving) = (Arc::default(), Shares::new(1), Arc::new(TaskScope::new("shared agents")));
        Self { factory, memory_mib, most, state, making, leaving }
    }

    /// A seat for an instance; makes an agent if there is none with a free one.
    ///
    /// # Errors
    /// Why no agent could be made.
    pub async fn sit(&self, namespace: &Namespace, instance: &InstanceId, by: Deadline) -> Result<Seat, CreateFailed> {
        let late = |Elapsed| "there was no time left for it".to_owned();
        let _turn = by.bound(self.making.take(namespace.as_str())).await.map_err(late)?;
        if let Some(agent) = self.lock().sit(namespace) {
            return Ok(self.seat(namespace, agent, instance));
        }
        let agent = Arc::new(self.factory.shared(self.memory_mib, by).await?);
        tracing::info!(agent_id = %agent.id(), %namespace, "an agent for functions to share");
        let most = self.most.min(usize::try_from(agent.handshake().capacity).unwrap_or(usize::MAX));
        self.lock().add(namespace, &agent, most);
        Ok(self.seat(namespace, agent, instance))
    }

    /// The seat that an instance had when an earlier process was killed; whether it is there still is [`LeftAgent::has`]'s to say.
    #[must_use]
    pub fn adopt(
        &self,
        namespace: &Namespace,
        (record, left): (&AgentRecord, LeftSeat),
        instance: &InstanceId,
    ) -> (Seat, Arc<LeftAgent>) {
        let left = left.take();
        let mut state = self.lock();
        let agent = match state.agents.get(&record.id) {
            Some(agent) => Arc::clone(agent),
            None => {
                // Events of those that are not taken over yet wait for them.
                self.factory.router.await_instances(&record.id, left.claims());
                Arc::new(self.factory.adopt(record.clone(), Arc::clone(left.sandbox())))
            }
        };
        let most = self.most.min(usize::try_from(record.handshake.capacity).unwrap_or(usize::MAX));
        state.add(namespace, &agent, most);
        if record.handshake.version != VERSION
            && let Some(seating) = state.namespaces.get_mut(namespace)
        {
            // Those that sit there stay; what is deployed from now on gets an agent of this version.
            seating.lose(agent.id());
        }
        drop(state);
        (self.seat(namespace, agent, instance), left)
    }

    /// A call of this workload had to be ended with its agent.
    pub fn strike(&self, workload: &WorkloadId) {
        let mut state = self.lock();
        let strikes = state.strikes.entry(workload.clone()).or_insert(0);
        *strikes = strikes.saturating_add(1);
        if *strikes == STRIKES {
            tracing::warn!(workload_id = %workload, "it brought its agent down {STRIKES} times, and gets one of its own from now on");
        }
    }

    /// From now on this workload shares no agent.
    pub fn set_apart(&self, workload: &WorkloadId) {
        self.lock().strikes.insert(workload.clone(), STRIKES);
    }

    /// Whether this workload shares no agent any more.
    #[must_use]
    pub fn is_set_apart(&self, workload: &WorkloadId) -> bool {
        self.lock().strikes.get(workload).is_some_and(|strikes| *strikes >= STRIKES)
    }

    /// A workload is over.
    pub fn forget(&self, workload: &WorkloadId) {
        self.lock().strikes.remove(workload);
    }

    /// Memory of an agent, bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        u64::from(self.memory_mib) << 20
    }

    /// Waits until what was dropped is ended.
    pub async fn stop(&self) {
        self.leaving.shutdown(GRACE * 4).await;
    }

    fn seat(&self, namespace: &Namespace, agent: Arc<Agent>, instance: &InstanceId) -> Seat {
        Seat { shared: self.clone(), namespace: namespace.clone(), agent, instance: instance.clone(), is_left: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends an instance, and its agent if it was the last one or the agent is of no use any more.
    async fn leave(self, namespace: Namespace, agent: Arc<Agent>, instance: InstanceId) {
        if !agent.is_known_lost() {
            instance::undeploy(&agent, &instance, Duration::ZERO, None).await;
        }
        let is_last = self.lock().leave(&namespace, agent.id());
        if is_last || agent.is_known_lost() {
            agent.end(GRACE).await;
        }
    }
}

impl State {
    fn sit(&mut self, namespace: &Namespace) -> Option<Arc<Agent>> {
        let seating = self.namespaces.get_mut(namespace)?;
        for agent in self.agents.values().filter(|agent| agent.is_known_lost()) {
            seating.lose(agent.id());
        }
        self.agents.get(&seating.sit()?).cloned()
    }

    fn add(&mut self, namespace: &Namespace, agent: &Arc<Agent>, most: usize) {
        let seating = self.namespaces.entry(namespace.clone()).or_insert_with(|| Seating::new(most));
        seating.sit_on(agent.id());
        self.agents.insert(agent.id().clone(), Arc::clone(agent));
    }

    fn leave(&mut self, namespace: &Namespace, agent: &AgentId) -> bool {
        let Some(seating) = self.namespaces.get_mut(namespace) else { return false };
        let is_last = seating.leave(agent);
        if seating.is_empty() {
            self.namespaces.remove(namespace);
        }
        if is_last {
            self.agents.remove(agent);
        }
        is_last
    }
}

impl Seat {
    /// Its agent.
    #[must_use]
    pub fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// A call of the workload does not end: it is counted, and the agent is given up, with all that runs there.
    pub fn give_up(&self, workload: &WorkloadId, why: String) {
        self.shared.strike(workload);
        self.agent.condemn(why);
    }

    /// Ends the instance, if it is there still, and its agent if that has no other.
    pub async fn leave(mut self) {
        self.is_left = true;
        let (shared, namespace) = (self.shared.clone(), self.namespace.clone());
        shared.leave(namespace, Arc::clone(&self.agent), self.instance.clone()).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.is_left {
            let (shared, namespace) = (self.shared.clone(), self.namespace.clone());
            let left = shared.leave(namespace, Arc::clone(&self.agent), self.instance.clone());
            self.shared.leaving.spawn("leave", left);
        }
    }
}
