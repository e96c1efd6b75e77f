//! Processor time, as calls are charged for it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time that the present thread has used so far.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_is_counted() {
        let begin = thread_cpu_time();
        let mut rounds = 0_u64;
        while thread_cpu_time() < begin + Duration::from_millis(5) {
            rounds += 1;
        }
        assert!(rounds > 0);
    }
}
