//! One message of a durable trigger: from its arrival to the moment its stream hears what became of it.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, AckKind};
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use nex_bus::denials::Denial;
use nex_protocol::agent::{HostCalls, Invocation, TriggerKind};
use nex_protocol::replay::Record;
use nex_protocol::trigger::{DurableTrigger, Place, Source};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::board::Entry;
use super::consumer::in_progress_every;
use super::dead::DeadLetter;
use super::failure::TriggerFailure;
use super::jetstream::JetStream;
use super::turns::{self, Turn};
use super::verdict::{self, Verdict};
use crate::agents::Invoked;
use crate::call_reporter::CallReporter;
use crate::called::Called;
use crate::identity::Identity;
use crate::trigger::AGENT_SLACK;
use crate::workload::spec::WorkloadSpec;

/// Pause before a message is given up once more, where the dead letters do not take it.
const UNBURIED: Duration = Duration::from_secs(30);

/// Pauses before a service that does not listen is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// All that a message of one trigger needs.
pub(super) struct Deliverer {
    pub(super) jetstream: JetStream,
    pub(super) identity: Arc<Identity>,
    pub(super) spec: Arc<WorkloadSpec>,
    pub(super) trigger: Arc<DurableTrigger>,
    /// The trigger as a text.
    pub(super) text: Arc<str>,
    /// Where its messages are.
    pub(super) place: Place,
    pub(super) called: Called,
    pub(super) reporter: CallReporter,
    pub(super) entry: Arc<Entry>,
    /// Calls under way, of all triggers of this copy.
    pub(super) slots: Arc<Semaphore>,
    /// Messages that wait for one.
    pub(super) queued: AtomicUsize,
    /// Told when no more is to be begun.
    pub(super) stop: CancellationToken,
}

/// What a message says of itself.
#[derive(Clone, Copy)]
struct Head {
    attempt: u32,
    sequence: u64,
    /// Those behind it.
    pending: u64,
    /// Whether this is the first attempt of this delivery.
    is_first: bool,
}

/// What is left to do for a message.
enum Next {
    /// Its stream has heard what became of it.
    Over,
    /// Another attempt, after a pause.
    Again(Duration),
    /// Nobody was asked, and there is no more time.
    Untried,
}

impl Next {
    fn again(pause: Duration) -> Self {
        Self::Again(verdict::jittered(pause, rand::random()))
    }
}

impl Head {
    fn of(message: &jetstream::Message) -> Option<Self> {
        let info = message.info().ok()?;
        let attempt = u32::try_from(info.delivered).unwrap_or(u32::MAX).max(1);
        Some(Self { attempt, sequence: info.stream_sequence, pending: info.pending, is_first: true })
    }
}

impl Deliverer {
    /// A message that came while there is no more time for it: another copy may have it, at once.
    pub(super) async fn give_back(&self, message: Message) {
        self.acknowledge(&self.jetstream_message(message), AckKind::Nak(None)).await;
    }

    /// Deals with a message. It stays this node's as long as that takes.
    pub(super) async fn deliver(self: Arc<Self>, message: Message, slot: Option<OwnedSemaphorePermit>) {
        let message = self.jetstream_message(message);
        let Some(head) = Head::of(&message) else { return drop(slot) };
        self.entry.came(head.pending);
        let slot = match slot {
            Some(slot) => Some(slot),
            None => self.wait_for_slot(&message).await,
        };
        match self.attempt(&message, &head).await {
            Next::Over => {}
            Next::Again(pause) => self.acknowledge(&message, AckKind::Nak(Some(pause))).await,
            Next::Untried => self.acknowledge(&message, AckKind::Nak(None)).await,
        }
        drop(slot);
    }

    /// Deals with a message of an ordered trigger when it is its turn. It is kept in hand until that is over: what is given back is anybody's
    /// to have, and others of its key would have to wait until it is known what became of it.
    pub(super) async fn deliver_in_turn(self: Arc<Self>, message: jetstream::Message, mut delivery: turns::Delivery) {
        let Some(head) = Head::of(&message) else { return };
        self.entry.came(head.pending);
        match self.keeping_unless_stopped(&message, delivery.turn()).await {
            Some(Turn::Begin) => {}
            Some(Turn::Done) => return self.acknowledge(&message, AckKind::Ack).await,
            Some(Turn::Stale) => return,
            None => return self.acknowledge(&message, AckKind::Nak(None)).await,
        }
        if self.attempts(&message, head).await {
            delivery.end();
        } else {
            self.acknowledge(&message, AckKind::Nak(None)).await;
        }
    }

