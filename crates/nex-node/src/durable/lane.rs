//! The one task of a durable trigger: asks its consumer for as many messages as the function has free slots, and hands them to
//! [`Deliverer`]. Whatever is wrong is said on the board and tried again after a pause.
//!
//! ```text
//!  starting ──bound──▶ active ──stop──▶ gives back what it is sent ──▶ over
//!     ▲                  │
//!     └───── pause ◀─────┘ no stream, no consumer, no JetStream, no permission
//! ```

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use nex_bus::drain::Draining;
use nex_protocol::trigger::{Place, Source};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::consumer::Wanted;
use super::credit::{Credit, Told};
use super::delivery::{Deliverer, missing};
use super::failure::TriggerFailure;
use super::verdict::jittered;

/// How long a request for messages stands, and how often a server says meanwhile that it is there.
const EXPIRES: Duration = Duration::from_secs(60);
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often the trigger looks after itself; and, counted in that, at its consumer, when something has happened or not.
const TICK: Duration = Duration::from_secs(1);
const LOOK: u32 = 5;
const LOOK_IDLE: u32 = 60;
/// Pauses after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The task of one trigger.
pub(super) struct Lane {
    pub(super) deliverer: Arc<Deliverer>,
    pub(super) denied: Arc<[String]>,
    pub(super) concurrency: usize,
    /// Time that calls have which are under way when it is stopped.
    pub(super) drain: Duration,
}

