//! The pace of the processor's time stamp counter.
//!
//! An emulated guest sees the host's counter and would measure it against an emulated timer, which fails on a busy host; so it is passed
//! the frequency.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long the counter is watched: an error of some microseconds is one of 0.1 ‰ then.
const WATCHED: Duration = Duration::from_millis(20);

/// Kilohertz of the time stamp counter, measured once in a process (the first call takes 20 ms of a processor); `None` where there is none.
#[must_use]
pub fn tsc_khz() -> Option<u64> {
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();
    *KHZ.get_or_init(measure)
}

#[cfg(target_arch = "x86_64")]
fn measure() -> Option<u64> {
    let (start, first) = (Instant::now(), counter());
    while start.elapsed() < WATCHED {
        std::hint::spin_loop();
    }
    let (ticks, time) = (counter().checked_sub(first)?, start.elapsed());
    ticks.checked_mul(1_000_000)?.checked_div(u64::try_from(time.as_nanos()).ok()?)
}

#[cfg(not(target_arch = "x86_64"))]
fn measure() -> Option<u64> {
    None
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "an instruction")]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and Linux lets every process use it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_counter_runs_at_the_pace_of_a_processor() {
        if let Some(khz) = super::tsc_khz() {
            assert!((100_000..20_000_000).contains(&khz), "{khz} kHz");
        }
    }
}
