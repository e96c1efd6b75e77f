//! The instances of an agent: none, one or many, each started, called and stopped by its own id.
//!
//! ```text
//!  deploy ─► Starting ─► Running ─► undeploy ─► Stopping ─► gone
//!               └─ undeploy or failure: gone
//! ```

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nex_protocol::agent::{AgentEvent, Answer, Deploy, RejectCode, Update};
use nex_protocol::deploy::StopSignal;
use nex_protocol::envelope::chain;
use nex_protocol::id::InstanceId;
use tokio_util::sync::CancellationToken;

use crate::instance::{Instance, Starter};
use crate::invoke::Callee;

/// Most instances of one agent.
pub(crate) const CAPACITY: u32 = 10_000;

/// Longest wait for the node to take the last event of an instance.
const LAST_EVENT: Duration = Duration::from_secs(1);

enum Slot {
    Starting { stop: CancellationToken, gone: CancellationToken },
    Running(Box<Instance>),
    Stopping { gone: CancellationToken },
}

/// The instances, by id.
pub(crate) struct Instances {
    starter: Starter,
    slots: Mutex<HashMap<InstanceId, Slot>>,
}

fn rejected(code: RejectCode, message: impl Into<String>) -> Answer {
    Answer::Rejected { code, message: message.into() }
}

impl Instances {
    /// None yet.
    pub(crate) fn new(starter: Starter) -> Self {
        Self { starter, slots: Mutex::default() }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.lock().len()).unwrap_or(u32::MAX)
    }

    /// Their ids.
    pub(crate) fn ids(&self) -> Vec<InstanceId> {
        self.lock().keys().cloned().collect()
    }

    /// Starts one; when it is rejected, nothing is left of it.
    pub(crate) async fn deploy(&self, id: InstanceId, request: Deploy) -> Answer {
        let (stop, gone) = (CancellationToken::new(), CancellationToken::new());
        {
            let mut slots = self.lock();
            if slots.contains_key(&id) {
                return rejected(RejectCode::Duplicate, format!("this agent has an instance {id}"));
            }
            if slots.len() >= CAPACITY as usize {
                return rejected(RejectCode::Full, format!("this agent hosts {CAPACITY} instances, its maximum"));
            }
            slots.insert(id.clone(), Slot::Starting { stop: stop.clone(), gone: gone.clone() });
        }
        let started = stop.run_until_cancelled(Box::pin(self.starter.start(&id, request))).await;
        let mut slots = self.lock();
        let answer = match started {
            // Between the start and this line somebody may have asked for its end.
            Some(Ok(_)) | None if stop.is_cancelled() => rejected(RejectCode::Stopped, "it was stopped while it started"),
            Some(Ok(instance)) => {
                slots.insert(id, Slot::Running(Box::new(instance)));
                return Answer::Done;
            }
            Some(Err(error)) => rejected(error.code(), chain(&error)),
            None => rejected(RejectCode::Stopped, "it was stopped while it started"),
        };
        slots.remove(&id);
        drop(slots);
        gone.cancel();
        answer
    }

    /// Stops one and waits until nothing is left of it. One that is not there is stopped already.
    pub(crate) async fn undeploy(&self, id: &InstanceId, grace: Duration, signal: Option<StopSignal>) -> Answer {
        let (instance, gone) = {
            let mut slots = self.lock();
            match slots.remove(id) {
                None => return Answer::Done,
                Some(Slot::Starting { stop, gone }) => {
                    stop.cancel();
                    slots.insert(id.clone(), Slot::Starting { stop, gone: gone.clone() });
                    (None, gone)
                }
                Some(Slot::Stopping { gone }) => {
                    slots.insert(id.clone(), Slot::Stopping { gone: gone.clone() });
                    (None, gone)
                }
                Some(Slot::Running(instance)) => {
                    let gone = CancellationToken::new();
                    slots.insert(id.clone(), Slot::Stopping { gone: gone.clone() });
                    (Some(instance), gone)
                }
            }
        };
        match instance {
            Some(instance) => {
                instance.stop(grace, signal).await;
                // Taken in order, so when this one is, so are its last lines. A node that is not there does not keep us.
                let stopped = self.starter.events.deliver(id, &AgentEvent::Stopped);
                tokio::time::timeout(LAST_EVENT, stopped).await.ok();
                self.lock().remove(id);
                gone.cancel();
            }
            None => gone.cancelled().await,
        }
        Answer::Done
    }

    /// Replaces files of a service that runs.
    pub(crate) async fn update(&self, id: &InstanceId, request: &Update) -> Answer {
        let service = match self.lock().get(id) {
            Some(Slot::Running(instance)) => instance.service.clone(),
            Some(Slot::Starting { .. } | Slot::Stopping { .. }) | None => {
                return rejected(RejectCode::Absent, format!("no instance {id} runs on this agent"));
            }
        };
        let Some(service) = service else { return rejected(RejectCode::Unsupported, "a function has no files") };
        match self.starter.update(service, request).await {
            Ok(()) => Answer::Done,
            Err(error) => rejected(error.code(), chain(&error)),
        }
    }

    /// The function of an instance.
    pub(crate) fn callee(&self, id: &InstanceId) -> Option<Callee> {
        match self.lock().get(id)? {
            Slot::Running(instance) => instance.callee.clone(),
            Slot::Starting { .. } | Slot::Stopping { .. } => None,
        }
    }

    /// Stops all of them.
    pub(crate) async fn stop_all(&self, grace: Duration) {
        let ids: Vec<InstanceId> = self.lock().keys().cloned().collect();
        futures::future::join_all(ids.iter().map(|id| self.undeploy(id, grace, None))).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