impl Lane {
    /// Until it is told to stop: then no more messages are taken, and those that were taken are dealt with.
    pub(super) async fn run(self, stop: CancellationToken) {
        let (mut pause, mut calls) = (FIRST_PAUSE, Calls::new());
        while !stop.is_cancelled() {
            let (began, mut has_come) = (Instant::now(), false);
            let Err(failure) = self.serve(&stop, &mut calls, &mut has_come).await else { break };
            // What fails now and then, and serves in between, is not kept waiting like what does not serve at all.
            if has_come || began.elapsed() > MAX_PAUSE {
                pause = FIRST_PAUSE;
            }
            self.tell(&failure);
            tokio::select! {
                () = stop.cancelled() => {}
                () = beside(&mut calls, tokio::time::sleep(jittered(pause, rand::random()))) => {}
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
        tokio::time::timeout(self.drain, calls.for_each(std::future::ready)).await.ok();
        self.deliverer.jetstream.client.flush().await.ok();
    }

    fn tell(&self, failure: &TriggerFailure) {
        let Deliverer { entry, text, spec, reporter, .. } = &*self.deliverer;
        let failure = failure.to_string();
        if entry.failing(&failure) {
            tracing::warn!(workload_id = %spec.id, trigger = %text, "a trigger cannot be served now and is tried again: {failure}");
            reporter.note(format!("trigger {text} cannot be served now and is tried again: {failure}"));
        }
    }

    /// Until something fails, and whether a message came before that.
    async fn serve(&self, stop: &CancellationToken, calls: &mut Calls, has_come: &mut bool) -> Result<(), TriggerFailure> {
        let Deliverer { jetstream, entry, trigger, place, .. } = &*self.deliverer;
        let seen = entry.seen();
        let bind = async {
            self.keep_schedule().await?;
            jetstream.bind(&Wanted { trigger, place, denied: &self.denied, seen: seen.as_ref() }).await
        };
        let bound = beside(calls, Box::pin(bind)).await?;
        entry.bound(bound.seen);
        entry.looked(&bound.info);
        let inbox = jetstream.client.new_inbox();
        let unheard = |error: String| TriggerFailure::Unheard { what: "a subscription", why: error };
        let subscription = jetstream.client.subscribe(inbox.clone()).await.map_err(|error| unheard(error.to_string()))?;
        self.pull((inbox, subscription), (stop, calls), has_come).await
    }

    async fn pull(
        &self,
        (inbox, subscription): (String, Subscriber),
        (stop, calls): (&CancellationToken, &mut Calls),
        has_come: &mut bool,
    ) -> Result<(), TriggerFailure> {
        let Deliverer { jetstream, slots, queued, .. } = &*self.deliverer;
        let mut messages = Draining::new(jetstream.client.clone(), subscription, stop.clone());
        let (mut credit, mut watch) =
            (Credit::default(), Watch::new(jetstream.client.statistics().connects.load(Ordering::Relaxed)));
        let mut ticks = tokio::time::interval(TICK);
        loop {
            let free = slots.available_permits().saturating_sub(queued.load(Ordering::Relaxed));
            if let Some(count) = credit.wanted(free, self.concurrency).filter(|_| !stop.is_cancelled()) {
                self.request(&inbox, count).await?;
                credit.asked(count);
                watch.heard = Instant::now();
            }
            let is_starved = credit.is_empty() && !stop.is_cancelled();
            tokio::select! {
                message = messages.next() => {
                    let Some(message) = message else { return Ok(()) };
                    watch.heard = Instant::now();
                    if let Some(told) = self.take(message, stop, calls).await {
                        credit.told(told);
                        match told {
                            Told::Gone => return Err(TriggerFailure::Gone),
                            // Not asked for again at once: whatever it was would say the same.
                            Told::Lost => beside(calls, tokio::time::sleep(TICK)).await,
                            Told::Alive | Told::Over(_) => {}
                        }
                    } else {
                        credit.came();
                        *has_come = true;
                        watch.has_changed = true;
                    }
                }
                // A slot is free again.
                Some(()) = calls.next() => {}
                // Another trigger has them all.
                slot = slots.acquire(), if is_starved => drop(slot),
                _ = ticks.tick() => beside(calls, Box::pin(self.look_after(&mut credit, &mut watch))).await?,
            }
        }
    }

    /// Takes what came; nothing where it was a message, else what it says.
    async fn take(&self, message: Message, stop: &CancellationToken, calls: &mut Calls) -> Option<Told> {
        if let Some(status) = message.status {
            let text = message.description.as_deref().unwrap_or_default();
            return Some(Told::read(status.as_u16(), text, missing(message.headers.as_ref())));
        }
        if stop.is_cancelled() {
            self.deliverer.give_back(message).await;
        } else {
            let slot = self.deliverer.slot();
            let (deliverer, trigger) = (Arc::clone(&self.deliverer), Arc::clone(&self.deliverer.text));
            calls.push(Box::pin(async move {
                if AssertUnwindSafe(deliverer.deliver(message, slot)).catch_unwind().await.is_err() {
                    tracing::error!(%trigger, "dealing with a message panicked");
                }
            }));
        }
        None
    }

    async fn request(&self, inbox: &str, count: usize) -> Result<(), TriggerFailure> {
        let Deliverer { jetstream, place: Place { stream, consumer, .. }, .. } = &*self.deliverer;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let body = json!({"batch": count, "expires": nanos(EXPIRES), "idle_heartbeat": nanos(HEARTBEAT)});
        let subject = next_message(stream, consumer);
        let sent = jetstream.client.publish_with_reply(subject, inbox.to_owned(), Bytes::from(body.to_string())).await;
        sent.map_err(|error| TriggerFailure::Unheard { what: "a request for messages", why: error.to_string() })
    }

    /// A schedule is kept by the server, where somebody may have removed it.
    async fn keep_schedule(&self) -> Result<(), TriggerFailure> {
        let Deliverer { jetstream, trigger, place, spec, .. } = &*self.deliverer;
        let Source::Schedule(schedule) = &trigger.source else { return Ok(()) };
        let now = jetstream.keep_schedules(&spec.namespace).await?;
        jetstream.schedule(&spec.namespace, place, schedule, now).await
    }

    /// Requests may be lost with a connection or a server, and consumers deleted while none is under way.
    async fn look_after(&self, credit: &mut Credit, watch: &mut Watch) -> Result<(), TriggerFailure> {
        let Deliverer { jetstream, place: Place { stream, consumer, .. }, entry, .. } = &*self.deliverer;
        // Neither is answered: a server says apart that it does not permit them.
        let next = next_message(stream, consumer);
        let is_own_ack = |subject: &str| subject.starts_with("$JS.ACK.") && subject.contains(consumer.as_str());
        jetstream.check_denied(|subject| subject == next || is_own_ack(subject))?;
        let connects = jetstream.client.statistics().connects.load(Ordering::Relaxed);
        if connects != watch.connects || watch.heard.elapsed() > HEARTBEAT * 2 {
            watch.connects = connects;
            watch.heard = Instant::now();
            credit.told(Told::Lost);
        }
        watch.ticks += 1;
        if watch.ticks < if watch.has_changed { LOOK } else { LOOK_IDLE } {
            return Ok(());
        }
        watch.ticks = 0;
        self.keep_schedule().await?;
        watch.has_changed = false;
        let info = match jetstream.consumer_info(stream, consumer).await {
            // One that has just gone answers nothing, and another is about to take its place.
            Err(TriggerFailure::Unheard { .. }) if !watch.is_unheard => {
                (watch.is_unheard, watch.has_changed) = (true, true);
                return Ok(());
            }
            found => found?.ok_or(TriggerFailure::Gone)?,
        };
        watch.is_unheard = false;
        // What waits for its next attempt is looked at again soon.
        watch.has_changed = info.num_ack_pending > 0;
        entry.looked(&info);
        Ok(())
    }
}

/// The messages in hand. All of them are one task, that of their trigger: what has come together goes on together, in one write to the bus
/// and one back. A task for each would wake another thread for each.
type Calls = FuturesUnordered<BoxFuture<'static, ()>>;

/// Something else, while what is in hand goes on.
async fn beside<T>(calls: &mut Calls, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(()) = calls.next() => {}
        }
    }
}

fn next_message(stream: &str, consumer: &str) -> String {
    format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}")
}

/// What the trigger has noticed of its connection.
struct Watch {
    /// How often it was made.
    connects: u64,
    /// When anything was heard last.
    heard: Instant,
    ticks: u32,
    /// Whether messages came since the consumer was looked at.
    has_changed: bool,
    /// Whether the last question about the consumer was not answered.
    is_unheard: bool,
}

impl Watch {
    fn new(connects: u64) -> Self {
        Self { connects, heard: Instant::now(), ticks: 0, has_changed: true, is_unheard: false }
    }
}
