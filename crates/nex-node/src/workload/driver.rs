//! The one task that owns a workload's instance: turns what happens into [`Event`]s and carries out [`Effect`]s, by a [`Runtime`].
//!
//! It waits for nothing but its own inbox, its instance, and the one piece of work it has begun.

mod renewal;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use nex_process::{Deadline, crash_point};
use nex_protocol::control::ExitCause;
use nex_protocol::id::AgentId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::command::{Command, FirstStart, LastEnd, Status};
use super::launch_error::LaunchError;
use super::outcome::{End, Notice, Runtime, Seen, Timeouts};
use super::state::{Effect, Event, Phase, State};
use crate::clock;
use crate::journal::{JournalError, LifeRecord};
use renewal::Renewal;

/// Time an agent has to answer the process that takes it over: longer than the longest pause before it looks for its bus again.
const ADOPTION: Duration = Duration::from_secs(10);
/// How long an instance that was taken over has to tell that it has ended already, before it counts as too late.
const LAST_CHANCE: Duration = Duration::from_secs(2);

enum Done<I> {
    Adopted(Result<(I, Duration), LaunchError>),
    Started(Result<I, LaunchError>),
    Recorded(Result<(), JournalError>),
    Overdue,
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
    /// An instance that is being started in the place of the one that runs, and whoever waits for it.
    renewal: Option<Renewal<R::Instance>>,
    /// The end of one that was replaced.
    replaced: Option<BoxFuture<'static, ()>>,
    end: End,
    last_end: Option<Arc<LastEnd>>,
    lost_agent: Option<AgentId>,
    /// What its health check complained of last.
    complaint: String,
    /// When a job is over, whatever it does.
    expiry: Option<Instant>,
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
            renewal: None,
            replaced: None,
            end: End::default(),
            last_end: None,
            lost_agent: None,
            complaint: String::new(),
            expiry: timeouts.life.map(|life| Instant::now() + life),
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

