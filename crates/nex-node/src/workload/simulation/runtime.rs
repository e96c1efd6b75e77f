//! What a driver acts by: starts, records and take-overs that are late or fail.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use nex_process::{Deadline, TaskScope};
use nex_protocol::agent::AgentEvent;
use nex_protocol::id::{AgentId, InstanceId, WorkloadId};
use tokio_util::sync::CancellationToken;

use super::super::driver::{End, Ended, Notice, Runtime};
use super::super::launch_error::LaunchError;
use super::agent::{SimulatedAgent, live};
use super::world::{Shared, lock};
use crate::agents::AgentRouter;
use crate::agents::inbox::Inbox;
use crate::journal::JournalError;

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

    fn adopt(&mut self, by: Deadline) -> BoxFuture<'static, Result<SimulatedInstance, LaunchError>> {
        let (world, router, killed) = (Arc::clone(&self.world), self.router.clone(), self.killed.clone());
        let (agent, instance) = self.left.take().unwrap();
        Box::pin(async move {
            let inbox = router.open(&agent, &instance);
            let lost = lock(&world).agents.get(&agent).cloned().unwrap_or_default();
            let adopted = SimulatedInstance { agent, instance, inbox, lost, world: Arc::clone(&world), killed };
            let (pause, fails) = {
                let mut world = lock(&world);
                (world.pause(12_000), world.chance(10))
            };
            let answered = by.bound(tokio::time::sleep(pause)).await.is_ok() && !fails;
            if answered && lock(&world).agents.contains_key(&adopted.agent) {
                lock(&world).adopted += 1;
                return Ok(adopted);
            }
            Err(LaunchError::Adoption("a fault".into()))
        })
    }

    fn start(&self, by: Deadline) -> BoxFuture<'static, Result<SimulatedInstance, LaunchError>> {
        let (id, world, router, host, killed) =
            (self.id.clone(), Arc::clone(&self.world), self.router.clone(), Arc::clone(&self.host), self.killed.clone());
        Box::pin(async move {
            let (pause, fails) = {
                let mut world = lock(&world);
                (world.pause(12_000), world.chance(20))
            };
            by.bound(tokio::time::sleep(pause)).await.map_err(|_late| LaunchError::Artifact("late".into()))?;
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
            let simulated = SimulatedAgent {
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

    fn record(&self, instance: &SimulatedInstance) -> BoxFuture<'static, Result<(), JournalError>> {
        let (id, world) = (self.id.clone(), Arc::clone(&self.world));
        let running = (instance.agent.clone(), instance.instance.clone());
        Box::pin(async move {
            let (pause, fails) = {
                let mut world = lock(&world);
                (world.pause(50), world.chance(5))
            };
            tokio::time::sleep(pause).await;
            if fails {
                return Err(JournalError::simulated());
            }
            lock(&world).journal.insert(id, running);
            Ok(())
        })
    }

    fn ended<'a>(&'a mut self, instance: &'a mut SimulatedInstance) -> BoxFuture<'a, Ended> {
        let world = Arc::clone(&self.world);
        Box::pin(async move {
            loop {
                tokio::select! {
                    biased;
                    Some(event) = instance.inbox.events.recv() => match event {
                        AgentEvent::Exited { code, message } => return Ended::Exited { code, signal: String::new(), message },
                        AgentEvent::Stopped => {}
                        AgentEvent::Calls { succeeded, .. } => lock(&world).calls_told += succeeded,
                    },
                    () = instance.lost.cancelled() => {
                        return Ended::AgentLost { agent: instance.agent.clone(), reason: "lost".into() };
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
                *world.deployed.entry(self.id.clone()).or_default() += 1;
            }
            Notice::Undeployed { .. } => {
                if world.journal.contains_key(&self.id) {
                    world.violations.push(format!("{} is over and in the journal", self.id));
                }
                *world.undeployed.entry(self.id.clone()).or_default() += 1;
            }
            Notice::Adopted
            | Notice::NotAdopted(_)
            | Notice::StartFailed(_)
            | Notice::AgentLost { .. }
            | Notice::Restarting { .. }
            | Notice::NotRecorded(_) => {}
        }
    }

    fn forget(&mut self, _end: Option<&End>) -> BoxFuture<'static, ()> {
        lock(&self.world).journal.remove(&self.id);
        Box::pin(std::future::ready(()))
    }
}
