//! The consumer of a durable trigger: found or made, and deleted with its workload.
//!
//! It knows how far the trigger is, so it outlives nodes. How often a message is delivered is counted by the node and not bounded here:
//! what a node dies of is delivered once more, and becomes a dead letter instead of nothing.

use std::time::Duration;

use async_nats::datetime::{DateTime, from_nanos};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, IntoConsumerConfig as _, PriorityPolicy, pull};
use async_nats::jetstream::stream::{self, RetentionPolicy};
use nex_protocol::subject;
use nex_protocol::trigger::{DurableTrigger, Order, Place, Source, Start};
use serde::Deserialize;
use serde_json::json;

use super::failure::TriggerFailure;
use super::jetstream::{Answer, JetStream};
use super::ordered;

/// Most messages that are delivered and not dealt with, on all nodes together, those that wait for their next attempt among them.
const MAX_ACK_PENDING: i64 = 10_000;

/// Which consumer is wanted.
pub(super) struct Wanted<'a> {
    pub(super) trigger: &'a DurableTrigger,
    /// Where its messages are.
    pub(super) place: &'a Place,
    /// Subjects that are nobody's triggers.
    pub(super) denied: &'a [String],
    /// How far it was when it was last seen.
    pub(super) seen: Option<&'a Seen>,
    /// Calls that a copy may have under way.
    pub(super) concurrency: usize,
}

/// What may be changed of a consumer, and is what its trigger says.
struct Settings {
    ack_wait: Duration,
    max_ack_pending: i64,
    priority_policy: PriorityPolicy,
    priority_groups: Vec<String>,
    priority_timeout: Duration,
}

impl Wanted<'_> {
    fn settings(&self) -> Settings {
        let DurableTrigger { order, delivery, .. } = self.trigger;
        let unordered = Settings {
            ack_wait: delivery.ack_wait,
            max_ack_pending: MAX_ACK_PENDING,
            priority_policy: PriorityPolicy::None,
            priority_groups: Vec::new(),
            priority_timeout: Duration::ZERO,
        };
        match order {
            Order::Any => unordered,
            // The next one is delivered when this one is dealt with, whoever has it.
            Order::All => Settings { max_ack_pending: 1, ..unordered },
            Order::Subject | Order::Header(_) => Settings {
                max_ack_pending: i64::try_from(ordered::hand(self.concurrency)).unwrap_or(MAX_ACK_PENDING),
                priority_policy: PriorityPolicy::PinnedClient,
                priority_groups: vec![ordered::GROUP.to_owned()],
                priority_timeout: ordered::pin_for(delivery.ack_wait),
                ..unordered
            },
        }
    }
}

impl Settings {
    fn are_those_of(&self, config: &consumer::Config) -> bool {
        self.ack_wait == config.ack_wait
            && self.max_ack_pending == config.max_ack_pending
            && self.priority_policy == config.priority_policy
            && self.priority_groups == config.priority_groups
            && self.priority_timeout == config.priority_timeout
    }
}

/// How far a consumer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// When its stream was made: another one of that name begins anew.
    pub(super) stream: DateTime,
    /// All up to this one were dealt with.
    pub(super) floor: u64,
}

/// A consumer that is there.
pub(super) struct Bound {
    pub(super) info: consumer::Info,
    pub(super) seen: Seen,
    /// Copies that its stream keeps of each message.
    pub(super) replicas: usize,
    /// Whether it was made just now.
    pub(super) is_new: bool,
}

impl JetStream {
    /// Finds the consumer, or makes it.
    pub(super) async fn bind(&self, wanted: &Wanted<'_>) -> Result<Bound, TriggerFailure> {
        let Place { stream, consumer, .. } = wanted.place;
        let what = "a question about a stream";
        let found: stream::Info = match self.ask(what, format!("STREAM.INFO.{stream}"), &json!({})).await? {
            Answer::No(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                return Err(TriggerFailure::NoStream(stream.clone()));
            }
            answer => answer.granted(what)?,
        };
        check_subjects(wanted, &found.config)?;
        let (info, is_new) = match self.consumer_info(stream, consumer).await? {
            Some(info) => (self.adjust(wanted, info).await?, false),
            None => (self.create(wanted, &found).await?, true),
        };
        // A server leaves out what it does not know.
        if info.config.priority_policy != wanted.settings().priority_policy {
            if is_new {
                self.delete_unread(stream, consumer).await?;
            }
            return Err(TriggerFailure::NoOrder);
        }
        let seen = Seen { stream: found.created, floor: info.ack_floor.stream_sequence };
        Ok(Bound { info, seen, replicas: found.config.num_replicas, is_new })
    }

