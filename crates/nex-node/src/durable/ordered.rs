//! Triggers whose messages are handled one after another within a key.
//!
//! All copies share one consumer, as ever, and its server gives the messages to one of them at a time (priority groups with the policy
//! `pinned_client`): order has to be kept within one copy, by [`KeyQueues`](super::key_queues::KeyQueues). Another copy takes over when that
//! one asks for nothing any more. The pin is no promise: whoever unpins a copy, reads messages of the consumer or loses some leaves a gap in
//! the numbers of its deliveries, and then this asks the consumer and the stream what may be in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::datetime::DateTime;
use async_nats::header::NATS_PIN_ID;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use async_nats::jetstream::{self, ErrorCode, consumer};
use async_nats::{HeaderMap, Message};
use nex_protocol::digest::Digest;
use nex_protocol::trigger::{Order, Place};
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::TriggerFailure;
use super::jetstream::{Answer, JetStream};
use super::key_queues::{Arrival, Key};
use super::turns::Turns;

/// The one priority group of a consumer.
pub(super) const GROUP: &str = "nex";

/// Least number of messages that a copy holds in hand, and how many for each call that it may have under way: among them it looks for keys
/// that nothing is under way of.
const MIN_HAND: usize = 64;
const HAND: usize = 4;
/// Longest time without a request for messages after which another copy takes over.
const MAX_PIN: Duration = Duration::from_secs(60);
/// Requests for messages in that time.
const REQUESTS_PER_PIN: u32 = 3;
/// Messages looked at in one go.
const READ: usize = 100;
/// Longest key that is kept as it is.
const MAX_KEY: usize = 256;

/// What a copy knows of its ordered trigger.
#[derive(Debug)]
pub(super) struct Ordered {
    pub(super) turns: Arc<Turns>,
    /// When the stream was made: another one of that name has other messages.
    stream: DateTime,
    /// What it has to say to be given messages, while it is the one.
    pub(super) pin: Option<String>,
    /// When the stream was asked last what may have been delivered to others.
    pub(super) recovered: Instant,
}

impl Ordered {
    /// Begins, or goes on with what is in hand.
    pub(super) fn begin(hand: &mut Option<Self>, stream: DateTime) {
        match hand {
            Some(ordered) if ordered.stream == stream => ordered.turns.interrupted(),
            // What is left in hand of another stream of that name has nothing to do with this one.
            other => other.replace(Self::new(stream)).into_iter().for_each(|before| before.turns.abandon()),
        }
    }

    fn new(stream: DateTime) -> Self {
        Self { turns: Arc::default(), stream, pin: None, recovered: Instant::now() }
    }

    /// What to ask the server for, for so many nanoseconds.
    pub(super) fn request(&self, count: usize, expires: u64) -> Value {
        match &self.pin {
            None => json!({"batch": count, "expires": expires, "group": GROUP}),
            Some(pin) => json!({"batch": count, "expires": expires, "group": GROUP, "id": pin}),
        }
    }

    /// Takes note of the pin of a message, and takes it off.
    pub(super) fn unpack(&mut self, message: &mut Message) {
        let Some(headers) = message.headers.take() else { return };
        // Somebody may have published one with such a header. The server's comes last.
        self.pin = headers.get_last(NATS_PIN_ID).map(|pin| pin.as_str().to_owned()).or(self.pin.take());
        let mut rest = HeaderMap::new();
        for (name, values) in headers.iter().filter(|(name, _)| **name != NATS_PIN_ID) {
            values.iter().for_each(|value| rest.append(name.clone(), value.clone()));
        }
        message.headers = (!rest.is_empty()).then_some(rest);
    }
}

/// How many messages a copy has in hand at most.
pub(super) fn hand(concurrency: usize) -> usize {
    concurrency.saturating_mul(HAND).max(MIN_HAND)
}

/// How long a server waits for the next request for messages before it gives them to another copy.
pub(super) fn pin_for(ack_wait: Duration) -> Duration {
    ack_wait.min(MAX_PIN)
}

/// How long a request for messages stands.
pub(super) fn request_for(ack_wait: Duration) -> Duration {
    pin_for(ack_wait) / REQUESTS_PER_PIN
}

/// What a message is told apart by.
pub(super) fn key(order: &Order, subject: &str, headers: Option<&HeaderMap>) -> Key {
    let text = match order {
        Order::Any | Order::All => None,
        Order::Subject => Some(subject),
        Order::Header(name) => headers.and_then(|headers| headers.get(name.as_str())).map(async_nats::HeaderValue::as_str),
    };
    text.map(|text| if text.len() > MAX_KEY { Digest::of(text.as_bytes()).to_string().into() } else { text.into() })
}

/// A message that came; nothing where it is none of a stream.
pub(super) fn arrival(order: &Order, message: &jetstream::Message) -> Option<Arrival> {
    let info = message.info().ok()?;
    Some(Arrival {
        sequence: info.stream_sequence,
        delivery: info.consumer_sequence,
        is_new: info.delivered <= 1,
        key: key(order, &message.subject, message.headers.as_ref()),
    })
}

