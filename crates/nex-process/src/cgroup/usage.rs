//! What a group of processes uses, as its files say.

use std::fs;
use std::time::Duration;

use super::Cgroup;

/// Memory of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes that it may have.
    pub limit: u64,
    /// The most that it had, where the kernel remembers that.
    pub peak: Option<u64>,
    /// Processes and threads that the kernel killed because it was used up.
    pub kills: u64,
}

impl Cgroup {
    /// How many processes and threads the kernel killed here because memory ran out.
    #[must_use]
    pub fn out_of_memory_kills(&self) -> u64 {
        let counters = self.dirs.iter().flat_map(|dir| [dir.join("memory.events"), dir.join("memory.oom_control")]);
        let texts = counters.filter_map(|path| fs::read_to_string(path).ok());
        texts.filter_map(|text| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())).sum()
    }

    /// How much memory it may have and had at most, where a controller counts it.
    #[must_use]
    pub fn memory(&self) -> Option<MemoryUse> {
        let number = |names: [&str; 2]| {
            let paths = self.dirs.iter().flat_map(|dir| names.map(|name| dir.join(name)));
            paths.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()).next()
        };
        let limit = number(["memory.max", "memory.limit_in_bytes"])?;
        let peak = number(["memory.peak", "memory.max_usage_in_bytes"]);
        Some(MemoryUse { limit, peak, kills: self.out_of_memory_kills() })
    }

    /// Processor time of all that was ever in it, where a controller counts it.
    #[must_use]
    pub fn cpu(&self) -> Option<Duration> {
        let nanos = self.number("cpuacct.usage").map(Duration::from_nanos);
        nanos.or_else(|| self.member("cpu.stat", "usage_usec").map(Duration::from_micros))
    }

    /// Memory that it uses, without files that could be read again, where a controller counts it.
    #[must_use]
    pub fn memory_in_use(&self) -> Option<u64> {
        let used = self.number("memory.current").or_else(|| self.number("memory.usage_in_bytes"))?;
        let files = self.member("memory.stat", "total_inactive_file").or_else(|| self.member("memory.stat", "inactive_file"));
        Some(used.saturating_sub(files.unwrap_or(0)))
    }

    /// The number in a file of it.
    fn number(&self, file: &str) -> Option<u64> {
        self.dirs.iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok())
    }

    /// The number after a name in a file of it.
    fn member(&self, file: &str, name: &str) -> Option<u64> {
        let number = |text: String| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        self.dirs.iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok().and_then(number))
    }
}
