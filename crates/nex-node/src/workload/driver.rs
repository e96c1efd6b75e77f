//! The one task that owns a workload's agent: turns what happens into [`Event`]s and carries out [`Effect`]s.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, OptionFuture};
use nex_process::Deadline;
use nex_protocol::agent::{AgentEvent, Logs};
use nex_protocol::envelope::{ErrorCode, Failure};
use nex_protocol::log::Level;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::spec::WorkloadSpec;
use super::state::{Effect, Event, Phase, State};
use super::{Command, FirstStart, Status, Workload};
use crate::agents::Gone;
use crate::agents::router::Report;
use crate::launch::{HOST_CALLS, Launched, Launcher, release};
use crate::logs::Log;
use crate::reporter::Reporter;
use crate::trigger::Counters;

/// Why a workload is over, for its event.
#[derive(Debug, Clone)]
struct End {
    code: i32,
    message: String,
}

enum Done {
    Started(Result<Box<Launched>, Failure>),
    BackoffOver,
    Drained,
}

/// The running agent, as the driver holds it.
struct Live {
    launched: Box<Launched>,
    since: Instant,
}

struct Driver {
    spec: Arc<WorkloadSpec>,
    launcher: Arc<Launcher>,
    reporter: Reporter,
    host_calls: Arc<Semaphore>,
    log: Log,
    state: State,
    live: Option<Live>,
    /// What an agent that is being stopped still says.
    last_words: Option<mpsc::Receiver<Report>>,
    work: Option<BoxFuture<'static, Done>>,
    end: End,
    first: Option<oneshot::Sender<FirstStart>>,
    stoppers: Vec<oneshot::Sender<()>>,
    status: watch::Sender<Status>,
    refusal: Option<Failure>,
}

/// A driver that waits to be started, so that its workload is known before anything happens to it.
pub struct Start {
    driver: Driver,
    inbox: mpsc::Receiver<Command>,
    outcome: oneshot::Receiver<FirstStart>,
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("workload", &self.driver.spec.id).finish_non_exhaustive()
    }
}

impl Start {
    /// Starts the driver in the launcher's scope. The receiver hears how the first start went; `retired` is called when the
    /// workload is over, before its last event is sent.
    pub fn go(self, retired: Box<dyn FnOnce() + Send>) -> oneshot::Receiver<FirstStart> {
        let launcher = Arc::clone(&self.driver.launcher);
        launcher.scope.spawn("workload", self.driver.run(self.inbox, retired));
        self.outcome
    }
}

/// Prepares the driver of a workload.
#[must_use]
pub fn prepare(spec: WorkloadSpec, launcher: &Arc<Launcher>) -> (Workload, Start) {
    let spec = Arc::new(spec);
    let counters = Arc::new(Counters::default());
    let (commands, inbox) = mpsc::channel(16);
    let (status, seen) = watch::channel(Status { phase: Phase::Starting, restarts: 0 });
    let (first, outcome) = oneshot::channel();
    let driver = Driver {
        launcher: Arc::clone(launcher),
        reporter: Reporter::new(launcher.events.clone(), launcher.log(&spec), &spec, Arc::clone(&counters)),
        log: launcher.log(&spec),
        host_calls: Arc::new(Semaphore::new(HOST_CALLS)),
        state: State::new(spec.restarts),
        live: None,
        last_words: None,
        work: None,
        end: End { code: 0, message: String::new() },
        first: Some(first),
        stoppers: Vec::new(),
        status,
        refusal: None,
        spec: Arc::clone(&spec),
    };
    let workload = Workload { spec, counters, began: Instant::now(), commands, status: seen };
    (workload, Start { driver, inbox, outcome })
}

