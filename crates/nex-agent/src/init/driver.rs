//! Carries out what the state machine says; the only task of the init that decides.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use nex_process::{Child, Deadline, Signal, guest};
use nex_protocol::guest::{FromGuest, Welcome};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use super::channel::{Channel, Heard};
use super::state::{Effect, Event, State};
use super::{agent, drive, metadata, network, note, welcome};

/// Something under way whose end is an event; at most one at a time, as the states have it.
type Work = Pin<Box<dyn Future<Output = Done>>>;

enum Done {
    Event(Event),
    Settled(anyhow::Result<()>),
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

/// Lives until the machine is to go down.
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
                heard = self.channel.hear() => match heard {
                    Heard::Connected => return Event::Connected,
                    Heard::Line(said) => return Event::Heard(said),
                    Heard::Nonsense(message) => {
                        note(&message);
                        self.channel.say(&FromGuest::Failed { message }).await;
                    }
                },
                done = working(&mut self.work) => {
                    self.work = None;
                    return self.done(done);
                }
                how = ended(self.agent.as_deref()) => {
                    self.agent = None;
                    // For the console, where nobody asked for it: one that was killed has said nothing itself.
                    note(&format!("the agent ended: {how}"));
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
            Effect::Say(what) => self.channel.say(&what).await,
            Effect::Ask => self.work = Some(Box::pin(async { Done::Event(Event::Asked(ask().await)) })),
            Effect::Settle(who) => {
                // One that has ended is an event of its own.
                let Some(agent) = self.agent.clone() else { return };
                self.work = Some(Box::pin(async move { Done::Settled(welcome::settle(&who, &agent).await) }));
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
            // The loop's own.
            Effect::Restart => {}
        }
    }

    fn done(&mut self, done: Done) -> Event {
        match done {
            Done::Event(event) => event,
            Done::Settled(Ok(())) => Event::Settled(Ok(())),
            Done::Settled(Err(error)) => {
                let why = format!("this guest cannot become what it was told: {error:#}");
                note(&why);
                Event::Settled(Err(why))
            }
        }
    }
}

async fn ask() -> Result<Box<Welcome>, String> {
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
