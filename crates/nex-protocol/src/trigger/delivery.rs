//! How messages are delivered: from where, how often, and what becomes of those that fail.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::error::TriggerError;
use super::options::Options;

const MAX_DELIVER: u32 = 1_000;
const ACK_WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(3_600));
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3_600));

/// Where a trigger begins when there is no consumer of its name yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Start {
    /// With what comes from now on.
    #[default]
    New,
    /// With the first message there is.
    All,
    /// With the first message of that time.
    Time(Timestamp),
}

impl Start {
    pub(super) fn parse(options: &mut Options<'_>) -> Result<Self, TriggerError> {
        let read = |text: &str| match text {
            "new" => Some(Self::New),
            "all" => Some(Self::All),
            time => time.parse().ok().map(Self::Time),
        };
        let expected = "new, all, or a time such as 2026-01-31T12:00:00Z";
        Ok(options.read("start", expected, read)?.unwrap_or_default())
    }

    pub(super) fn options(&self) -> Option<String> {
        match self {
            Self::New => None,
            Self::All => Some("start=all".to_owned()),
            Self::Time(time) => Some(format!("start={time}")),
        }
    }
}

/// How often a message is delivered, how long it may take, and what becomes of it when all failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Deliveries of one message, the first among them.
    pub max_deliver: u32,
    /// Time in which a node has to be heard of before a message is delivered again.
    pub ack_wait: Duration,
    /// Pause after the first failed call; it doubles with each.
    pub backoff: Duration,
    /// Whether what failed for good is kept as a dead letter.
    pub keeps_dead: bool,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { max_deliver: 5, ack_wait: Duration::from_secs(30), backoff: Duration::from_secs(1), keeps_dead: true }
    }
}

impl Delivery {
    pub(super) fn parse(options: &mut Options<'_>) -> Result<Self, TriggerError> {
        let usual = Self::default();
        let count = |text: &str| text.parse().ok().filter(|count| (1..=MAX_DELIVER).contains(count));
        let keeps = |text: &str| match text {
            "keep" => Some(true),
            "none" => Some(false),
            _ => None,
        };
        Ok(Self {
            max_deliver: options.read("max-deliver", "a number from 1 to 1000", count)?.unwrap_or(usual.max_deliver),
            ack_wait: options
                .read("ack-wait", "a time from 250ms to 1h", |text| within(text, ACK_WAIT))?
                .unwrap_or(usual.ack_wait),
            backoff: options.read("backoff", "a time from 10ms to 1h", |text| within(text, BACKOFF))?.unwrap_or(usual.backoff),
            keeps_dead: options.read("dead", "keep or none", keeps)?.unwrap_or(usual.keeps_dead),
        })
    }

    pub(super) fn options(&self) -> Vec<String> {
        let usual = Self::default();
        let time = |option: &str, time: Duration, usual: Duration| {
            let span = SignedDuration::try_from(time).unwrap_or_default();
            (time != usual).then(|| format!("{option}={}", format!("{span:#}").replace(' ', "")))
        };
        let options = [
            (self.max_deliver != usual.max_deliver).then(|| format!("max-deliver={}", self.max_deliver)),
            time("ack-wait", self.ack_wait, usual.ack_wait),
            time("backoff", self.backoff, usual.backoff),
            (self.keeps_dead != usual.keeps_dead).then(|| "dead=none".to_owned()),
        ];
        options.into_iter().flatten().collect()
    }
}

fn within(text: &str, (least, most): (Duration, Duration)) -> Option<Duration> {
    let time = text.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok())?;
    (least..=most).contains(&time).then_some(time)
}
