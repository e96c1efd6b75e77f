//! The one task that owns a workload's instance: turns what happens into [`Event`]s and carries out [`Effect`]s, by a [`Runtime`].
//!
//! It waits for nothing but its own inbox, its instance, and the one piece of work it has begun.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use nex_process::Deadline;
use nex_protocol::id::AgentId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::command::{Command, FirstStart, LastEnd, Status};
use super::launch_error::LaunchError;
use super::state::{Effect, Event, Phase, State};
use crate::clock;
use crate::journal::JournalError;

/// What carries out a driver's effects: the node's, or that of the simulation.
pub trait Runtime: Send + 'static {
    /// An instance that runs; dropping it kills it.
    type Instance: Send + 'static;

    /// Takes over the instance that an earlier process started; where that cannot be, it is ended and nothing is left of it.
    fn adopt(&mut self, by: Deadline) -> BoxFuture<'static, Result<Self::Instance, LaunchError>>;
    /// Finds an agent and has it start the workload.
    fn start(&self, by: Deadline) -> BoxFuture<'static, Result<Self::Instance, LaunchError>>;
    /// Writes the workload into the journal, with the instance that runs it.
    fn record(&self, instance: &Self::Instance) -> BoxFuture<'static, Result<(), JournalError>>;
    /// Waits for the end of an instance; meanwhile passes on what it reports.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    fn ended<'a>(&'a mut self, instance: &'a mut Self::Instance) -> BoxFuture<'a, Ended>;
    /// Has the agent stop it, in order, within a grace; nothing is left of it then.
    fn undeploy(&self, instance: Self::Instance, grace: Duration) -> BoxFuture<'static, ()>;
    /// Lets go of an instance that has ended, in the background.
    fn release(&self, instance: Self::Instance);
    /// Tells the world. Never waits.
    fn tell(&mut self, notice: &Notice<'_>);
    /// Forgets the workload: the registry, its connections, the journal. Where the world is to hear how it ended, the journal has that
    /// instead when this is done, until it was told.
    fn forget(&mut self, end: Option<&End>) -> BoxFuture<'static, ()>;
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Exited {
        /// Its code.
        code: i32,
        /// The signal that ended it; empty if none did.
        signal: String,
        /// What the world is told of it.
        message: String,
    },
    /// With its agent.
    AgentLost {
        /// Which.
        agent: AgentId,
        /// How it was lost.
        reason: String,
    },
}

/// What the world is told of a workload.
#[derive(Debug, Clone, Copy)]
pub enum Notice<'a> {
    /// It runs.
    Deployed,
    /// It runs on, though the process that started it is gone.
    Adopted,
    /// It has to be started anew.
    NotAdopted(&'a LaunchError),
    /// It could not be started.
    StartFailed(&'a LaunchError),
    /// Its agent was lost.
    AgentLost {
        /// Which, if one was.
        agent: &'a AgentId,
        /// How.
        reason: &'a str,
    },
    /// It is started again after a pause.
    Restarting {
        /// Why.
        reason: &'a str,
        /// After how long.
        pause: Duration,
    },
    /// The journal did not take it.
    NotRecorded(&'a JournalError),
    /// It is over.
    Undeployed {
        /// Its code.
        code: i32,
        /// Why.
        reason: &'a str,
    },
}

/// Time an agent has to answer the process that takes it over: longer than the longest pause before it looks for its bus again.
const ADOPTION: Duration = Duration::from_secs(10);

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// A start.
    pub deploy: Duration,
    /// A workload's own end.
    pub stop_grace: Duration,
}

/// Why a workload is over, for its event.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// Its exit code.
    pub code: i32,
    /// For people.
    pub reason: String,
}

enum Done<I> {
    Adopted(Result<I, LaunchError>),
    Started(Result<I, LaunchError>),
    Recorded(Result<(), JournalError>),
    BackoffOver,
    Undeployed,
}

/// The driver of one workload.
pub struct Driver<R: Runtime> {
    runtime: R,
    timeouts: Timeouts,
    state: State,
    /// The instance, and since when it runs.
    instance: Option<(R::Instance, Instant)>,
    work: Option<BoxFuture<'static, Done<R::Instance>>>,
    end: End,
    last_end: Option<Arc<LastEnd>>,
    lost_agent: Option<AgentId>,
    /// Deadline of the request that asked for the first start.
    first_by: Option<Deadline>,
    first: Option<oneshot::Sender<FirstStart>>,
    refusal: Option<LaunchError>,
    stoppers: Vec<oneshot::Sender<()>>,
    /// Time the instance has to end in order.
    grace: Duration,
    status: watch::Sender<Status>,
}

impl<R: Runtime> std::fmt::Debug for Driver<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<R: Runtime> Driver<R> {
    /// A driver that has not begun. The first start has until `first_by`, later ones the timeout of a deploy each.
    pub fn new(runtime: R, state: State, timeouts: Timeouts, first_by: Option<Deadline>, status: watch::Sender<Status>) -> Self {
        Self {
            runtime,
            timeouts,
            state,
            instance: None,
            work: None,
            end: End::default(),
            last_end: None,
            lost_agent: None,
            first_by,
            first: None,
            refusal: None,
            stoppers: Vec::new(),
            grace: timeouts.stop_grace,
            status,
        }
    }

    /// Tells how the first start went.
    #[must_use]
    pub fn first_start(&mut self) -> oneshot::Receiver<FirstStart> {
        let (first, outcome) = oneshot::channel();
        self.first = Some(first);
        outcome
    }