impl JetStream {
    /// Looks at some of the messages that may have been delivered to somebody else.
    pub(super) async fn recover(&self, place: &Place, order: &Order, turns: &Turns) -> Result<(), TriggerFailure> {
        let info = self.consumer_info(&place.stream, &place.consumer).await?.ok_or(TriggerFailure::Gone)?;
        turns.at_floor(info.ack_floor.stream_sequence);
        let Some(unknown) = turns.unknown(info.delivered.stream_sequence) else { return Ok(()) };
        let mut from = unknown.from;
        for _ in 0..READ {
            if from > unknown.until {
                break;
            }
            match self.stored(place, from).await? {
                Some(message) if message.sequence <= unknown.until => {
                    turns.found(message.sequence, &key(order, &message.subject, Some(&message.headers)));
                    from = message.sequence.saturating_add(1);
                }
                _ => from = unknown.until.saturating_add(1),
            }
        }
        turns.read(unknown, from.saturating_sub(1).max(unknown.from.saturating_sub(1)));
        Ok(())
    }

    /// The consumer was looked at, when all was as these moves have made it.
    ///
    /// What is missing may be dealt with above the consumer's floor, which stays where the first message is that is not. It is, where no
    /// more are under way than are in hand here: those that were delivered once, which nobody else has had, and those that were delivered
    /// again. Of the latter somebody who was cut off may have dealt with some, so their number has to be the same, unless it has been for
    /// long.
    pub(super) async fn settle(
        &self,
        place: &Place,
        ordered: &Ordered,
        (info, moves): (&consumer::Info, u64),
        patience: Duration,
    ) -> Result<(), TriggerFailure> {
        let turns = &ordered.turns;
        turns.at_floor(info.ack_floor.stream_sequence);
        let hand = turns.hand();
        if !turns.is_missing_some() || info.num_ack_pending > hand.len() {
            return Ok(());
        }
        let (mut count, mut repeated) = (0, 0);
        for (sequence, is_repeated) in hand {
            // What is deleted is not counted by the server.
            if self.stored(place, sequence).await?.is_some_and(|found| found.sequence == sequence) {
                (count, repeated) = (count + 1, repeated + usize::from(is_repeated));
            }
        }
        let is_same = info.num_redelivered == repeated || ordered.recovered.elapsed() > patience;
        if info.num_ack_pending <= count && is_same && !turns.has_gap() {
            turns.forget_missing(moves);
        }
        Ok(())
    }

    /// The next message that a stream keeps for a consumer.
    async fn stored(&self, place: &Place, from: u64) -> Result<Option<StreamMessage>, TriggerFailure> {
        #[derive(Deserialize)]
        struct Stored {
            message: RawMessage,
        }
        let what = "a question about a message";
        let asked = json!({"seq": from, "next_by_subj": place.filter.as_deref().unwrap_or(">")});
        let stored: Stored = match self.ask(what, format!("STREAM.MSG.GET.{}", place.stream), &asked).await? {
            Answer::No(error) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => return Ok(None),
            answer => answer.granted(what)?,
        };
        let unread = |error: async_nats::Error| TriggerFailure::Unheard { what, why: error.to_string() };
        stored.message.try_into().map(Some).map_err(unread)
    }

    /// Has the server give the messages to another copy.
    pub(super) async fn unpin(&self, place: &Place) -> Result<(), TriggerFailure> {
        let (what, subject) = ("to let another copy go on", format!("CONSUMER.UNPIN.{}.{}", place.stream, place.consumer));
        self.ask::<Value>(what, subject, &json!({"group": GROUP})).await?.granted(what).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_subject_or_the_value_of_a_header_or_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert("Customer", "c7");
        headers.insert("Long", "x".repeat(5_000).as_str());
        let key = |order: Order| key(&order, "orders.new", Some(&headers));
        assert_eq!(key(Order::Subject).as_deref(), Some("orders.new"));
        assert_eq!(key(Order::Header("Customer".into())).as_deref(), Some("c7"));
        assert_eq!(key(Order::Header("None".into())), None);
        assert_eq!(key(Order::Header("Long".into())).map(|key| key.len()), Some(64));
    }

    #[test]
    fn the_pin_of_a_message_is_its_servers_and_nobody_else_sees_it() {
        let mut ordered = Ordered::new(DateTime::UNIX_EPOCH);
        let mut headers = HeaderMap::new();
        for (name, value) in [("Nats-Pin-Id", "forged"), ("Customer", "c7"), ("Nats-Pin-Id", "pin")] {
            headers.append(name, value);
        }
        let mut message = Message {
            subject: "a".into(),
            reply: None,
            payload: bytes::Bytes::new(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        };
        ordered.unpack(&mut message);
        assert_eq!(ordered.pin.as_deref(), Some("pin"));
        let headers = message.headers.unwrap();
        assert!(headers.len() == 1 && headers.get("Customer").is_some(), "{headers:?}");
    }
}
