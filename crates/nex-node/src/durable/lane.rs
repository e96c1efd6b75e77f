//! The one task of a durable trigger: asks its consumer for as many messages as the function has free slots, and hands them to
//! [`Deliverer`]. Whatever is wrong is said on the board and tried again after a pause.
//!
//! ```text
//!  starting ──bound──▶ active ──stop──▶ gives back what it is sent ──▶ over
//!     ▲                  │
//!     └───── pause ◀─────┘ no stream, no consumer, no JetStream, no permission
//! ```
//!
//! An ordered trigger asks for as many as it may hold in hand, and always for one: with each request it says that it is there.

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
use super::ordered::{self, Ordered};
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
        let (mut pause, mut hand) = (FIRST_PAUSE, Hand::default());
        while !stop.is_cancelled() {
            let began = Instant::now();
            hand.has_come = false;
            let Err(failure) = self.serve(&stop, &mut hand).await else { break };
            // What fails now and then, and serves in between, is not kept waiting like what does not serve at all.
            if hand.has_come || began.elapsed() > MAX_PAUSE {
                pause = FIRST_PAUSE;
            }
            self.tell(&failure);
            tokio::select! {
                () = stop.cancelled() => {}
                () = beside(&mut hand.calls, tokio::time::sleep(jittered(pause, rand::random()))) => {}
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
        let over = async {
            // Another copy need not wait until nothing was heard of this one for long.
            if hand.ordered.as_ref().is_some_and(|ordered| ordered.pin.is_some()) {
                let Deliverer { jetstream, place, .. } = &*self.deliverer;
                if let Err(error) = beside(&mut hand.calls, Box::pin(jetstream.unpin(place))).await {
                    tracing::debug!(%error, "another copy goes on later");
                }
            }
            hand.calls.for_each(std::future::ready).await;
        };
        tokio::time::timeout(self.drain, over).await.ok();
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

    /// Until something fails.
    async fn serve(&self, stop: &CancellationToken, hand: &mut Hand) -> Result<(), TriggerFailure> {
        let Deliverer { jetstream, entry, trigger, place, .. } = &*self.deliverer;
        let seen = entry.seen();
        let bind = async {
            self.keep_schedule().await?;
            let concurrency = self.concurrency;
            jetstream.bind(&Wanted { trigger, place, denied: &self.denied, seen: seen.as_ref(), concurrency }).await
        };
        let bound = beside(&mut hand.calls, Box::pin(bind)).await?;
        entry.bound(bound.seen);
        entry.looked(&bound.info);
        if trigger.order.is_keyed() {
            Ordered::begin(&mut hand.ordered, bound.seen.stream);
        }
        let inbox = jetstream.client.new_inbox();
        let unheard = |error: String| TriggerFailure::Unheard { what: "a subscription", why: error };
        let subscription = jetstream.client.subscribe(inbox.clone()).await.map_err(|error| unheard(error.to_string()))?;
        self.pull((inbox, subscription), stop, hand).await
    }

    async fn pull(
        &self,
        (inbox, subscription): (String, Subscriber),
        stop: &CancellationToken,
        hand: &mut Hand,
    ) -> Result<(), TriggerFailure> {
        let Deliverer { jetstream, slots, .. } = &*self.deliverer;
        let mut messages = Draining::new(jetstream.client.clone(), subscription, stop.clone());
        let (mut credit, mut watch) =
            (Credit::default(), Watch::new(jetstream.client.statistics().connects.load(Ordering::Relaxed)));
        let mut ticks = tokio::time::interval(TICK);
        loop {
            let (free, of) = self.room(hand);
            if let Some(count) = credit.wanted(free, of).filter(|_| !stop.is_cancelled()) {
                self.request(&inbox, count, hand.ordered.as_ref()).await?;
                credit.asked(count);
                watch.heard = Instant::now();
            }
            let is_starved = credit.is_empty() && !stop.is_cancelled();
            tokio::select! {
                message = messages.next() => {
                    let Some(message) = message else { return Ok(()) };
                    watch.heard = Instant::now();
                    if let Some(told) = self.take(message, stop, hand).await {
                        credit.told(told);
                        match told {
                            Told::Gone => return Err(TriggerFailure::Gone),
                            // Not asked for again at once: whatever it was would say the same.
                            Told::Lost => beside(&mut hand.calls, tokio::time::sleep(TICK)).await,
                            Told::Unpinned => hand.ordered.iter_mut().for_each(|ordered| ordered.pin = None),
                            Told::Alive | Told::Over(_) => {}
                        }
                    } else {
                        credit.came();
                        hand.has_come = true;
                        watch.has_changed = true;
                    }
                }
                // A slot is free again.
                Some(()) = hand.calls.next() => {}
                () = std::future::ready(()), if hand.has_gap() => self.recover(hand).await?,
                // Another trigger has them all.
                slot = slots.acquire(), if is_starved => drop(slot),
                _ = ticks.tick() => {
                    let looked = self.look_after(&mut credit, &mut watch, hand.ordered.as_ref());
                    beside(&mut hand.calls, Box::pin(looked)).await?;
                }
            }
        }
    }

    /// Time after which a message that another copy had is dealt with, or has come again.
    fn patience(&self) -> Duration {
        2 * self.deliverer.trigger.delivery.ack_wait + self.drain
    }

    /// How many more messages it may have, of all.
    fn room(&self, hand: &Hand) -> (usize, usize) {
        let Deliverer { slots, queued, .. } = &*self.deliverer;
        match &hand.ordered {
            None => (slots.available_permits().saturating_sub(queued.load(Ordering::Relaxed)), self.concurrency),
            Some(ordered) => {
                let of = ordered::hand(self.concurrency);
                (of.saturating_sub(ordered.turns.in_hand()).max(1), of)
            }
        }
    }

    /// Finds out what may have been delivered to others.
    async fn recover(&self, Hand { calls, ordered, .. }: &mut Hand) -> Result<(), TriggerFailure> {
        let Deliverer { jetstream, place, trigger, .. } = &*self.deliverer;
        let Some(ordered) = ordered else { return Ok(()) };
        ordered.recovered = Instant::now();
        beside(calls, Box::pin(jetstream.recover(place, &trigger.order, &ordered.turns))).await
    }

    /// Takes what came; nothing where it was a message, else what it says.
    async fn take(&self, mut message: Message, stop: &CancellationToken, hand: &mut Hand) -> Option<Told> {
        if let Some(status) = message.status {
            let text = message.description.as_deref().unwrap_or_default();
            return Some(Told::read(status.as_u16(), text, missing(message.headers.as_ref())));
        }
        if stop.is_cancelled() {
            self.deliverer.give_back(message).await;
            return None;
        }
        let deliverer = Arc::clone(&self.deliverer);
        let Some(ordered) = &mut hand.ordered else {
            let slot = self.deliverer.slot();
            hand.calls.push(self.guarded(deliverer.deliver(message, slot)));
            return None;
        };
        ordered.unpack(&mut message);
        let message = deliverer.jetstream_message(message);
        // More than was asked for: it is as good as lost, and comes again.
        let is_too_much = ordered.turns.in_hand() > 2 * ordered::hand(self.concurrency);
        if let Some(arrival) = ordered::arrival(&deliverer.trigger.order, &message).filter(|_| !is_too_much) {
            let delivery = ordered.turns.arrive(arrival);
            hand.calls.push(self.guarded(deliverer.deliver_in_turn(message, delivery)));
        }
        None
    }

    /// Something that may panic without an end to all.
    fn guarded(&self, work: impl Future<Output = ()> + Send + 'static) -> BoxFuture<'static, ()> {
        let trigger = Arc::clone(&self.deliverer.text);
        Box::pin(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tracing::error!(%trigger, "dealing with a message panicked");
            }
        })
    }

    async fn request(&self, inbox: &str, count: usize, ordered: Option<&Ordered>) -> Result<(), TriggerFailure> {
        let Deliverer { jetstream, place: Place { stream, consumer, .. }, trigger, .. } = &*self.deliverer;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let body = match ordered {
            None => json!({"batch": count, "expires": nanos(EXPIRES), "idle_heartbeat": nanos(HEARTBEAT)}),
            Some(ordered) => ordered.request(count, nanos(ordered::request_for(trigger.delivery.ack_wait))),
        };
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
    async fn look_after(&self, credit: &mut Credit, watch: &mut Watch, ordered: Option<&Ordered>) -> Result<(), TriggerFailure> {
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
            ordered.inspect(|ordered| ordered.turns.interrupted());
        }
        watch.ticks += 1;
        entry.held_back(ordered.map_or(0, |ordered| ordered.turns.held_back()));
        let is_waiting = ordered.is_some_and(|ordered| ordered.turns.is_missing_some());
        let moves = ordered.map_or(0, |ordered| ordered.turns.moves());
        let pause = if watch.has_changed { LOOK } else { LOOK_IDLE };
        if watch.ticks < pause && !is_waiting {
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
        match ordered {
            Some(ordered) => jetstream.settle(&self.deliverer.place, ordered, (&info, moves), self.patience()).await,
            None => Ok(()),
        }
    }
}

/// What a trigger has in hand, from one attempt to serve it to the next.
#[derive(Default)]
struct Hand {
    calls: Calls,
    /// Whether a message came since.
    has_come: bool,
    ordered: Option<Ordered>,
}

impl Hand {
    fn has_gap(&self) -> bool {
        self.ordered.as_ref().is_some_and(|ordered| ordered.turns.has_gap())
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