    /// One attempt after the other. Says whether the message is dealt with; if not, there is no more time.
    async fn attempts(&self, message: &jetstream::Message, mut head: Head) -> bool {
        loop {
            let slot = self.keeping(message, Arc::clone(&self.slots).acquire_owned()).await.ok();
            let next = self.attempt(message, &head).await;
            drop(slot);
            let pause = match next {
                Next::Over => return true,
                Next::Untried => return false,
                Next::Again(pause) => pause,
            };
            if self.keeping_unless_stopped(message, tokio::time::sleep(pause)).await.is_none() {
                return false;
            }
            head = Head { attempt: head.attempt.saturating_add(1), is_first: false, ..head };
        }
    }

    pub(super) fn jetstream_message(&self, message: Message) -> jetstream::Message {
        jetstream::Message { message, context: self.jetstream.context.clone() }
    }

    /// The slot of a message that has just come. There is one as a rule, for no more is asked for than there are; another trigger may have
    /// been faster, and then it waits for one.
    pub(super) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok();
        if slot.is_none() {
            self.queued.fetch_add(1, Ordering::Relaxed);
        }
        slot
    }

    async fn wait_for_slot(&self, message: &jetstream::Message) -> Option<OwnedSemaphorePermit> {
        let slot = self.keeping(message, Arc::clone(&self.slots).acquire_owned()).await.ok();
        self.queued.fetch_sub(1, Ordering::Relaxed);
        slot
    }

    async fn attempt(&self, message: &jetstream::Message, head: &Head) -> Next {
        let delivery = &self.trigger.delivery;
        let unbegun = if self.trigger.order.is_keyed() && head.is_first { verdict::UNBEGUN } else { 0 };
        let (verdict, calls) = match verdict::before(head.attempt, unbegun, delivery) {
            Some(reason) => (Verdict::Dead(reason), None),
            None if self.is_reserved(message) => (Verdict::Dead("its subject is not for functions".to_owned()), None),
            None => self.keeping(message, self.call(message, head)).await,
        };
        match verdict {
            Verdict::Done => {
                self.entry.done();
                self.acknowledge(message, AckKind::Ack).await;
                Next::Over
            }
            Verdict::Retry { pause, reason } => {
                self.entry.retried(&reason);
                let error = format!("attempt {} of {} failed: {reason}", head.attempt, delivery.max_deliver);
                self.reporter.failed(&self.text, 1, [error.as_str()]);
                Next::again(pause)
            }
            Verdict::Dead(reason) => self.keeping(message, self.give_up(message, head, (&reason, calls.as_ref()))).await,
            Verdict::Untried => Next::Untried,
        }
    }

    /// Calls the function. Its host calls are recorded where a dead letter may have to say what they were.
    async fn call(&self, message: &jetstream::Message, head: &Head) -> (Verdict, Option<Record>) {
        let began = Instant::now();
        let (trigger, subject) = match &self.trigger.source {
            Source::Schedule(schedule) => (TriggerKind::Schedule, schedule.to_string()),
            Source::Stream { .. } | Source::Kv { .. } | Source::Object { .. } => {
                (TriggerKind::Stream, message.subject.to_string())
            }
        };
        let host_calls = match self.trigger.delivery.keeps_dead && self.spec.request.sender_public_key.is_some() {
            true => HostCalls::Recorded,
            false => HostCalls::Live,
        };
        let deadline_ms = self.spec.limits.call_timeout_ms;
        let invocation = Invocation { trigger, subject, deadline_ms, attempt: head.attempt, host_calls };
        let mut headers = message.headers.clone().unwrap_or_default();
        headers.insert(async_nats::header::NATS_STREAM, self.place.stream.as_str());
        headers.insert(async_nats::header::NATS_SEQUENCE, head.sequence.to_string());
        let invoked = self.invoke(&invocation, &headers, &message.payload).await;
        let Some(Invoked { outcome, nanos, calls }) = invoked else { return (Verdict::Untried, None) };
        let verdict = verdict::after(outcome, head.attempt, &self.trigger.delivery);
        if verdict == Verdict::Done {
            let nanos = nanos.unwrap_or_else(|| u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            self.reporter.succeeded(&self.text, 1, nanos);
        }
        (verdict, calls)
    }

    /// Calls it, and where that is a service which does not listen yet, or not now, as soon as it does; nothing if it is told to stop first.
    async fn invoke(&self, invocation: &Invocation, headers: &HeaderMap, payload: &Bytes) -> Option<Invoked> {
        let (mut pause, mut is_unheard) = (FIRST_PAUSE, false);
        loop {
            let called = self.called.invoke(invocation, Some(headers), payload.clone(), AGENT_SLACK);
            let why = tokio::select! {
                called = called => match called {
                    Ok(done) => {
                        if is_unheard {
                            self.entry.heard();
                        }
                        return Some(done);
                    }
                    Err(nobody) => nobody.to_string(),
                },
                denial = self.denied() => TriggerFailure::Denied(denial).to_string(),
            };
            is_unheard = true;
            if self.entry.failing(&why) {
                self.reporter.note(format!("trigger {} waits: {why}", self.text));
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(verdict::jittered(pause, rand::random())) => {}
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// The server does not permit to ask the service.
    async fn denied(&self) -> Denial {
        match self.called.subject() {
            Some(subject) => self.jetstream.denied(subject).await,
            None => pending().await,
        }
    }

    async fn give_up(&self, message: &jetstream::Message, head: &Head, (reason, calls): (&str, Option<&Record>)) -> Next {
        let (stream, sequence) = (self.place.stream.as_str(), head.sequence);
        let mut what = format!("given up after {} attempts: {reason}", head.attempt);
        if self.trigger.delivery.keeps_dead {
            let letter = DeadLetter {
                message,
                consumer: &self.place.consumer,
                stream,
                sequence,
                attempts: head.attempt,
                trigger: &self.text,
                reason,
                calls,
                node: &self.identity.xkey,
            };
            if let Err(why) = self.jetstream.bury(&self.spec, &letter).await {
                let error = format!(
                    "message {sequence} of {stream} is {what}; it cannot be kept as a dead letter, and is tried again: {why}"
                );
                self.entry.error(&error);
                self.reporter.failed(&self.text, 1, [error.as_str()]);
                return Next::again(UNBURIED);
            }
            what = format!("{what}; it is kept as a dead letter");
        }
        let error = format!("message {sequence} of {stream} is {what}");
        self.entry.dead(&error);
        self.reporter.failed(&self.text, 1, [error.as_str()]);
        self.acknowledge(message, AckKind::Term).await;
        Next::Over
    }

    /// Says what became of a message. Where that is not heard, it is delivered once more.
    async fn acknowledge(&self, message: &jetstream::Message, kind: AckKind) {
        if let Err(error) = message.ack_with(kind).await {
            tracing::debug!(trigger = %self.text, %error, "what became of a message was not sent");
        }
    }

    /// Waits for something, and says meanwhile that the message is in hand.
    async fn keeping<T>(&self, message: &jetstream::Message, work: impl Future<Output = T>) -> T {
        let every = in_progress_every(self.trigger.delivery.ack_wait);
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => self.acknowledge(message, AckKind::Progress).await,
            }
        }
    }

    /// The same, until it is told to stop.
    async fn keeping_unless_stopped<T>(&self, message: &jetstream::Message, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            done = self.keeping(message, work) => Some(done),
        }
    }

    /// A stream may have got other subjects since it was looked at, or have messages of other streams.
    fn is_reserved(&self, message: &jetstream::Message) -> bool {
        let is_plain = matches!(&self.trigger.source, Source::Stream { filter, .. } if filter.as_ref().is_none_or(|it| !it.starts_with('$')));
        is_plain && nex_protocol::subject::reaches_reserved(&message.subject) && !message.subject.starts_with("$NEX.dead.")
    }
}

/// Headers of a message that is no message but says something of a request.
pub(super) fn missing(headers: Option<&HeaderMap>) -> Option<usize> {
    headers?.get("Nats-Pending-Messages")?.as_str().parse().ok()
}
