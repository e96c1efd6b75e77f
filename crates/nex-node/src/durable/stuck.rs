//! Schedules that stand still because the clock of their NATS server was set back, or forth again after that: the server waits until the
//! time it had in mind has come. Put once more, a schedule is reckoned anew. Pure.

use jiff::{SignedDuration, Timestamp};
use nex_protocol::trigger::Schedule;

/// A server is busy now and then, and no clock is set by less for which anybody waits.
const SLACK: SignedDuration = SignedDuration::from_secs(30);

/// A message of the schedules' stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) sequence: u64,
    /// When the server took or made it.
    pub(super) time: Timestamp,
    /// The next time, if it says one.
    pub(super) next: Option<Timestamp>,
}

/// Whether a schedule stands still: by what says it, the last time that came, and the server's clock.
pub(super) fn is_stuck(schedule: &Schedule, says: Point, came: Option<Point>, now: Timestamp) -> bool {
    // Put once more, it no longer counts what came before.
    let came = came.filter(|came| came.sequence > says.sequence);
    if came.is_some() && matches!(schedule, Schedule::At(_)) {
        // Put once more, it would come a second time.
        return false;
    }
    let last = came.unwrap_or(says);
    let due = match schedule {
        Schedule::Every(span) => came.and_then(|came| came.next).or_else(|| last.time.checked_add(*span).ok()),
        Schedule::Cron { .. } => came.and_then(|came| came.next),
        Schedule::At(time) => Some(*time),
    };
    let is_past = |time: Timestamp, by: Timestamp| time.saturating_add(SLACK).is_ok_and(|time| time < by);
    is_past(now, last.time) || due.is_some_and(|due| is_past(due, now))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn point(sequence: u64, second: i64, next: Option<i64>) -> Point {
        Point { sequence, time: at(second), next: next.map(at) }
    }

    fn cron() -> Schedule {
        Schedule::Cron { expression: "* * * * *".to_owned(), zone: None }
    }

    #[test]
    fn what_keeps_its_pace_is_left_alone() {
        let (every, says) = (Schedule::Every(Duration::from_secs(600)), point(1, 0, None));
        assert!(!is_stuck(&every, says, None, at(10)));
        assert!(!is_stuck(&every, says, None, at(620)), "a moment late");
        assert!(!is_stuck(&every, says, Some(point(7, 600, Some(1_200))), at(1_100)));
        let cron = cron();
        assert!(!is_stuck(&cron, says, None, at(1_000_000)), "when it is due only the server knows");
        assert!(!is_stuck(&Schedule::At(at(100)), says, None, at(90)));
        let came = Some(point(7, 100, None));
        assert!([50, 200].iter().all(|now| !is_stuck(&Schedule::At(at(100)), says, came, at(*now))), "it comes once");
    }

    #[test]
    fn a_clock_that_was_set_back_is_seen_by_what_comes_from_the_future() {
        for schedule in [Schedule::Every(Duration::from_secs(1)), cron(), Schedule::At(at(9_000))] {
            assert!(is_stuck(&schedule, point(1, 5_000, None), None, at(1_000)), "{schedule}");
            let is_once = matches!(schedule, Schedule::At(_));
            assert_eq!(
                is_stuck(&schedule, point(1, 0, None), Some(point(7, 5_000, Some(5_001))), at(1_000)),
                !is_once,
                "{schedule}"
            );
            // Put once more: what came before says nothing any more.
            assert!(!is_stuck(&schedule, point(8, 1_000, None), Some(point(7, 5_000, Some(5_001))), at(1_001)), "{schedule}");
        }
    }

    #[test]
    fn what_is_overdue_after_a_clock_was_set_forth_again_is_put_once_more() {
        let (every, says) = (Schedule::Every(Duration::from_secs(1)), point(8, 1_000, None));
        assert!(is_stuck(&every, says, None, at(5_000)));
        let cron = cron();
        assert!(is_stuck(&cron, says, Some(point(9, 1_020, Some(1_080))), at(5_000)));
        assert!(is_stuck(&Schedule::At(at(2_000)), says, None, at(5_000)));
    }
}
