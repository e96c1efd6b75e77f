//! Schedules are kept by the NATS server (message schedules, 2.14): one message in a stream of the namespace says when, and the server puts
//! one into the same stream each time that comes. All copies read those by one consumer, so each time is one call, whoever lives.

use async_nats::HeaderMap;
use async_nats::header::{
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM, NATS_SCHEDULE, NATS_SCHEDULE_NEXT, NATS_SCHEDULE_TARGET,
    NATS_SCHEDULE_TIME_ZONE, NATS_SCHEDULE_TTL,
};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::{ErrorCode, stream};
use jiff::Timestamp;
use nex_protocol::id::Namespace;
use nex_protocol::subject;
use nex_protocol::trigger::{Place, Schedule, Source};
use serde::Deserialize;
use serde_json::json;

use super::failure::TriggerFailure;
use super::jetstream::{Answer, JetStream};
use super::stuck::{Point, is_stuck};
use crate::workload::spec::WorkloadSpec;

/// How long a time that came is kept for somebody to be called: what nobody took by then is skipped.
const TTL: &str = "1h";
/// Most schedules of a namespace. It has to be said: a stream that says nothing, or that it has no bound, has that of the server, which is
/// 1,000 consumers from nats-server 2.15 on, and each schedule has one.
const MAX_SCHEDULES: i32 = 100_000;

/// Whether it never comes any more.
pub(super) fn is_over(schedule: &Schedule) -> bool {
    matches!(schedule, Schedule::At(time) if *time <= Timestamp::now())
}

impl JetStream {
    /// The stream of a namespace's schedules, made where it is not there; says what time it is at the server.
    pub(super) async fn keep_schedules(&self, namespace: &Namespace) -> Result<Option<Timestamp>, TriggerFailure> {
        let (name, what) = (subject::schedule_stream(namespace), "a stream for schedules");
        let found = match self.ask::<Found>(what, format!("STREAM.INFO.{name}"), &json!({})).await? {
            Answer::No(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                let config = stream::Config {
                    name: name.clone(),
                    description: Some(format!("schedules of functions in namespace {namespace}")),
                    subjects: vec![subject::schedule(namespace, "*"), subject::fire(namespace, "*")],
                    allow_message_schedules: true,
                    allow_message_ttl: true,
                    allow_direct: true,
                    max_consumers: MAX_SCHEDULES,
                    ..stream::Config::default()
                };
                match self.ask::<Found>(what, format!("STREAM.CREATE.{name}"), &config).await? {
                    // Another node was first.
                    Answer::No(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => return Ok(None),
                    answer => answer.granted(what)?,
                }
            }
            answer => answer.granted(what)?,
        };
        match found.config.allow_message_schedules {
            true => Ok(found.now),
            false => Err(TriggerFailure::NoSchedules(format!("the stream {name} cannot have them"))),
        }
    }

    /// Has the server keep a schedule, unless it does, and have it reckoned anew where it stands still. `now` is what the server said.
    pub(super) async fn schedule(
        &self,
        namespace: &Namespace,
        place: &Place,
        schedule: &Schedule,
        now: Option<Timestamp>,
    ) -> Result<(), TriggerFailure> {
        let subject = subject::schedule(namespace, &place.consumer);
        let kept = self.last(&place.stream, &subject).await?;
        let headers = headers(namespace, place, schedule);
        let is_same = |kept: &HeaderMap, name: &str| kept.get(name) == headers.get(name);
        let names = [NATS_SCHEDULE, NATS_SCHEDULE_TARGET, NATS_SCHEDULE_TIME_ZONE];
        let is_kept = kept.as_ref().is_some_and(|kept| names.iter().all(|name| is_same(&kept.headers, name.as_ref())));
        match (&kept, now) {
            (Some(kept), Some(now)) if is_kept => {
                let came = self.last(&place.stream, &subject::fire(namespace, &place.consumer)).await?;
                if !is_stuck(schedule, point(kept), came.as_ref().map(point), now) {
                    return Ok(());
                }
                tracing::info!(%schedule, "the NATS server's clock was set, and a schedule with it");
            }
            _ if is_kept || is_over(schedule) => return Ok(()),
            _ => {}
        }
        let last = kept.map_or(0, |kept| kept.sequence);
        let mut guarded = headers.clone();
        // Of two nodes that do this at once, one does.
        guarded.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string());
        guarded.insert(NATS_EXPECTED_STREAM, place.stream.as_str());
        let what = "a schedule";
        let sent = self.context.publish_with_headers(subject, guarded, "".into()).await;
        let kept = match sent {
            Ok(sent) => sent.await.map(drop),
            Err(error) => Err(error),
        };
        match kept {
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(()),
            Err(error) => {
                let why = nex_protocol::envelope::chain(&error);
                Err(match why.contains("schedule") && why.contains("pattern") {
                    true => TriggerFailure::NoSchedules(why),
                    false => TriggerFailure::Refused { what, why },
                })
            }
            Ok(()) => Ok(()),
        }
    }

    /// The last message of a subject.
    async fn last(&self, stream: &str, subject: &str) -> Result<Option<StreamMessage>, TriggerFailure> {
        let handle = self.context.get_stream_no_info(stream).await;
        let unheard = |error: String| TriggerFailure::Unheard { what: "a question about a schedule", why: error };
        let handle = handle.map_err(|error| unheard(error.to_string()))?;
        match handle.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == stream::LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unheard(nex_protocol::envelope::chain(&error))),
        }
    }

    /// Deletes the consumer of a trigger that nobody reads any more, and with it its schedule.
    pub(super) async fn retire(&self, spec: &WorkloadSpec, place: &Place) -> Result<(), TriggerFailure> {
        let is_gone = self.delete_unread(&place.stream, &place.consumer).await?;
        let is_schedule = spec
            .durable
            .iter()
            .any(|trigger| matches!(trigger.source, Source::Schedule(_)) && trigger.place(&spec.namespace, &spec.name) == *place);
        if !is_gone || !is_schedule {
            return Ok(());
        }
        let what = "to remove a schedule";
        for subject in [subject::schedule(&spec.namespace, &place.consumer), subject::fire(&spec.namespace, &place.consumer)] {
            let purge = format!("STREAM.PURGE.{}", place.stream);
            self.ask::<serde_json::Value>(what, purge, &json!({"filter": subject})).await?.granted(what)?;
        }
        Ok(())
    }
}

/// What is asked of a stream's info.
#[derive(Deserialize)]
struct Found {
    config: stream::Config,
    /// The server's clock.
    #[serde(rename = "ts", default)]
    now: Option<Timestamp>,
}

fn point(message: &StreamMessage) -> Point {
    Point {
        sequence: message.sequence,
        time: Timestamp::from_nanosecond(message.time.unix_timestamp_nanos()).unwrap_or_default(),
        next: message.headers.get(NATS_SCHEDULE_NEXT).and_then(|next| next.as_str().parse().ok()),
    }
}

fn headers(namespace: &Namespace, place: &Place, schedule: &Schedule) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_SCHEDULE, schedule.to_nats());
    headers.insert(NATS_SCHEDULE_TARGET, subject::fire(namespace, &place.consumer));
    headers.insert(NATS_SCHEDULE_TTL, TTL);
    if let Some(zone) = schedule.zone() {
        headers.insert(NATS_SCHEDULE_TIME_ZONE, zone);
    }
    headers
}
