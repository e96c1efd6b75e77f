//! The moment by which an answer is due: made once at the edge, passed down, never restarted half-way.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Longest wait that a deadline can express; anything further away is cut to it, so no arithmetic overflows.
const MAX: Duration = Duration::from_secs(86_400 * 365);

/// The deadline passed before the thing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Elapsed;

/// A point in time by which something must be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline this far from now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration.min(MAX))
    }

    /// The deadline at a known instant.
    #[must_use]
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// What is left; zero when it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The instant itself, for `sleep_until` and the like.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_past(self) -> bool {
        self.remaining().is_zero()
    }

    /// The nearer of this deadline and one that far from now: a step may be given less than the whole, never more.
    #[must_use]
    pub fn within(self, duration: Duration) -> Self {
        self.min(Self::after(duration))
    }

    /// Runs a future until the deadline.
    ///
    /// # Errors
    /// [`Elapsed`] when the deadline passes first; the future is dropped then.
    pub async fn bound<F: Future>(self, future: F) -> Result<F::Output, Elapsed> {
        match tokio::time::timeout_at(self.0, future).await {
            Ok(output) => Ok(output),
            Err(_elapsed) => Err(Elapsed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_runs_down_and_then_is_past() {
        let deadline = Deadline::after(Duration::from_secs(2));
        assert!(!deadline.is_past());
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(deadline.remaining(), Duration::from_millis(1500));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(deadline.is_past());
    }

    #[tokio::test(start_paused = true)]
    async fn bound_gives_the_output_or_elapsed() {
        let deadline = Deadline::after(Duration::from_secs(1));
        assert_eq!(deadline.bound(async { 7 }).await, Ok(7));
        assert_eq!(deadline.bound(std::future::pending::<()>()).await, Err(Elapsed));
    }

    #[tokio::test(start_paused = true)]
    async fn within_never_moves_a_deadline_away() {
        let deadline = Deadline::after(Duration::from_secs(1));
        assert_eq!(deadline.within(Duration::from_secs(9)), deadline);
        assert!(deadline.within(Duration::from_millis(1)) < deadline);
        assert!(!Deadline::after(Duration::MAX).is_past());
    }
}
