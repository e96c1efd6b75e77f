//! Waiting for conditions.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Polls a condition until it holds or the deadline has passed; returns whether it held.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// # use std::time::Duration;
/// let mut asked = 0;
/// let held = nex_testkit::eventually(Duration::from_secs(5), || { asked += 1; let now = asked; async move { now == 3 } }).await;
/// assert!(held, "it is asked three times");
/// # });
/// ```
#[must_use = "a condition that never held must fail the test"]
pub async fn eventually<F, C>(deadline: Duration, mut condition: F) -> bool
where
    F: FnMut() -> C,
    C: Future<Output = bool>,
{
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(1);
    loop {
        // A condition that hangs does not hold.
        match tokio::time::timeout_at(end, condition()).await {
            Ok(true) => return true,
            Ok(false) if Instant::now() < end => {}
            Ok(false) | Err(_) => return false,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
