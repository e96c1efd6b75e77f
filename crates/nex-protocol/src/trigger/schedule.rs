//! When a schedule calls: every so often, by a five-field cron expression, or once.
//!
//! What is read here is what a NATS server (2.14 or newer) keeps as a message schedule: cron gets its seconds there, names of months and
//! days become numbers, and Sunday is 0.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::error::TriggerError;
use super::options::Options;

/// Shortest and longest time between two calls.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(366 * 24 * 3_600));
/// Longest name of a time zone.
const MAX_ZONE: usize = 64;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When a schedule calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Every so often, whole seconds.
    Every(Duration),
    /// By a cron expression.
    Cron {
        /// Five fields: minute, hour, day of the month, month, day of the week.
        expression: String,
        /// Name of a time zone, such as `Europe/Berlin`; UTC if absent.
        zone: Option<String>,
    },
    /// Once.
    At(Timestamp),
}

impl Schedule {
    /// The schedule of this kind, if it is a kind of schedule.
    pub(super) fn parse(kind: &str, what: &str, options: &mut Options<'_>) -> Option<Result<Self, TriggerError>> {
        Some(match kind {
            "every" => every(what),
            "cron" => cron(what, options),
            "at" => at(what),
            _ => return None,
        })
    }

    /// As a NATS server reads it.
    #[must_use]
    pub fn to_nats(&self) -> String {
        match self {
            Self::Every(time) => format!("@every {}s", time.as_secs()),
            // It was read when it was made.
            Self::Cron { expression, .. } => format!("0 {}", fields(expression).unwrap_or_default().join(" ")),
            Self::At(time) => format!("@at {time}"),
        }
    }

    /// The time zone it means, if one was named.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        match self {
            Self::Cron { zone, .. } => zone.as_deref(),
            Self::Every(_) | Self::At(_) => None,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(time) => write!(f, "every:{}s", time.as_secs()),
            Self::Cron { expression, zone: None } => write!(f, "cron:{expression}"),
            Self::Cron { expression, zone: Some(zone) } => write!(f, "cron:{expression}?tz={zone}"),
            Self::At(time) => write!(f, "at:{time}"),
        }
    }
}

fn every(what: &str) -> Result<Schedule, TriggerError> {
    let time = what.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    match time.filter(|time| (EVERY.0..=EVERY.1).contains(time) && time.subsec_nanos() == 0) {
        Some(time) => Ok(Schedule::Every(time)),
        None => Err(TriggerError::value("every", what, "whole seconds, from 1s to 366 days, such as 30s or 1h30m")),
    }
}

fn at(what: &str) -> Result<Schedule, TriggerError> {
    let expected = "a time such as 2026-12-24T18:00:00Z or 2026-12-24T18:00:00+01:00";
    what.parse().map(Schedule::At).map_err(|_no_time| TriggerError::value("at", what, expected))
}

fn cron(what: &str, options: &mut Options<'_>) -> Result<Schedule, TriggerError> {
    let is_zone = |text: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-+".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        (begins && text.len() <= MAX_ZONE && text.bytes().all(is_plain)).then(|| text.to_owned())
    };
    let zone = options.read("tz", "the name of a time zone, such as Europe/Berlin", is_zone)?;
    let expected = "five fields: minute (0-59), hour (0-23), day of the month (1-31), month (1-12 or jan-dec), day of the week \
                    (0-7 or sun-sat); each *, a number, a range a-b, a list a,b, or one of these with a step /n";
    let read = fields(what).ok_or_else(|| TriggerError::value("cron", what, expected))?;
    match (read.get(2).map(String::as_str), read.get(3).map(String::as_str)) {
        (Some("30" | "31" | "30,31"), Some("2")) | (Some("31"), Some("4" | "6" | "9" | "11")) => {
            Err(TriggerError::value("cron", what, "a day that its month has; this one never comes"))
        }
        _ => {
            let expression = what.split_whitespace().collect::<Vec<_>>().join(" ");
            Ok(Schedule::Cron { expression, zone })
        }
    }
}

/// The five fields, with numbers for names.
fn fields(text: &str) -> Option<Vec<String>> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else { return None };
    let named = |names: &'static [&str], first: u32| {
        move |text: &str| {
            let found = names.iter().position(|name| name.eq_ignore_ascii_case(text));
            found.and_then(|at| u32::try_from(at).ok()).map(|at| at + first).or_else(|| plain(text))
        }
    };
    Some(vec![
        field(minute, (0, 59), plain)?,
        field(hour, (0, 23), plain)?,
        field(day, (1, 31), plain)?,
        field(month, (1, 12), named(&MONTHS, 1))?,
        weekdays(&field(weekday, (0, 7), named(&DAYS, 0))?)?,
    ])
}

