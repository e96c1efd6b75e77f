//! What starts a function: a subject, a clock, or a stream whose messages are handed to it until it has dealt with them.
//!
//! A trigger is written as `KIND:WHAT?OPTION=VALUE&…`; [`Trigger`] reads it, and writes it with what is not the default only.
//!
//! | kind | example |
//! |---|---|
//! | `subject` | `subject:orders.*` |
//! | `stream` | `stream:ORDERS?filter=orders.new&start=all&order=subject&max-deliver=5` |
//! | `kv` | `kv:SETTINGS?key=prices.>&order=key` |
//! | `object` | `object:PHOTOS` |
//! | `http` | `http:POST /orders/{id}` |
//! | `every`, `cron`, `at` | `every:30s`, `cron:0 7 * * mon?tz=Europe/Berlin`, `at:2026-12-24T18:00:00Z` |
//!
//! What a namespace may use of these is the node's to say.

pub mod dead;
mod delivery;
mod error;
pub mod http;
mod options;
mod order;
mod place;
mod schedule;
mod source;

use std::fmt;
use std::str::FromStr;

pub use delivery::{Delivery, Start};
pub use error::TriggerError;
pub use http::HttpRoute;
pub use order::Order;
pub use place::Place;
pub use schedule::Schedule;
pub use source::{Source, is_bucket, is_stream};

use crate::subject::is_valid_pattern;
use options::Options;

/// Longest trigger, bytes.
pub const MAX_TRIGGER: usize = 1024;

/// What starts a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// Messages on a subject; delivered once, to whoever listens.
    Subject(String),
    /// HTTP requests; each is answered once.
    Http(HttpRoute),
    /// Messages of a stream; delivered until they are dealt with.
    Durable(DurableTrigger),
}

/// A trigger whose messages are kept until they are dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableTrigger {
    /// Where the messages are.
    pub source: Source,
    /// Where it begins, the first time.
    pub start: Start,
    /// Which of its messages are handled one after another.
    pub order: Order,
    /// How often, how long, and what becomes of what fails.
    pub delivery: Delivery,
}

impl FromStr for Trigger {
    type Err = TriggerError;
    fn from_str(text: &str) -> Result<Self, TriggerError> {
        let (kind, rest) = text.split_once(':').ok_or_else(|| TriggerError::kind(text))?;
        // The fields of cron are apart, and so is the method of a request.
        let is_wrong = |c: char| c.is_control() || c.is_whitespace() && !(c == ' ' && matches!(kind, "cron" | "http"));
        if text.len() > MAX_TRIGGER || text.chars().any(is_wrong) {
            return Err(TriggerError::Text);
        }
        if kind == "http" {
            return HttpRoute::parse(rest).map(Self::Http);
        }
        let (what, options) = match rest.split_once('?') {
            Some((what, options)) => (what, Options::parse(options)?),
            None => (rest, Options::default()),
        };
        if kind == "subject" {
            options.end()?;
            return match is_valid_pattern(what) {
                true => Ok(Self::Subject(what.to_owned())),
                false => Err(TriggerError::what("subject", what)),
            };
        }
        let mut options = options;
        let source = Source::parse(kind, what, &mut options)?;
        let start = match source {
            // There is nothing from before.
            Source::Schedule(_) => Start::All,
            Source::Stream { .. } | Source::Kv { .. } | Source::Object { .. } => Start::parse(&mut options)?,
        };
        let order = Order::parse(&source, &mut options)?;
        let delivery = Delivery::parse(&mut options)?;
        options.end()?;
        Ok(Self::Durable(DurableTrigger { source, start, order, delivery }))
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(subject) => write!(f, "subject:{subject}"),
            Self::Http(route) => route.fmt(f),
            Self::Durable(trigger) => trigger.fmt(f),
        }
    }
}

