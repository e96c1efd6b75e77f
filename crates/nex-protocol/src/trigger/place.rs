//! Where a node finds the messages of a workload's durable trigger: a stream, some of its subjects, and a consumer.

use super::DurableTrigger;
use super::source::Source;
use crate::digest::Digest;
use crate::id::{Namespace, WorkloadName};
use crate::subject::{self, schedule_stream};

/// Where the messages of a workload's trigger are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The stream.
    pub stream: String,
    /// The subjects it reads of that; all if absent.
    pub filter: Option<String>,
    /// Its consumer: of the namespace, the workload's name and the source, so that all copies of a workload share it, the next version
    /// goes on where this one was, and no other namespace has one of that name.
    pub consumer: String,
}

impl DurableTrigger {
    /// Where the messages are, for a workload of this name.
    #[must_use]
    pub fn place(&self, namespace: &Namespace, name: &WorkloadName) -> Place {
        // Namespaces and names have no dots.
        let digest = Digest::of(format!("{namespace}.{name}.{}", self.source).as_bytes()).to_string();
        let short = digest.get(..12).unwrap_or_default();
        let consumer = format!("nex-{namespace}-{name}-{short}");
        let (stream, filter) = match &self.source {
            Source::Schedule(_) => (schedule_stream(namespace), Some(subject::fire(namespace, &consumer))),
            source => (source.stream().unwrap_or_default(), source.filter()),
        };
        Place { stream, filter, consumer }
    }
}

impl Source {
    /// The stream it reads, whoever reads it; a clock has one in each namespace.
    #[must_use]
    pub fn stream(&self) -> Option<String> {
        match self {
            Self::Stream { stream, .. } => Some(stream.clone()),
            Self::Kv { bucket, .. } => Some(format!("KV_{bucket}")),
            Self::Object { bucket } => Some(format!("OBJ_{bucket}")),
            Self::Schedule(_) => None,
        }
    }

    /// The subjects it reads of that; all if absent.
    #[must_use]
    pub fn filter(&self) -> Option<String> {
        match self {
            Self::Stream { filter, .. } => filter.clone(),
            Self::Kv { bucket, key } => Some(format!("$KV.{bucket}.{}", key.as_deref().unwrap_or(">"))),
            // Of an object, what is told of it; its bytes are in chunks that nobody wants to be called for.
            Self::Object { bucket } => Some(format!("$O.{bucket}.M.>")),
            Self::Schedule(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Trigger;
    use super::*;

    fn place(trigger: &str, namespace: &str, name: &str) -> Place {
        let Ok(Trigger::Durable(trigger)) = trigger.parse() else { panic!("{trigger}") };
        trigger.place(&namespace.parse().unwrap(), &name.parse().unwrap())
    }

    #[test]
    fn a_consumer_is_of_one_namespace_one_name_and_one_source() {
        let consumer = |trigger: &str, namespace: &str, name: &str| place(trigger, namespace, name).consumer;
        let one = "stream:A?filter=a.b";
        assert_eq!(consumer(one, "a", "b"), consumer("stream:A?filter=a.b&start=all&max-deliver=9", "a", "b"));
        assert_ne!(consumer(one, "a-b", "c"), consumer(one, "a", "b-c"));
        assert_ne!(consumer(one, "a", "b"), consumer("stream:A", "a", "b"));
        assert_ne!(consumer("every:1s", "a", "b"), consumer("every:2s", "a", "b"));
    }

    #[test]
    fn buckets_and_clocks_have_streams() {
        let kv = place("kv:SETTINGS?key=prices.>", "a", "b");
        assert_eq!((kv.stream.as_str(), kv.filter.as_deref()), ("KV_SETTINGS", Some("$KV.SETTINGS.prices.>")));
        let object = place("object:PHOTOS", "a", "b");
        assert_eq!((object.stream.as_str(), object.filter.as_deref()), ("OBJ_PHOTOS", Some("$O.PHOTOS.M.>")));
        let clock = place("every:1s", "a", "b");
        assert_eq!((clock.stream, clock.filter), ("NEX_SCHEDULES_a".to_owned(), Some(format!("$NEX.fire.a.{}", clock.consumer))));
    }
}