    /// A consumer as it is now, if it is there.
    pub(super) async fn consumer_info(&self, stream: &str, name: &str) -> Result<Option<consumer::Info>, TriggerFailure> {
        let what = "a question about a consumer";
        match self.ask(what, format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await? {
            Answer::No(error) if [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND].contains(&error.error_code()) => {
                Ok(None)
            }
            answer => answer.granted(what).map(Some),
        }
    }

    /// Deletes a consumer that nobody reads any more. Says whether it is gone.
    pub(super) async fn delete_unread(&self, stream: &str, name: &str) -> Result<bool, TriggerFailure> {
        #[derive(Deserialize)]
        struct Deleted {
            #[expect(dead_code, reason = "an answer without it is none")]
            success: bool,
        }
        match self.consumer_info(stream, name).await? {
            None => return Ok(true),
            // Copies on other nodes.
            Some(info) if info.num_waiting > 0 => return Ok(false),
            Some(_) => {}
        }
        let what = "to delete a consumer";
        match self.ask::<Deleted>(what, format!("CONSUMER.DELETE.{stream}.{name}"), &json!({})).await? {
            Answer::No(error) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND => Ok(true),
            answer => answer.granted(what).map(|_deleted| true),
        }
    }

    /// The trigger may be another version's, with other times.
    async fn adjust(&self, wanted: &Wanted<'_>, info: consumer::Info) -> Result<consumer::Info, TriggerFailure> {
        let is_ours = info.config.deliver_subject.is_none()
            && info.config.ack_policy == AckPolicy::Explicit
            && Some(&info.config.filter_subject).filter(|filter| !filter.is_empty()) == wanted.place.filter.as_ref();
        if !is_ours {
            return Err(TriggerFailure::Foreign { stream: wanted.place.stream.clone(), consumer: wanted.place.consumer.clone() });
        }
        let settings = wanted.settings();
        if settings.are_those_of(&info.config) {
            return Ok(info);
        }
        let Settings { ack_wait, max_ack_pending, priority_policy, priority_groups, priority_timeout } = settings;
        let config =
            consumer::Config { ack_wait, max_ack_pending, priority_policy, priority_groups, priority_timeout, ..info.config };
        self.put(&wanted.place.stream, &config, "update", "to change a consumer").await
    }

    async fn create(&self, wanted: &Wanted<'_>, found: &stream::Info) -> Result<consumer::Info, TriggerFailure> {
        let Place { stream, filter, consumer } = wanted.place;
        let settings = wanted.settings();
        let config = pull::Config {
            durable_name: Some(consumer.clone()),
            name: Some(consumer.clone()),
            description: Some(format!("nex trigger {}", wanted.trigger.source)).filter(|text| text.len() <= 1_024),
            deliver_policy: deliver_policy(wanted, found),
            ack_policy: AckPolicy::Explicit,
            ack_wait: settings.ack_wait,
            max_deliver: -1,
            max_ack_pending: settings.max_ack_pending,
            priority_policy: settings.priority_policy,
            priority_groups: settings.priority_groups,
            priority_timeout: settings.priority_timeout,
            filter_subject: filter.clone().unwrap_or_default(),
            ..pull::Config::default()
        };
        let made = self.put(stream, &config.into_consumer_config(), "create", "a consumer").await;
        // Another node may have been first, at another moment.
        match made {
            Err(TriggerFailure::Refused { .. }) => match self.consumer_info(stream, consumer).await? {
                Some(info) => Ok(info),
                None => made,
            },
            made => made,
        }
    }

    async fn put(
        &self,
        stream: &str,
        config: &consumer::Config,
        action: &str,
        what: &'static str,
    ) -> Result<consumer::Info, TriggerFailure> {
        let name = config.name.as_deref().unwrap_or_default();
        let subject = match config.filter_subject.as_str() {
            "" => format!("CONSUMER.CREATE.{stream}.{name}"),
            filter => format!("CONSUMER.CREATE.{stream}.{name}.{filter}"),
        };
        let body = json!({"stream_name": stream, "config": config, "action": action});
        self.ask(what, subject, &body).await?.granted(what)
    }
}

fn deliver_policy(wanted: &Wanted<'_>, found: &stream::Info) -> DeliverPolicy {
    // What is in a work queue is there to be taken.
    if found.config.retention == RetentionPolicy::WorkQueue {
        return DeliverPolicy::All;
    }
    match wanted.seen {
        Some(seen) if seen.stream == found.created => {
            DeliverPolicy::ByStartSequence { start_sequence: seen.floor.saturating_add(1) }
        }
        // It is a new one, and all that is in it came after it was made.
        Some(_) => DeliverPolicy::All,
        None => match &wanted.trigger.start {
            Start::New => DeliverPolicy::New,
            Start::All => DeliverPolicy::All,
            Start::Time(time) => from_nanos(time.as_nanosecond())
                .map_or(DeliverPolicy::All, |start_time| DeliverPolicy::ByStartTime { start_time }),
        },
    }
}

/// A stream may keep what functions must not hear. The streams of buckets and of dead letters are what they are named.
fn check_subjects(wanted: &Wanted<'_>, config: &stream::Config) -> Result<(), TriggerFailure> {
    let Source::Stream { stream, filter } = &wanted.trigger.source else { return Ok(()) };
    if stream.starts_with(subject::DEAD_LETTER_STREAMS) {
        return Ok(());
    }
    let read = config.subjects.iter().filter(|has| filter.as_ref().is_none_or(|filter| subject::overlap(filter, has)));
    for has in read {
        // A filter was checked by itself.
        let is_denied = || filter.is_none() && wanted.denied.iter().any(|no| subject::overlap(no, has));
        if (subject::reaches_reserved(has) && filter.is_none()) || is_denied() {
            return Err(TriggerFailure::Reserved { stream: stream.clone(), subject: has.clone() });
        }
    }
    Ok(())
}

/// Time that a server lets pass before it delivers a message again, cut in three: a node that is heard of so often keeps it.
pub(super) fn in_progress_every(ack_wait: Duration) -> Duration {
    ack_wait / 3
}