impl fmt::Display for DurableTrigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.to_string();
        let start = if matches!(self.source, Source::Schedule(_)) { None } else { self.start.options() };
        let options: Vec<String> =
            start.into_iter().chain(self.order.option(&self.source)).chain(self.delivery.options()).collect();
        f.write_str(&source)?;
        if options.is_empty() {
            return Ok(());
        }
        let separator = if source.contains('?') { '&' } else { '?' };
        write!(f, "{separator}{}", options.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn durable(text: &str) -> DurableTrigger {
        match text.parse() {
            Ok(Trigger::Durable(trigger)) => trigger,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn every_option_is_read_and_what_is_the_default_is_not_written() {
        let text =
            "stream:ORDERS?filter=orders.new&start=all&order=header:Customer&max-deliver=3&ack-wait=1m&backoff=50ms&dead=none";
        let trigger = durable(text);
        assert_eq!(trigger.order, Order::Header("Customer".into()));
        for text in
            ["stream:A?order=subject", "kv:A?order=key", "object:A?order=name", "stream:A?order=all", "every:1s?order=all"]
        {
            assert_eq!(durable(text).to_string(), text);
            assert_eq!(durable(text).order.is_keyed(), !text.ends_with("all"));
        }
        assert!(matches!(&trigger.source, Source::Stream { stream, .. } if stream == "ORDERS"));
        assert_eq!(trigger.start, Start::All);
        let delivery =
            Delivery { max_deliver: 3, ack_wait: Duration::from_secs(60), backoff: Duration::from_millis(50), keeps_dead: false };
        assert_eq!(trigger.delivery, delivery);
        assert_eq!(trigger.to_string(), text);
        assert_eq!(
            durable("stream:ORDERS?start=new&max-deliver=5&ack-wait=30s&backoff=1s&dead=keep").to_string(),
            "stream:ORDERS"
        );
        assert_eq!("subject:a.>".parse(), Ok(Trigger::Subject("a.>".into())));
        let kv = durable("kv:SETTINGS?key=prices.>");
        assert_eq!(kv.to_string(), "kv:SETTINGS?key=prices.>");
        let cron = durable("cron:0 7 * * mon?tz=Europe/Berlin&max-deliver=2");
        assert_eq!(cron.to_string(), "cron:0 7 * * mon?tz=Europe/Berlin&max-deliver=2");
        assert!(matches!(&cron.source, Source::Schedule(schedule) if schedule.zone() == Some("Europe/Berlin")));
        assert_eq!(durable("every:90s").to_string(), "every:90s");
        let object = durable("object:PHOTOS?start=2026-01-02T03:04:05Z");
        assert!(matches!(&object.start, Start::Time(time) if time.to_string() == "2026-01-02T03:04:05Z"));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write_instead() {
        for (text, expected) in [
            ("orders.new", "subject:orders.new"),
            ("strem:ORDERS", "'strem' is not a kind of trigger"),
            ("every:1ms", "every=1ms"),
            ("cron:0 7 * *", "five fields"),
            ("cron:0 7 * * mon?tz=+02:00", "tz=+02:00"),
            ("at:noon", "at=noon"),
            ("every:1s?start=all", "'start' is not an option"),
            ("stream:", "'' is not the name of a stream"),
            ("stream:a.b", "'a.b' is not the name of a stream"),
            ("stream:A?filter=a..b", "filter=a..b"),
            ("stream:A?filtre=a", "'filtre' is not an option"),
            ("stream:A?key=a", "'key' is not an option"),
            ("stream:A?start=soon", "start=soon"),
            ("stream:A?max-deliver=0", "max-deliver=0"),
            ("stream:A?ack-wait=1ms", "ack-wait=1ms"),
            ("stream:A?backoff=-1s", "backoff=-1s"),
            ("stream:A?dead=maybe", "dead=maybe"),
            ("stream:A?order=key", "order=key cannot be; next: give order subject, header:NAME or all"),
            ("kv:A?order=subject", "give order key, header:NAME or all"),
            ("stream:A?order=header:", "order=header:"),
            ("stream:A?order=header:a:b", "order=header:a:b"),
            ("every:1s?order=subject", "give order all"),
            ("stream:A?start=new&start=all", "'start' is given twice"),
            ("stream:A?start", "'start' has no value"),
            ("kv:a.b", "'a.b' is not the name of a bucket"),
            ("object:A?key=x", "'key' is not an option"),
            ("subject:a b", "without blanks"),
            ("subject:a?dead=none", "'dead' is not an option"),
        ] {
            let error = text.parse::<Trigger>().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("next: "), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(
            kind in "stream|kv|object|subject|every|at|cron", what in "[A-Z>a.]{1,4}|[1-9]s|[0-5] \\* \\* \\* [0-7]",
            options in proptest::collection::vec("(filter|key|start|order|max-deliver|ack-wait|backoff|dead)=(all|none|subject|key|name|header:[a-c]|[1-9]{1,3}(s|ms)?|a.>)", 0..4),
        ) {
            let text = format!("{kind}:{what}{}{}", if options.is_empty() { "" } else { "?" }, options.join("&"));
            if let Ok(trigger) = text.parse::<Trigger>() {
                prop_assert_eq!(trigger.to_string().parse::<Trigger>(), Ok(trigger));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            drop(text.parse::<Trigger>());
            drop(format!("stream:{text}").parse::<Trigger>());
            drop(format!("kv:A?{text}").parse::<Trigger>());
        }
    }
}