/// A number of at most two digits.
fn plain(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn field(text: &str, (least, most): (u32, u32), number: impl Fn(&str) -> Option<u32>) -> Option<String> {
    let within = |text: &str| number(text).filter(|value| (least..=most).contains(value));
    let one = |part: &str| -> Option<String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(plain(step).filter(|step| (1..=most).contains(step))?)),
            None => (part, None),
        };
        let range = match range.split_once('-') {
            _ if range == "*" => "*".to_owned(),
            Some((from, to)) => {
                let (from, to) = (within(from)?, within(to)?);
                (from <= to).then(|| format!("{from}-{to}"))?
            }
            None => within(range)?.to_string(),
        };
        Some(match step {
            Some(step) => format!("{range}/{step}"),
            None => range,
        })
    };
    Some(text.split(',').map(one).collect::<Option<Vec<_>>>()?.join(","))
}

/// Sunday is 7 here and there, and 0 for a server: what has a 7 is written as a list.
fn weekdays(field: &str) -> Option<String> {
    if !field.contains('7') {
        return Some(field.to_owned());
    }
    let mut days = [false; 7];
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<usize>().ok()?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (from.parse::<usize>().ok()?, to.parse::<usize>().ok()?),
            None if range == "*" => (0, 6),
            None => (range.parse().ok()?, if part.contains('/') { 7 } else { range.parse().ok()? }),
        };
        for day in (from..=to).step_by(step.max(1)) {
            *days.get_mut(day % 7)? = true;
        }
    }
    let on = days.iter().enumerate().filter(|(_, on)| **on).map(|(day, _)| day.to_string());
    Some(on.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nats(expression: &str) -> Option<String> {
        cron(expression, &mut Options::default()).ok().map(|it| it.to_nats())
    }

    #[test]
    fn cron_is_written_as_servers_read_it() {
        for (written, expected) in [
            ("0 7 * * mon", "0 0 7 * * 1"),
            ("*/15 9-17 * * MON-FRI", "0 */15 9-17 * * 1-5"),
            ("0 0 1,15 jan-mar *", "0 0 0 1,15 1-3 *"),
            ("5  4 * *  7", "0 5 4 * * 0"),
            ("0 0 * * 5-7", "0 0 0 * * 0,5,6"),
            ("0 0 * * 1-7/2", "0 0 0 * * 0,1,3,5"),
            ("0-30/10 * * * sun", "0 0-30/10 * * * 0"),
        ] {
            assert_eq!(nats(written).as_deref(), Some(expected), "{written}");
        }
    }

    #[test]
    fn what_never_comes_or_says_nothing_is_no_schedule() {
        for wrong in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "1,, * * * *",
            "* * * * fri-mon",
            "@daily",
            "+1 * * * *",
            "0 0 30 2 *",
            "0 0 31 apr *",
            "-1 * * * *",
            "1- * * * *",
        ] {
            assert_eq!(nats(wrong), None, "{wrong}");
        }
        for wrong in ["0s", "1500ms", "1", "-5s", "9999h"] {
            assert!(every(wrong).is_err(), "{wrong}");
        }
        assert_eq!(every("1h30m").map(|it| it.to_nats()), Ok("@every 5400s".to_owned()));
        assert_eq!(at("2026-12-24T18:00:00+01:00").map(|it| it.to_nats()), Ok("@at 2026-12-24T17:00:00Z".to_owned()));
        assert!(at("tomorrow").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "[0-9*/,a-z -]{0,30}|\\PC*") {
            drop((nats(&text), every(&text), at(&text)));
        }

        /// Days of the week are the same days, however Sunday is written.
        #[test]
        fn sunday_is_seven_or_nought(from in 0_usize..8, length in 0_usize..8, step in 1_usize..4) {
            let to = (from + length).min(7);
            let expected: std::collections::BTreeSet<usize> = (from..=to).step_by(step).map(|day| day % 7).collect();
            let written = nats(&format!("0 0 * * {from}-{to}/{step}")).unwrap();
            let field = written.rsplit(' ').next().unwrap();
            let read: std::collections::BTreeSet<usize> = match field.split_once('/') {
                Some((range, step)) => {
                    let (from, to) = range.split_once('-').unwrap();
                    (from.parse().unwrap()..=to.parse().unwrap()).step_by(step.parse().unwrap()).collect()
                }
                None => field.split(',').map(|day| day.parse().unwrap()).collect(),
            };
            prop_assert_eq!(read, expected);
        }
    }
}