    /// Drives the workload to its end.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        self.carry_out(vec![self.state.first_effect()]).await;
        while self.state.phase != Phase::Stopped {
            let event = self.next_event(&mut inbox).await;
            let (state, effects) = self.state.clone().step(&event);
            self.state = state;
            let (State { phase, restarts, .. }, last_end) = (&self.state, self.last_end.clone());
            self.status.send_replace(Status { phase: *phase, restarts: *restarts, last_end });
            self.carry_out(effects).await;
        }
    }

    /// Waits for the next thing that may move the state. Every branch is cancel safe: a channel, the runtime's promise, and a future
    /// kept in `self`.
    async fn next_event(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Event {
        let running = self.instance.as_mut().filter(|_| self.state.phase == Phase::Running);
        let ended = OptionFuture::from(running.map(|(instance, _)| self.runtime.ended(instance)));
        let work = OptionFuture::from(self.work.as_mut());
        tokio::select! {
            biased;
            Some(command) = inbox.recv() => self.on_command(command),
            Some(ended) = ended => self.on_ended(ended),
            Some(done) = work => {
                self.work = None;
                self.on_done(done)
            }
            // Nobody is left who could say anything: the node is going down.
            else => Event::Stop,
        }
    }

    fn on_command(&mut self, command: Command) -> Event {
        match command {
            Command::Stop { reason, grace, done } => {
                self.stoppers.push(done);
                self.grace = self.grace.max(grace);
                self.end.reason = reason.to_owned();
                Event::Stop
            }
            Command::LameDuck => Event::LameDuck,
        }
    }

    fn on_ended(&mut self, ended: Ended) -> Event {
        let ran = self.instance.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        match ended {
            Ended::Exited { code, signal, message } => {
                self.last_end = Some(Arc::new(LastEnd { code, message: signal, ran, at: clock::unix_seconds() }));
                self.end = End { code, reason: message };
                Event::Ended { failed: code != 0, ran }
            }
            Ended::AgentLost { agent, reason } => {
                self.last_end = Some(Arc::new(LastEnd { code: -1, message: reason.clone(), ran, at: clock::unix_seconds() }));
                self.lost_agent = Some(agent);
                self.end = End { code: -1, reason };
                Event::AgentLost { ran }
            }
        }
    }

    fn on_done(&mut self, done: Done<R::Instance>) -> Event {
        match done {
            Done::Adopted(Ok(instance)) => {
                self.runtime.tell(&Notice::Adopted);
                self.instance = Some((instance, Instant::now()));
                Event::Adopted
            }
            Done::Adopted(Err(error)) => {
                self.runtime.tell(&Notice::NotAdopted(&error));
                Event::AdoptFailed
            }
            Done::Started(Ok(instance)) => {
                self.instance = Some((instance, Instant::now()));
                Event::Started
            }
            Done::Started(Err(error)) => {
                self.runtime.tell(&Notice::StartFailed(&error));
                if self.state.phase != Phase::Stopping {
                    self.end = End { code: -1, reason: error.to_string() };
                }
                self.refusal = Some(error);
                Event::StartFailed
            }
            Done::Recorded(Ok(())) => Event::Recorded,
            Done::Recorded(Err(error)) => {
                self.runtime.tell(&Notice::NotRecorded(&error));
                self.refusal = Some(LaunchError::Journal(error));
                Event::RecordFailed
            }
            Done::BackoffOver => Event::BackoffOver,
            Done::Undeployed => Event::Undeployed,
        }
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Adopt => {
                    let adopt = self.runtime.adopt(Deadline::after(ADOPTION));
                    self.work = Some(Box::pin(async move { Done::Adopted(adopt.await) }));
                }
                Effect::Start => {
                    let by = self.first_by.take().unwrap_or_else(|| Deadline::after(self.timeouts.deploy));
                    let start = self.runtime.start(by);
                    self.work = Some(Box::pin(async move { Done::Started(start.await) }));
                }
                Effect::Record => {
                    if let Some((instance, _)) = &self.instance {
                        let record = self.runtime.record(instance);
                        self.work = Some(Box::pin(async move { Done::Recorded(record.await) }));
                    }
                }
                Effect::Announce => {
                    self.runtime.tell(&Notice::Deployed);
                    if let Some(first) = self.first.take() {
                        first.send(Ok(())).ok();
                    }
                }
                Effect::ReportAgentLost => {
                    if let Some(agent) = self.lost_agent.take() {
                        self.runtime.tell(&Notice::AgentLost { agent: &agent, reason: &self.end.reason });
                    }
                }
                Effect::Release => {
                    if let Some((instance, _)) = self.instance.take() {
                        self.runtime.release(instance);
                    }
                }
                Effect::BackOff(pause) => {
                    self.runtime.tell(&Notice::Restarting { reason: &self.end.reason, pause });
                    self.work = Some(Box::pin(async move {
                        tokio::time::sleep(pause).await;
                        Done::BackoffOver
                    }));
                }
                Effect::Undeploy => {
                    let undeploy = self.instance.take().map(|(it, _)| self.runtime.undeploy(it, self.grace));
                    self.work = Some(Box::pin(async move {
                        OptionFuture::from(undeploy).await;
                        Done::Undeployed
                    }));
                }
                Effect::Reject => {
                    self.runtime.forget(None).await;
                    self.answer();
                }
                Effect::Retire => {
                    self.runtime.forget(Some(&self.end)).await;
                    self.runtime.tell(&Notice::Undeployed { code: self.end.code, reason: &self.end.reason });
                    self.answer();
                }
            }
        }
    }

    /// Whoever still waits hears that it is over.
    fn answer(&mut self) {
        if let Some(first) = self.first.take() {
            first.send(Err(self.refusal.take().unwrap_or(LaunchError::Stopped))).ok();
        }
        for stopper in self.stoppers.drain(..) {
            stopper.send(()).ok();
        }
    }
}
