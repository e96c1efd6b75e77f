//! How much processor time another thread of this process has used: on a busy host that says more than the time that has passed.

use std::time::Duration;

use nix::libc::clockid_t;
use nix::time::ClockId;
use nix::unistd::gettid;

/// The kernel's number of a thread; 0 is none.
pub(crate) type Thread = i32;

/// What the kernel calls a thread's clock: CPUCLOCK_PERTHREAD and CPUCLOCK_SCHED, beside the complement of its number.
const OF_A_THREAD: clockid_t = 4 | 2;

/// The present thread.
pub(crate) fn this_thread() -> Thread {
    gettid().as_raw()
}

/// Processor time that a thread of this process has used; nothing if there is none of that number.
pub(crate) fn used_by(thread: Thread) -> Option<Duration> {
    ClockId::from_raw((!thread << 3) | OF_A_THREAD).now().ok().map(Duration::from)
}

#[cfg(test)]
mod tests {
    use nex_engine::thread_cpu_time;

    use super::*;

    #[test]
    fn another_threads_work_is_seen_and_an_ended_ones_is_not() {
        let begin = thread_cpu_time();
        while thread_cpu_time() < begin + Duration::from_millis(20) {}
        let (busy, used) = (this_thread(), thread_cpu_time());
        let seen = std::thread::scope(|scope| scope.spawn(|| used_by(busy)).join()).ok().flatten();
        assert!(seen.is_some_and(|seen| seen >= used), "{seen:?} {used:?}");
        let ended = std::thread::scope(|scope| scope.spawn(this_thread).join()).ok();
        assert!(ended.is_some_and(|ended| used_by(ended).is_none()));
    }
}