    /// Drives the workload to its end. Where it begins in a pause, `waited` of that is over.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Command>, waited: Duration) {
        match self.state.first_effect(waited) {
            // It is on disk already, since when.
            Effect::BackOff(pause) => self.later(pause, Done::BackoffOver),
            first => self.carry_out(vec![first]).await,
        }
        while self.state.phase != Phase::Stopped {
            let Some(event) = self.next_event(&mut inbox).await else { continue };
            let was_checking = self.state.phase == Phase::Checking;
            let (state, effects) = self.state.clone().step(&event);
            self.state = state;
            if was_checking && self.state.phase != Phase::Checking {
                // Nobody waits for its health any more.
                self.work = None;
            }
            let (State { phase, restarts, .. }, last_end) = (&self.state, self.last_end.clone());
            self.status.send_replace(Status { phase: *phase, restarts: *restarts, last_end });
            self.carry_out(effects).await;
        }
        if let Some(renewal) = self.renewal.take()
            && let Ok(instance) = renewal.start.await
        {
            self.runtime.release(instance);
        }
        // A stop that is just being sent would stay in the channel, unanswered, as long as its sender keeps its end.
        inbox.close();
        while inbox.recv().await.is_some() {}
    }

    /// Waits for the next thing that happens, and tells it where it may move the state. Every branch is cancel safe: a channel, the runtime's promise, a future kept in
    /// `self`, and a point in time.
    async fn next_event(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Option<Event> {
        let is_watched = matches!(self.state.phase, Phase::Running | Phase::Checking);
        let running = self.instance.as_mut().filter(|_| is_watched);
        let seen = OptionFuture::from(running.map(|(instance, _)| self.runtime.watch(instance)));
        let work = OptionFuture::from(self.work.as_mut());
        let is_counted = !matches!(self.state.phase, Phase::Adopting | Phase::Stopping | Phase::Recovering);
        let renewal = OptionFuture::from(self.renewal.as_mut().map(|renewal| &mut renewal.start));
        let replaced = OptionFuture::from(self.replaced.as_mut());
        let expiry = OptionFuture::from(self.expiry.filter(|_| is_counted).map(tokio::time::sleep_until));
        tokio::select! {
            biased;
            Some(command) = inbox.recv() => self.on_command(command),
            Some(seen) = seen => Some(self.on_seen(seen)),
            Some(done) = work => {
                self.work = None;
                Some(self.on_done(done))
            }
            Some(renewed) = renewal => self.on_renewed(renewed).await,
            Some(()) = replaced => {
                self.replaced = None;
                None
            }
            Some(()) = expiry => {
                self.expiry = None;
                self.end = End { cause: ExitCause::Deadline, code: -1, reason: "its deadline is over".to_owned() };
                Some(Event::Stop)
            }
            // Nobody is left who could say anything: the node is going down.
            else => Some(Event::Stop),
        }
    }

    fn on_command(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Stop { reason, cause, grace, done } => {
                self.stoppers.push(done);
                self.grace = grace;
                self.end = End { cause, reason, ..self.end };
                Some(Event::Stop)
            }
            Command::LameDuck => Some(Event::LameDuck),
            Command::Renew { overlaps, done } => {
                self.renew(overlaps, done);
                None
            }
        }
    }

    fn on_seen(&mut self, seen: Seen) -> Event {
        let ran = self.ran();
        match seen {
            Seen::Exited { cause, code, signal, message } => {
                self.ended_by_itself(End { cause, code, reason: message }, signal);
                Event::Ended { failed: code != 0, ran }
            }
            Seen::AgentLost { cause, agent, reason } => {
                self.ended_by_itself(End { cause, code: -1, reason: reason.clone() }, reason);
                self.lost_agent = Some(agent);
                Event::AgentLost { ran }
            }
            Seen::Healthy => {
                self.complaint.clear();
                Event::Healthy
            }
            Seen::Sick(why) => {
                match self.state.phase {
                    // It is not well yet; its time is not over either.
                    Phase::Checking => self.complaint = why,
                    _ => self.sick(format!("it is unhealthy: {why}")),
                }
                Event::Sick { ran }
            }
        }
    }

    fn ran(&self) -> Duration {
        self.instance.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    fn sick(&mut self, reason: String) {
        self.runtime.tell(&Notice::Sick(&reason));
        self.ended_by_itself(End { cause: ExitCause::Health, code: -1, reason: reason.clone() }, reason);
    }

    /// Remembers how it ended, without anybody's order.
    fn ended_by_itself(&mut self, end: End, message: String) {
        if !self.state.accepted {
            let how = LastEnd { cause: end.cause, code: end.code, message: message.clone(), ran: self.ran(), at: 0 }.how();
            self.refusal = Some(LaunchError::Unhealthy(match end.cause {
                ExitCause::Health => how,
                _ => format!("{how} before it passed its health check"),
            }));
        }
        let (ran, at) = (self.ran(), clock::unix_seconds());
        self.last_end = Some(Arc::new(LastEnd { cause: end.cause, code: end.code, message, ran, at }));
        self.end = end;
    }

    /// Why it is over, unless somebody stops it: then that is why.
    fn did_not_run(&mut self, cause: ExitCause, error: &LaunchError) {
        if self.state.phase != Phase::Stopping {
            self.end = End { cause, code: -1, reason: error.to_string() };
        }
    }

    fn on_done(&mut self, done: Done<R::Instance>) -> Event {
        match done {
            Done::Adopted(Ok((instance, age))) => {
                self.runtime.tell(&Notice::Adopted);
                let now = Instant::now();
                self.instance = Some((instance, now.checked_sub(age).unwrap_or(now)));
                self.expiry = self.expiry.map(|expiry| expiry.max(now + LAST_CHANCE));
                Event::Adopted
            }
            Done::Adopted(Err(error)) => {
                self.runtime.tell(&Notice::NotAdopted(&error));
                self.did_not_run(ExitCause::Lost, &error);
                Event::AdoptFailed
            }
            Done::Started(Ok(instance)) => {
                self.runtime.tell(&Notice::Started);
                self.instance = Some((instance, Instant::now()));
                Event::Started
            }
            Done::Started(Err(error)) => {
                self.runtime.tell(&Notice::StartFailed(&error));
                self.did_not_run(ExitCause::NotStarted, &error);
                self.refusal = Some(error);
                Event::StartFailed
            }
            Done::Recorded(Ok(())) => Event::Recorded,
            Done::Recorded(Err(error)) => {
                self.runtime.tell(&Notice::NotRecorded(&error));
                self.refusal = Some(LaunchError::Journal(error));
                Event::RecordFailed
            }
            Done::Overdue => {
                let seconds = self.timeouts.health.as_secs_f64();
                let complaint = std::mem::take(&mut self.complaint);
                let why = if complaint.is_empty() { "nothing was heard of it" } else { &complaint };
                self.sick(format!("it did not pass its health check within {seconds} s: {why}"));
                Event::Overdue
            }
            Done::BackoffOver => Event::BackoffOver,
            Done::Undeployed => Event::Undeployed,
        }
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            crash_point(effect.name());
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
                Effect::AwaitHealth => {
                    self.complaint.clear();
                    self.later(self.timeouts.health, Done::Overdue);
                }
                Effect::Record => {
                    if let Some((instance, _)) = &self.instance {
                        let record = self.runtime.record(Some(instance), self.life(None));
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
                Effect::Release => self.instance.take().into_iter().for_each(|(instance, _)| self.runtime.release(instance)),
                Effect::BackOff(pause) => {
                    self.runtime.tell(&Notice::Restarting { end: &self.end, pause });
                    let recorded = self.runtime.record(None, self.life(Some(clock::unix_seconds()))).await;
                    recorded.unwrap_or_else(|error| self.runtime.tell(&Notice::NotRecorded(&error)));
                    self.later(pause, Done::BackoffOver);
                }
                Effect::Undeploy => self.undeploy(),
                Effect::Reject => {
                    self.runtime.forget(None).await;
                    self.answer();
                }
                Effect::Retire => {
                    self.runtime.forget(Some(&self.end)).await;
                    self.runtime.tell(&Notice::Undeployed(&self.end));
                    self.answer();
                }
            }
        }
    }

    fn undeploy(&mut self) {
        let undeploy = self.instance.take().map(|(it, _)| self.runtime.undeploy(it, self.grace));
        let replaced = self.replaced.take();
        self.work = Some(Box::pin(async move {
            tokio::join!(OptionFuture::from(undeploy), OptionFuture::from(replaced));
            Done::Undeployed
        }));
    }

    /// This is done after a time, unless something else is begun before.
    fn later(&mut self, time: Duration, done: Done<R::Instance>) {
        self.work = Some(Box::pin(async move {
            tokio::time::sleep(time).await;
            done
        }));
    }

    /// What a later process goes on counting from.
    fn life(&self, backing_off_since: Option<i64>) -> LifeRecord {
        let State { announced, restarts, streak, .. } = self.state;
        LifeRecord { restarts, streak, announced, backing_off_since }
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
