//! What a group of processes uses: by its cgroup where that counts, else added up over the processes.

use std::fs;
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::process_id::ProcessId;

/// Clock ticks in a second, as the kernel tells times to programs on every processor that nodes run on.
const TICKS: u64 = 100;
/// Most processes that are added up.
const PROCESSES: usize = 4_096;

/// What is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceUse {
    /// Processor time since the first of them was started, of those that have ended too.
    pub cpu: Duration,
    /// Memory, without files that could be read again.
    pub memory_bytes: u64,
    /// What of memory they may have, if that is bounded.
    pub memory_limit: Option<u64>,
}

/// What a process and all that it has started use; nothing where it is gone.
#[must_use]
pub fn of(cgroup: Option<&Cgroup>, leader: ProcessId) -> Option<ResourceUse> {
    let (cpu, memory) = (cgroup.and_then(Cgroup::cpu), cgroup.and_then(Cgroup::memory_in_use));
    let memory_limit = cgroup.and_then(Cgroup::memory).map(|memory| memory.limit).filter(|limit| *limit < 1 << 60);
    if let (Some(cpu), Some(memory_bytes)) = (cpu, memory) {
        return leader.is_alive().then_some(ResourceUse { cpu, memory_bytes, memory_limit });
    }
    let added = tree(leader)?;
    Some(ResourceUse { cpu: cpu.unwrap_or(added.cpu), memory_bytes: memory.unwrap_or(added.memory_bytes), memory_limit })
}

fn tree(leader: ProcessId) -> Option<ResourceUse> {
    if !leader.is_alive() {
        return None;
    }
    let (mut found, mut pending, mut count) = (ResourceUse::default(), vec![leader.pid], 0);
    while let Some(pid) = pending.pop().filter(|_| count < PROCESSES) {
        count += 1;
        let Some(ticks) = read(pid, "stat").as_deref().and_then(ticks) else { continue };
        found.cpu += Duration::from_millis(ticks.saturating_mul(1_000) / TICKS);
        // Pages that processes share are counted for each: without a cgroup nobody says better at this price.
        let resident = read(pid, "status").as_deref().and_then(resident).unwrap_or(0);
        found.memory_bytes = found.memory_bytes.saturating_add(resident);
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pending.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    Some(found)
}

fn read(pid: i32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
}

/// The clock ticks of a process and of its children that have ended, from its `stat`.
fn ticks(stat: &str) -> Option<u64> {
    // The name may have blanks and brackets in it; the field after it is the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let used = fields.get(14 - 3..=17 - 3)?;
    Some(used.iter().filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// The bytes of a process that are in memory, from its `status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1_024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 10 20 30 40 20 0 3 0 100 1000000 250 18446744073709551615";
        assert_eq!(ticks(text), Some(100));
        assert!(ticks("7 (a S 1").is_none() && ticks("").is_none() && ticks("7 (a) S 1").is_none());
        assert_eq!(resident("Name:\ta\nVmRSS:\t    250 kB\n"), Some(256_000));
        assert_eq!(resident("Name:\ta\n"), None);
    }

    #[test]
    fn this_process_uses_memory_and_processor_time_that_grows() {
        let own = ProcessId::own().unwrap();
        let before = of(None, own).unwrap();
        assert!(before.memory_bytes > 100_000 && before.memory_limit.is_none(), "{before:?}");
        let mut number = 1_u64;
        while of(None, own).unwrap().cpu <= before.cpu {
            number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        let gone = ProcessId { start_time: own.start_time + 1, ..own };
        assert_eq!(of(None, gone), None);
    }
}
