//! How a workload is kept: when it is started again, how often, and after which pause. Pure: the jitter of a pause follows from a seed.

use std::time::Duration;

use nex_protocol::deploy::Restart;

/// A workload that ran this long has proven itself: its failures are counted anew.
pub const PROVEN: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Longest pause.
pub const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A pause is shorter than its full length by less than one part in so many: workloads that fail together do not come back together.
const JITTER: u32 = 4;

/// How a workload is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// After which ends it is started again.
    pub restart: Restart,
    /// How often at most; a job has a number of retries, others none.
    pub retries: Option<u32>,
    /// Whether it counts as running only when a health check has passed.
    pub is_gated: bool,
    /// What the jitter of its pauses follows from.
    pub seed: u64,
}

impl Rules {
    /// A workload that is started again after these ends, without limit and without a health check.
    #[must_use]
    pub fn new(restart: Restart) -> Self {
        Self { restart, retries: None, is_gated: false, seed: 0 }
    }

    /// Whether it is started again after an end, having been started again so often already.
    #[must_use]
    pub fn allow_restart(&self, failed: bool, restarts: u32) -> bool {
        let wanted = match self.restart {
            Restart::Always => true,
            Restart::OnFailure => failed,
            Restart::Never => false,
        };
        wanted && self.retries.is_none_or(|most| restarts < most)
    }

    /// The pause after so many failures in a row, each soon after its start.
    #[must_use]
    pub fn pause(&self, streak: u32) -> Duration {
        let full = FIRST_BACKOFF.saturating_mul(1 << streak.saturating_sub(1).min(16)).min(MAX_BACKOFF);
        let part = u32::from(u16::try_from(mixed(self.seed, streak) >> 48).unwrap_or_default());
        full - full / JITTER * part / (u32::from(u16::MAX) + 1)
    }
}

/// The seed of a workload's jitter.
#[must_use]
pub fn seed_of(id: &str) -> u64 {
    id.bytes().fold(0, |seed, byte| mixed(seed, u32::from(byte)))
}

/// The finalizer of SplitMix64: every bit of the input changes half of the output's.
fn mixed(seed: u64, number: u32) -> u64 {
    let mut bits = seed.wrapping_add(u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_is_started_again_is_what_the_policy_says() {
        for (restart, after_success, after_failure) in
            [(Restart::Always, true, true), (Restart::OnFailure, false, true), (Restart::Never, false, false)]
        {
            let rules = Rules::new(restart);
            assert_eq!((rules.allow_restart(false, 9), rules.allow_restart(true, 9)), (after_success, after_failure));
        }
        let job = Rules { retries: Some(2), ..Rules::new(Restart::OnFailure) };
        assert_eq!([0, 1, 2, 3].map(|restarts| job.allow_restart(true, restarts)), [true, true, false, false]);
    }

    #[test]
    fn workloads_that_fail_together_do_not_come_back_together() {
        let pauses: std::collections::BTreeSet<_> = (0..100)
            .map(|number| Rules { seed: seed_of(&format!("w{number}")), ..Rules::new(Restart::Always) }.pause(8))
            .collect();
        assert!(pauses.len() > 95, "{}", pauses.len());
    }

    proptest! {
        #[test]
        fn pauses_grow_to_their_ceiling_and_jitter_takes_less_than_a_quarter(seed: u64, streak in 1_u32..200) {
            let rules = Rules { seed, ..Rules::new(Restart::Always) };
            let full = FIRST_BACKOFF.saturating_mul(1 << (streak - 1).min(16)).min(MAX_BACKOFF);
            let pause = rules.pause(streak);
            prop_assert!(pause <= full && pause > full / 4 * 3 - Duration::from_nanos(4));
            prop_assert_eq!(pause, rules.pause(streak), "the same again");
        }
    }
}
