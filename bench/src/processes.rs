//! Memory and processor time of processes, from `/proc`.

use std::collections::BTreeMap;
use std::time::Duration;

/// Memory of all agents of a node, in MiB.
pub(crate) fn memory_of_agents(node: u32) -> f64 {
    let family = family(node);
    family.iter().filter(|(_, name)| name.starts_with("nex-agent")).map(|(pid, _)| memory(*pid)).sum()
}

/// The same with memory in files that are only in memory, where scripts have their images.
pub(crate) fn all_memory_of_agents(node: u32) -> f64 {
    let family = family(node);
    let agents = family.iter().filter(|(_, name)| name.starts_with("nex-agent"));
    agents.map(|(pid, _)| sum(*pid, &["Pss_Anon:", "Pss_Shmem:", "SwapPss:"])).sum()
}

/// Anonymous memory of a process, in MiB, shared pages counted proportionally; zero if it has ended. The three processes of an agent
/// share pages, which `Private_*` would not count.
pub(crate) fn memory(pid: u32) -> f64 {
    sum(pid, &["Pss_Anon:", "SwapPss:"])
}

fn sum(pid: u32, names: &[&str]) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let lines = rollup.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    let kib: u64 = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum();
    kib as f64 / 1024.0
}

/// Mapped memory of a process in MiB, including files and guest memory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mapped {
    pub(crate) rss: f64,
    pub(crate) pss: f64,
    pub(crate) private: f64,
}

/// Mapped memory of a monitor.
pub(crate) fn monitor_memory(pid: u32) -> Mapped {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let sum = |names: &[&str]| {
        let lines = rollup.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        let kib: u64 = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum();
        kib as f64 / 1024.0
    };
    Mapped { rss: sum(&["Rss:"]), pss: sum(&["Pss:"]), private: sum(&["Private_Clean:", "Private_Dirty:"]) }
}

/// Processor time of all threads of a running process, in nanosecond resolution.
pub(crate) fn own_time(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |thread: std::fs::DirEntry| {
        let spent = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        spent.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    };
    threads.filter_map(of).sum()
}

/// Processor time of a process and its descendants.
pub(crate) fn processor_time(pid: u32) -> Duration {
    family(pid).keys().map(|pid| time_of(*pid)).sum()
}

fn time_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    // utime and stime, in ticks of 10 ms (USER_HZ is always 100).
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// A process and its descendants, with their names.
fn family(root: u32) -> BTreeMap<u32, String> {
    let all = parents();
    let descends = |mut pid: u32| {
        // Bounded, because the process table may change while it is read.
        for _ in 0..16 {
            match all.get(&pid) {
                _ if pid == root => return true,
                Some((parent, _)) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    all.iter().filter(|(pid, _)| descends(**pid)).map(|(pid, (_, name))| (*pid, name.clone())).collect()
}

/// Parent and name of every process.
fn parents() -> BTreeMap<u32, (u32, String)> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let parent = tail.split_whitespace().nth(1)?.parse().ok()?;
        Some((pid, (parent, name.to_owned())))
    };
    processes.filter_map(|entry| of(entry.file_name().to_str()?.parse().ok()?)).collect()
}
