//! How many deploys there were in the last minute, for each who has a quota of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Charge, Quotas, Who};

/// Of what time deploys are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// A deploy that comes too soon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quota of {who}: {most} deploys a minute; try again in {} s", .wait.as_secs() + 1)]
pub struct TooFast {
    /// Whose quota it is.
    pub who: Who,
    /// What it is.
    pub most: u64,
    /// When there is room.
    pub wait: Duration,
}

/// The deploys of the last minute.
#[derive(Debug, Default)]
pub struct DeployRates {
    deploys: Mutex<BTreeMap<Who, VecDeque<Instant>>>,
}

impl DeployRates {
    /// Counts a deploy, unless one of those who pay for it has had too many.
    ///
    /// # Errors
    /// [`TooFast`]; nothing is counted then.
    pub fn take(&self, quotas: &Quotas, charge: &Charge, now: Instant) -> Result<(), TooFast> {
        let mut deploys = self.lock();
        let limits: Vec<_> =
            charge.payers().into_iter().filter_map(|who| Some((quotas.of(&who).deploys_per_minute?, who))).collect();
        for (most, who) in &limits {
            let Some(times) = deploys.get_mut(who) else { continue };
            forget(times, now);
            let at = times.len().checked_sub(usize::try_from(*most).unwrap_or(usize::MAX));
            if let Some(oldest) = at.and_then(|at| times.get(at)) {
                let wait = WINDOW.saturating_sub(now.saturating_duration_since(*oldest));
                return Err(TooFast { who: who.clone(), most: *most, wait });
            }
        }
        // Those who have had none for a minute take no room.
        deploys.retain(|_, times| {
            forget(times, now);
            !times.is_empty()
        });
        for (_, who) in limits {
            deploys.entry(who).or_default().push_back(now);
        }
        Ok(())
    }

    /// Counts one that an earlier process took, so long ago.
    pub fn remember(&self, quotas: &Quotas, charge: &Charge, age: Duration, now: Instant) {
        let Some(at) = now.checked_sub(age).filter(|_| age < WINDOW) else { return };
        let mut deploys = self.lock();
        for who in charge.payers().into_iter().filter(|who| quotas.of(who).deploys_per_minute.is_some()) {
            let times = deploys.entry(who).or_default();
            let place = times.partition_point(|other| *other <= at);
            times.insert(place, at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Who, VecDeque<Instant>>> {
        self.deploys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(times: &mut VecDeque<Instant>, now: Instant) {
    while times.front().is_some_and(|oldest| now.saturating_duration_since(*oldest) >= WINDOW) {
        times.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Demand, Quota};
    use super::*;

    #[test]
    fn so_many_in_any_minute_and_who_is_refused_is_not_counted() {
        let quotas = Quotas {
            node: Quota { deploys_per_minute: Some(3), ..Quota::default() },
            namespace: Quota { deploys_per_minute: Some(2), ..Quota::default() },
            ..Quotas::default()
        };
        let of = |namespace: &str| Charge { namespace: namespace.parse().ok(), issuer: None, demand: Demand::default() };
        let (rates, start) = (DeployRates::default(), Instant::now());
        let take = |namespace: &str, second: u64| rates.take(&quotas, &of(namespace), start + Duration::from_secs(second));
        rates.remember(&quotas, &of("a"), Duration::from_secs(10), start);
        rates.remember(&quotas, &of("a"), Duration::from_secs(61), start);
        take("a", 1).unwrap();
        let refused = take("a", 5).unwrap_err();
        assert_eq!((&refused.who, refused.wait), (&Who::Namespace("a".into()), Duration::from_secs(45)));
        assert_eq!(refused.to_string(), "quota of namespace a: 2 deploys a minute; try again in 46 s");
        take("b", 6).unwrap();
        assert_eq!(take("b", 7).unwrap_err().who, Who::Node);
        take("a", 51).unwrap();
        assert_eq!(take("a", 52).unwrap_err().who, Who::Node);
        take("b", 200).unwrap();
        assert_eq!(rates.lock().len(), 2, "namespace a has had none for a minute");
    }
}