impl Driver {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, retired: Box<dyn FnOnce() + Send>) {
        self.carry_out(vec![Effect::Start]).await;
        while self.state.phase != Phase::Stopped {
            let event = self.next_event(&mut inbox).await;
            let Some(event) = event else { continue };
            let (state, effects) = self.state.clone().step(&event);
            self.state = state;
            self.status.send_replace(Status { phase: self.state.phase, restarts: self.state.restarts });
            self.carry_out(effects).await;
        }
        retired();
        self.log.confess().await;
        self.reporter.close().await;
        self.launcher.forget(&self.spec);
        if self.state.announced {
            self.launcher.events.undeployed(&self.spec, self.end.code, &self.end.message).await;
            tracing::info!(workload_id = %self.spec.id, name = %self.spec.name, code = self.end.code, "workload ended: {}", self.end.message);
        }
        if let Some(first) = self.first.take() {
            first.send(Err(self.refusal.take().unwrap_or_else(stopped_before_it_ran))).ok();
        }
        for stopper in self.stoppers.drain(..) {
            stopper.send(()).ok();
        }
    }

    /// Waits for the next thing that may move the state. Every branch is cancel safe: channels, and futures kept in `self`.
    async fn next_event(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Option<Event> {
        let gone = OptionFuture::from(self.live.as_ref().map(|live| live.launched.session.gone()));
        let reports = self.live.as_mut().map(|live| &mut live.launched.reports).or(self.last_words.as_mut());
        let reports = OptionFuture::from(reports.map(mpsc::Receiver::recv));
        let work = OptionFuture::from(self.work.as_mut());
        tokio::select! {
            // What the workload said comes before the news of its end.
            biased;
            Some(command) = inbox.recv() => Some(self.on_command(command)),
            Some(Some(report)) = reports => self.on_report(report).await,
            Some(gone) = gone => Some(self.lost(&gone).await),
            Some(done) = work => {
                self.work = None;
                Some(self.on_done(done))
            }
            else => {
                // Nobody is left who could say anything: the node is going down.
                Some(Event::Stop)
            }
        }
    }

    async fn lost(&mut self, gone: &Gone) -> Event {
        if let Some(live) = &self.live {
            self.launcher.events.agent_stopped(live.launched.session.id(), &gone.to_string(), -1).await;
        }
        self.ended(-1, true, format!("the agent of {} was lost: {gone}", self.spec.name))
    }

    fn on_command(&mut self, command: Command) -> Event {
        match command {
            Command::Stop { reason, done } => {
                self.stoppers.push(done);
                reason.clone_into(&mut self.end.message);
                Event::Stop
            }
            Command::LameDuck => Event::LameDuck,
        }
    }

    fn on_done(&mut self, done: Done) -> Event {
        match done {
            Done::Started(Ok(launched)) => {
                self.live = Some(Live { launched, since: Instant::now() });
                Event::Started
            }
            Done::Started(Err(failure)) => {
                tracing::warn!(workload_id = %self.spec.id, name = %self.spec.name, error = %failure, "workload could not be started");
                self.end =
                    End { code: -1, message: format!("Failed to start workload: {}; vm: {}", self.spec.name, self.spec.id) };
                self.refusal = Some(failure);
                Event::StartFailed
            }
            Done::BackoffOver => Event::BackoffOver,
            Done::Drained => Event::Drained,
        }
    }

    async fn on_report(&mut self, report: Report) -> Option<Event> {
        match report {
            Report::Logs(Logs { lines, dropped }) => {
                self.log.lost(dropped);
                for line in lines {
                    self.log.line(if line.stderr { Level::Error } else { Level::Info }, line.text).await;
                }
                None
            }
            // It was told to stop: that it ends is no news.
            Report::Event(AgentEvent::Exited { .. }) if self.state.phase == Phase::Stopping => None,
            Report::Event(AgentEvent::Exited { code, message }) => Some(self.ended(
                code,
                code != 0,
                format!("Exited workload: {}; vm: {}; status: {code}{}", self.spec.name, self.spec.id, suffix(&message)),
            )),
            Report::Event(AgentEvent::Executed { succeeded, elapsed_nanos, subject }) => {
                self.reporter.executed(subject, succeeded, elapsed_nanos);
                None
            }
            Report::Event(AgentEvent::ExecutionFailed { subject, error }) => {
                self.reporter.failed(&subject, &error);
                None
            }
            Report::Host { what, message } => {
                match Arc::clone(&self.host_calls).try_acquire_owned() {
                    Ok(permit) => self.launcher.host_call(&self.spec, what, message, permit),
                    Err(_all_taken) => self.launcher.refuse_host_call(&message).await,
                }
                None
            }
        }
    }

    fn ended(&mut self, code: i32, failed: bool, message: String) -> Event {
        if self.state.phase != Phase::Stopping {
            self.end = End { code, message };
        }
        Event::Ended { failed, ran: self.live.as_ref().map_or(Duration::ZERO, |live| live.since.elapsed()) }
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Start => {
                    let (launcher, spec) = (Arc::clone(&self.launcher), Arc::clone(&self.spec));
                    let by = Deadline::after(launcher.deploy_timeout);
                    let outcomes = self.reporter.outcomes();
                    self.work =
                        Some(Box::pin(async move { Done::Started(launcher.launch(&spec, outcomes, by).await.map(Box::new)) }));
                }
                Effect::Announce => self.announce().await,
                Effect::Release => {
                    if let Some(live) = self.live.take() {
                        let Launched { session, triggers, .. } = *live.launched;
                        release(session, triggers, Duration::ZERO).await;
                    }
                }
                Effect::BackOff(pause) => {
                    tracing::warn!(workload_id = %self.spec.id, name = %self.spec.name, pause_ms = pause.as_millis(), "workload failed and is started again after a pause: {}", self.end.message);
                    self.log.line(Level::Warn, format!("{}; starting again in {} ms", self.end.message, pause.as_millis())).await;
                    self.work = Some(Box::pin(async move {
                        tokio::time::sleep(pause).await;
                        Done::BackoffOver
                    }));
                }
                Effect::Drain => self.drain(),
                Effect::Reject | Effect::Retire => {}
            }
        }
    }

    async fn announce(&mut self) {
        if let Err(error) = self.launcher.record(&self.spec, self.live.as_ref().map(|live| live.launched.session.id())) {
            tracing::error!(workload_id = %self.spec.id, error = %nex_protocol::envelope::chain(&error), "the workload would not survive a restart of the node");
        }
        self.launcher.events.deployed(&self.spec).await;
        tracing::info!(workload_id = %self.spec.id, name = %self.spec.name, namespace = %self.spec.namespace, kind = %self.spec.kind, "workload deployed");
        if let Some(first) = self.first.take() {
            first.send(Ok(())).ok();
        }
    }

    fn drain(&mut self) {
        let grace = self.launcher.stop_grace;
        if let Some(live) = self.live.take() {
            let Launched { session, reports, triggers } = *live.launched;
            self.last_words = Some(reports);
            self.work = Some(Box::pin(async move {
                release(session, triggers, grace).await;
                Done::Drained
            }));
        } else {
            self.work = Some(Box::pin(async { Done::Drained }));
        }
    }
}

fn stopped_before_it_ran() -> Failure {
    Failure::new(ErrorCode::Unavailable, "Failed to deploy workload: it was stopped before it ran")
}

fn suffix(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}
