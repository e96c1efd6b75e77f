//! Bytes of log lines in a second: shared by all workloads of a node, a namespace, an issuer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::{Charge, Quotas, Who};

/// Bytes that may be written at once, and come back at the rate of the quota.
#[derive(Debug)]
struct Bucket {
    most: u64,
    left: u64,
    since: Instant,
}

impl Bucket {
    fn new(most: u64, now: Instant) -> Self {
        Self { most, left: most, since: now }
    }

    /// Fills it by the time that has passed.
    fn fill(&mut self, now: Instant) {
        let millis = now.saturating_duration_since(self.since).as_millis().min(1_000);
        let millis = u64::try_from(millis).unwrap_or(1_000);
        let more = self.most.saturating_mul(millis) / 1_000;
        if more > 0 {
            (self.left, self.since) = (self.left.saturating_add(more).min(self.most), now);
        }
    }
}

type Shared = Arc<Mutex<Bucket>>;

/// The buckets of those who have such a quota.
#[derive(Debug, Default)]
pub struct LogRates {
    buckets: Mutex<BTreeMap<Who, Weak<Mutex<Bucket>>>>,
}

/// A workload's share in the buckets of those who pay for its lines. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LogShare {
    buckets: Arc<[(Who, Shared)]>,
}

impl LogRates {
    /// The share of a workload that is started now, by the quotas that count now.
    #[must_use]
    pub fn share(&self, quotas: &Quotas, charge: &Charge, now: Instant) -> LogShare {
        let mut buckets = lock(&self.buckets);
        buckets.retain(|_, bucket| bucket.strong_count() > 0);
        let mut share = Vec::new();
        for who in charge.payers() {
            let Some(most) = quotas.of(&who).log_bytes_per_second else { continue };
            let present = buckets.get(&who).and_then(Weak::upgrade);
            let bucket = present.unwrap_or_else(|| Arc::new(Mutex::new(Bucket::new(most, now))));
            // The quota may have been changed since.
            lock(&bucket).most = most;
            buckets.insert(who.clone(), Arc::downgrade(&bucket));
            share.push((who, bucket));
        }
        LogShare { buckets: share.into() }
    }
}

impl LogShare {
    /// Takes a line's bytes, or says whose quota is used up. All of them are taken or none.
    ///
    /// # Errors
    /// Who has no more.
    pub fn take(&self, bytes: usize, now: Instant) -> Result<(), &Who> {
        // Each workload locks them in the same order.
        let mut locked: Vec<_> = self.buckets.iter().map(|(who, bucket)| (who, lock(bucket))).collect();
        for (_, bucket) in &mut locked {
            bucket.fill(now);
        }
        let bytes = bytes as u64;
        if let Some((who, _)) = locked.iter().find(|(_, bucket)| bucket.left < bytes.min(bucket.most)) {
            return Err(who);
        }
        for (_, bucket) in &mut locked {
            bucket.left = bucket.left.saturating_sub(bytes);
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Demand, Quota};
    use super::*;

    #[test]
    fn workloads_share_what_their_namespace_has_and_it_comes_back() {
        let quotas = Quotas { namespace: Quota { log_bytes_per_second: Some(1_000), ..Quota::default() }, ..Quotas::default() };
        let of = |namespace: &str| Charge { namespace: namespace.parse().ok(), issuer: None, demand: Demand::default() };
        let (rates, start) = (LogRates::default(), Instant::now());
        let (one, two, other) =
            (rates.share(&quotas, &of("a"), start), rates.share(&quotas, &of("a"), start), rates.share(&quotas, &of("b"), start));
        one.take(600, start).unwrap();
        two.take(400, start).unwrap();
        assert_eq!(one.take(1, start), Err(&Who::Namespace("a".into())));
        other.take(1_000, start).unwrap();
        let later = start + Duration::from_millis(500);
        two.take(500, later).unwrap();
        assert!(one.take(1, later).is_err());
        // A line that is longer than the quota is written where nothing else was.
        one.take(5_000, start + Duration::from_secs(2)).unwrap();
        assert!(rates.share(&Quotas::default(), &of("a"), start).take(usize::MAX, start).is_ok());
        drop((one, two, other));
        drop(rates.share(&quotas, &of("c"), start));
        assert_eq!(lock(&rates.buckets).len(), 1, "what nobody has a share in is forgotten");
    }
}
