//! What becomes of a message after an attempt. Pure.

use std::time::Duration;

use nex_protocol::agent::Outcome;
use nex_protocol::trigger::Delivery;

/// Longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(15 * 60);

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is dealt with.
    Done,
    /// It is tried again.
    Retry {
        /// Not before, give or take a quarter.
        pause: Duration,
        /// Why.
        reason: String,
    },
    /// It is given up.
    Dead(String),
    /// Nobody was asked, and there is no more time: another copy may have it.
    Untried,
}

/// What an outcome means, at this attempt.
pub(super) fn after(outcome: Outcome, attempt: u32, delivery: &Delivery) -> Verdict {
    let (reason, asked) = match outcome {
        Outcome::Reply(_) | Outcome::Ack => return Verdict::Done,
        Outcome::Terminate { reason } => return Verdict::Dead(reason),
        Outcome::Nak { delay_ms } => ("the function wants it later".to_owned(), Some(Duration::from_millis(delay_ms))),
        Outcome::Error(error) => (error.message, None),
    };
    if attempt >= delivery.max_deliver {
        return Verdict::Dead(reason);
    }
    Verdict::Retry { pause: asked.unwrap_or_else(|| pause(attempt, delivery)).min(MAX_BACKOFF), reason }
}

/// Deliveries of an ordered message that may have ended before its turn came, with the copy that held it back.
pub(super) const UNBEGUN: u32 = 10;

/// Why a message is not even tried: earlier attempts ended without anybody hearing how. So many of them may be none.
pub(super) fn before(attempt: u32, unbegun: u32, delivery: &Delivery) -> Option<String> {
    let tried = attempt.saturating_sub(1);
    let why = || format!("{tried} attempts ended without an outcome, as when a node dies or a call outlives its node");
    (attempt > delivery.max_deliver.saturating_add(unbegun)).then(why)
}

/// The pause after this attempt: twice that after the one before.
fn pause(attempt: u32, delivery: &Delivery) -> Duration {
    delivery.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(20))
}

/// A pause, less or more by up to a quarter: what failed together is not tried together again. `random` is evenly spread over all bits.
pub(super) fn jittered(pause: Duration, random: u32) -> Duration {
    pause.mul_f64(0.75 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use nex_protocol::agent::InvocationError;
    use proptest::prelude::*;

    use super::*;

    fn failed() -> Outcome {
        Outcome::Error(InvocationError { code: 500, message: "it failed".into(), limit: None })
    }

    #[test]
    fn pauses_double_and_the_last_failure_is_the_end() {
        let delivery = Delivery { max_deliver: 4, ..Delivery::default() };
        let after = |attempt| match super::after(failed(), attempt, &delivery) {
            Verdict::Retry { pause, .. } => Some(pause.as_secs()),
            Verdict::Dead(reason) => {
                assert_eq!(reason, "it failed");
                None
            }
            Verdict::Done | Verdict::Untried => panic!("it failed"),
        };
        assert_eq!([1, 2, 3, 4, 5].map(after), [Some(1), Some(2), Some(4), None, None]);
        assert_eq!((before(4, 0, &delivery), before(4 + UNBEGUN, UNBEGUN, &delivery)), (None, None));
        assert!(before(5, 0, &delivery).is_some_and(|why| why.starts_with("4 attempts")));
    }

    #[test]
    fn what_the_function_says_counts() {
        let delivery = Delivery::default();
        let nak = |delay_ms| Outcome::Nak { delay_ms };
        assert!(matches!(after(nak(70), 1, &delivery), Verdict::Retry { pause, .. } if pause == Duration::from_millis(70)));
        assert!(matches!(after(nak(u64::MAX), 1, &delivery), Verdict::Retry { pause, .. } if pause == MAX_BACKOFF));
        assert!(matches!(after(nak(0), 5, &delivery), Verdict::Dead(_)));
        assert_eq!(after(Outcome::Terminate { reason: "poison".into() }, 1, &delivery), Verdict::Dead("poison".into()));
        assert_eq!(after(Outcome::Ack, 99, &delivery), Verdict::Done);
    }

    proptest! {
        #[test]
        fn a_pause_is_bounded_and_near_what_it_should_be(attempt in 1_u32..1_000, backoff_ms in 10_u64..3_600_000, random: u32) {
            let delivery = Delivery { max_deliver: 1_001, backoff: Duration::from_millis(backoff_ms), ..Delivery::default() };
            let Verdict::Retry { pause, .. } = after(failed(), attempt, &delivery) else { panic!() };
            prop_assert!(pause <= MAX_BACKOFF && pause >= Duration::from_millis(10));
            let jittered = jittered(pause, random);
            prop_assert!(jittered >= pause.mul_f64(0.74) && jittered <= pause.mul_f64(1.26));
        }
    }
}
