//! Runs the state machine: collects its events and carries out its effects.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use nex_process::{Child, Deadline, Signal, guest};
use nex_protocol::guest::{FromGuest, GuestIdentity};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use super::channel::{Channel, Received};
use super::state::{Effect, Event, State};
use super::{agent, drive, identity, log_to_console, metadata, network};

/// Work in progress whose end is an event; the states allow one at a time.
type Work = Pin<Box<dyn Future<Output = Done>>>;

enum Done {
    Event(Event),
    Applied(anyhow::Result<()>),
}

struct Driver {
    channel: Channel,
    /// Loaded from the start; `None` after its end.
    agent: Option<Arc<Child>>,
    work: Option<Work>,
    wait: Option<Deadline>,
    children: Signals,
    interrupted: Signals,
    terminated: Signals,
}

/// Runs until the machine is to power off.
///
/// # Errors
/// When signals cannot be handled, or the agent does not start.
pub(super) async fn run() -> anyhow::Result<()> {
    let on = |kind| signal(kind).context("cannot handle signals");
    let mut driver = Driver {
        channel: Channel::new(),
        agent: Some(Arc::new(agent::load().await?)),
        work: None,
        wait: None,
        children: on(SignalKind::child())?,
        interrupted: on(SignalKind::interrupt())?,
        terminated: on(SignalKind::terminate())?,
    };
    let mut state = State::Waiting;
    loop {
        let event = driver.next().await;
        let (next, effects) = state.step(event);
        state = next;
        for effect in effects {
            if effect == Effect::Restart {
                return Ok(());
            }
            driver.carry_out(effect).await;
        }
    }
}

impl Driver {
    async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                received = self.channel.recv() => match received {
                    Received::Connected => return Event::Connected,
                    Received::Line(message) => return Event::Received(message),
                    Received::Malformed(message) => {
                        log_to_console(&message);
                        self.channel.send(&FromGuest::Failed { message }).await;
                    }
                },
                done = working(&mut self.work) => {
                    self.work = None;
                    return self.done(done);
                }
                how = ended(self.agent.as_deref()) => {
                    self.agent = None;
                    // Logged here, because a killed agent writes nothing itself.
                    log_to_console(&format!("the agent ended: {how}"));
                    return Event::Ended(how);
                }
                () = over(self.wait) => {
                    self.wait = None;
                    return Event::TimeOver;
                }
                _ = self.children.recv() => {
                    // Without an agent there is nothing left to wait for.
                    if let Some(agent) = &self.agent {
                        guest::reap_orphans(agent.id().pid);
                    }
                }
                _ = self.interrupted.recv() => return Event::Interrupted,
                _ = self.terminated.recv() => return Event::Interrupted,
            }
        }
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(message) => self.channel.send(&message).await,
            Effect::ReadMetadata => self.work = Some(Box::pin(async { Done::Event(Event::MetadataRead(read_metadata().await)) })),
            Effect::ApplyIdentity(identity) => {
                // If the agent has ended, that is an event of its own.
                let Some(agent) = self.agent.clone() else { return };
                self.work = Some(Box::pin(async move { Done::Applied(identity::apply(&identity, &agent).await) }));
            }
            Effect::Attach(slot) => {
                self.work = Some(Box::pin(async move { Done::Event(Event::Attached(slot, drive::attach(slot).await)) }));
            }
            Effect::Terminate => {
                if let Some(agent) = &self.agent {
                    agent.signal(Signal::SIGTERM);
                }
            }
            Effect::KillEverything => guest::kill_everything(),
            Effect::Wait(time) => self.wait = Some(Deadline::after(time)),
            // Handled by the loop in `run`.
            Effect::Restart => {}
        }
    }

    fn done(&mut self, done: Done) -> Event {
        match done {
            Done::Event(event) => event,
            Done::Applied(Ok(())) => Event::IdentityApplied(Ok(())),
            Done::Applied(Err(error)) => {
                let why = format!("this guest cannot apply its identity: {error:#}");
                log_to_console(&why);
                Event::IdentityApplied(Err(why))
            }
        }
    }
}

async fn read_metadata() -> Result<Box<GuestIdentity>, String> {
    network::with_link_local(metadata::read(metadata::SERVICE)).await.map_err(|error| format!("{error:#}"))
}

async fn working(work: &mut Option<Work>) -> Done {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

async fn ended(agent: Option<&Child>) -> String {
    match agent {
        Some(agent) => agent.exited().await.to_string(),
        None => pending().await,
    }
}

async fn over(wait: Option<Deadline>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait.remaining()).await,
        None => pending().await,
    }
}
