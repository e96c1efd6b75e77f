//! What a driver acts by: starts, records and take-overs that are late or fail.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use nex_process::{Deadline, TaskScope};
use nex_protocol::agent::AgentEvent;
use nex_protocol::control::ExitCause;
use nex_protocol::id::{AgentId, InstanceId, WorkloadId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::launch_error::LaunchError;
use super::super::outcome::{End, Notice, Runtime, Seen};
use super::agent::{SimulatedAgent, live};
use super::world::{Entry, Shared, lock};
use crate::agents::AgentRouter;
use crate::agents::inbox::Inbox;
use crate::journal::{JournalError, LifeRecord};

pub(super) struct SimulatedRuntime {
    pub(super) id: WorkloadId,
    pub(super) world: Shared,
    pub(super) router: AgentRouter,
    pub(super) host: Arc<TaskScope>,
    pub(super) killed: CancellationToken,
    pub(super) left: Option<(AgentId, InstanceId)>,
}

pub(super) struct SimulatedInstance {
    pub(super) agent: AgentId,
    pub(super) instance: InstanceId,
    pub(super) inbox: Inbox,
    pub(super) lost: CancellationToken,
    pub(super) world: Shared,
    pub(super) killed: CancellationToken,
}

impl Drop for SimulatedInstance {
    fn drop(&mut self) {
        // A killed node ends nothing.
        if !self.killed.is_cancelled() {
            lock(&self.world).end(&self.agent);
        }
    }
}

impl Runtime for SimulatedRuntime {
    type Instance = SimulatedInstance;

    fn adopt(&mut self, by: Deadline) -> BoxFuture<'static, Result<(SimulatedInstance, Duration), LaunchError>> {
        let (world, router, killed) = (Arc::clone(&self.world), self.router.clone(), self.killed.clone());
        let left = self.left.take();
        Box::pin(async move {
            let Some((agent, instance)) = left else { return Err(LaunchError::Adoption("nothing is left".into())) };
            let inbox = router.open(&agent, &instance);
            let lost = lock(&world).agents.get(&agent).cloned().unwrap_or_default();
            let adopted = SimulatedInstance { agent, instance, inbox, lost, world: Arc::clone(&world), killed };
            let (pause, fails) = {
                let mut world = lock(&world);
                (world.pause(12_000), world.fault(10))
            };
            let answered = by.bound(tokio::time::sleep(pause)).await.is_ok() && !fails;
            if answered && lock(&world).agents.contains_key(&adopted.agent) {
                lock(&world).adopted += 1;
                return Ok((adopted, Duration::ZERO));
            }
            Err(LaunchError::Adoption("a fault".into()))
        })
    }

    fn start(&self, by: Deadline) -> BoxFuture<'static, Result<SimulatedInstance, LaunchError>> {
        let (id, world, router, host, killed) =
            (self.id.clone(), Arc::clone(&self.world), self.router.clone(), Arc::clone(&self.host), self.killed.clone());
        Box::pin(async move {
            let (pause, is_late, fails) = {
                let mut world = lock(&world);
                (world.pause(9_000), world.fault(15), world.fault(20))
            };
            if is_late {
                by.bound(std::future::pending::<()>()).await.map_err(|_late| LaunchError::Artifact("late".into()))?;
            }
            tokio::time::sleep(pause).await;
            if fails {
                return Err(LaunchError::Artifact("a fault".into()));
            }
            let (agent, instance) = {
                let mut world = lock(&world);
                let serial = world.serial();
                (AgentId::new(serial), InstanceId::new(serial))
            };
            let inbox = router.open(&agent, &instance);
            let lost = CancellationToken::new();
            {
                let mut world = lock(&world);
                world.agents.insert(agent.clone(), lost.clone());
                if world.running.insert(id.clone(), agent.clone()).is_some() {
                    world.violations.push(format!("{id} runs on two agents"));
                }
            }
            let is_gated = lock(&world).policies[&id].rules.is_gated;
            let simulated = SimulatedAgent {
                is_gated,
                world: Arc::clone(&world),
                workload: id,
                agent: agent.clone(),
                instance: instance.clone(),
                lost: lost.clone(),
            };
            host.spawn("agent", live(simulated));
            Ok(SimulatedInstance { agent, instance, inbox, lost, world, killed })
        })
    }

    fn record(&mut self, instance: Option<&SimulatedInstance>, life: LifeRecord) -> BoxFuture<'static, Result<(), JournalError>> {
        let (id, world) = (self.id.clone(), Arc::clone(&self.world));
        let running = instance.map(|instance| (instance.agent.clone(), instance.instance.clone()));
        Box::pin(async move {
            let (pause, fails) = {
                let mut world = lock(&world);
                (world.pause(50), world.fault(5))
            };
            tokio::time::sleep(pause).await;
            if fails {
                return Err(JournalError::simulated());
            }
            let mut world = lock(&world);
            if running.is_some() {
                *world.recorded.entry(id.clone()).or_default() += 1;
            }
            world.journal.insert(id, Entry { running, life, at: Instant::now() });
            Ok(())
        })
    }

    fn watch<'a>(&'a mut self, instance: &'a mut SimulatedInstance) -> BoxFuture<'a, Seen> {
        let world = Arc::clone(&self.world);
        Box::pin(async move {
            loop {
                tokio::select! {
                    biased;
                    Some(event) = instance.inbox.events.recv() => match event {
                        AgentEvent::Exited { code, message } => {
                            return Seen::Exited { cause: ExitCause::Exit, code, signal: String::new(), message };
                        }
                        AgentEvent::Stopped | AgentEvent::Stuck { .. } => {}
                        AgentEvent::Health { healthy: true, .. } => return Seen::Healthy,
                        AgentEvent::Health { healthy: false, message } => return Seen::Sick(message),
                        AgentEvent::Calls { succeeded, .. } => lock(&world).calls_told += succeeded,
                    },
                    () = instance.lost.cancelled() => {
                        let agent = instance.agent.clone();
                        return Seen::AgentLost { cause: ExitCause::Lost, agent, reason: "lost".into() };
                    }
                }
            }
        })
    }

    fn undeploy(&self, mut instance: SimulatedInstance, grace: Duration) -> BoxFuture<'static, ()> {
        let pause = lock(&self.world).pause(u64::try_from(grace.as_millis()).unwrap());
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            while let Ok(event) = instance.inbox.events.try_recv() {
                if let AgentEvent::Calls { succeeded, .. } = event {
                    lock(&instance.world).calls_told += succeeded;
                }
            }
            drop(instance);
        })
    }

    fn release(&self, instance: SimulatedInstance) {
        drop(instance);
    }

    fn tell(&mut self, notice: &Notice<'_>) {
        let mut world = lock(&self.world);
        match notice {
            Notice::Deployed => {
                if !world.journal.contains_key(&self.id) {
                    world.violations.push(format!("{} is announced before it is in the journal", self.id));
                }
                let agent = world.running.get(&self.id).cloned();
                let is_gated = world.policies[&self.id].rules.is_gated;
                if is_gated && agent.is_some_and(|agent| !world.well.contains(&agent)) {
                    world.violations.push(format!("{} is announced before it was well", self.id));
                }
                *world.deployed.entry(self.id.clone()).or_default() += 1;
            }
            Notice::Undeployed(_) => {
                if world.journal.contains_key(&self.id) {
                    world.violations.push(format!("{} is over and in the journal", self.id));
                }
                *world.undeployed.entry(self.id.clone()).or_default() += 1;
            }
            Notice::Started
            | Notice::Adopted
            | Notice::NotAdopted(_)
            | Notice::StartFailed(_)
            | Notice::AgentLost { .. }
            | Notice::Restarting { .. }
            | Notice::Sick(_)
            | Notice::NotRecorded(_) => {}
        }
    }

    fn forget(&mut self, _end: Option<&End>) -> BoxFuture<'static, ()> {
        lock(&self.world).journal.remove(&self.id);
        Box::pin(std::future::ready(()))
    }
}
