//! `workload_limits`: what a workload may use, and how long things may take.

use std::time::Duration;

use super::raw::{RawConfig, RawWorkloadLimits};

const MIB: u64 = 1024 * 1024;
/// Most MiB that are taken for a limit of memory: 16 TiB.
const MAX_MIB: u64 = 16 * 1024 * 1024;
/// Most milliseconds that are taken for a limit of time.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Bounds on each workload: defaults and the most a deployer may ask for.
#[derive(Debug, Clone, Copy)]
pub struct WorkloadLimits {
    /// Memory of a function's instance, bytes.
    pub memory_bytes: u64,
    /// Memory of a whole sandbox, bytes; the most that may be asked for.
    pub max_memory_bytes: u64,
    /// One call.
    pub call_timeout: Duration,
    /// The longest call that may be asked for.
    pub max_call_timeout: Duration,
    /// Calls under way at once.
    pub concurrency: usize,
    /// Processes and threads in one sandbox.
    pub processes: u64,
    /// Processor time, percent of one processor; absent means unbounded.
    pub cpu_percent: Option<u32>,
    /// Bytes a workload may write to its own file system.
    pub tmp_bytes: u64,
    /// Largest reply of a function, bytes.
    pub reply_bytes: u64,
    /// Largest payload of a call, bytes; absent means unbounded, as in those below.
    pub payload_bytes: Option<u64>,
    /// Host calls of one call.
    pub host_calls: Option<u64>,
    /// Most that one call may log, bytes.
    pub log_bytes: Option<u64>,
    /// Processor time of one call, ms.
    pub cpu_ms: Option<u64>,
}

/// The limits of workloads.
pub(super) fn resolve(raw: &RawConfig, problems: &mut Vec<String>) -> WorkloadLimits {
    let given = raw.workload_limits.unwrap_or_default();
    let machine = raw.machine_template.and_then(|machine| machine.memsize_mib);
    check_limits(&given, problems);
    // What is not given gives way to what is.
    let memory = given.memory_mib.unwrap_or_else(|| given.max_memory_mib.unwrap_or(64).min(64));
    let max_memory = given.max_memory_mib.or(machine).unwrap_or(256).max(memory);
    let timeout = given.call_timeout_ms.unwrap_or_else(|| given.max_call_timeout_ms.unwrap_or(5_000).min(5_000));
    let max_timeout = given.max_call_timeout_ms.unwrap_or(60_000).max(timeout);
    WorkloadLimits {
        memory_bytes: memory.saturating_mul(MIB),
        max_memory_bytes: max_memory.saturating_mul(MIB),
        call_timeout: Duration::from_millis(timeout),
        max_call_timeout: Duration::from_millis(max_timeout),
        concurrency: given.concurrency.unwrap_or(64),
        processes: given.max_processes.unwrap_or(128),
        cpu_percent: given.cpu_percent,
        tmp_bytes: given.tmp_mib.unwrap_or(64).saturating_mul(MIB),
        reply_bytes: given.reply_bytes.unwrap_or(MIB),
        payload_bytes: given.payload_bytes,
        host_calls: given.host_calls,
        log_bytes: given.log_bytes,
        cpu_ms: given.cpu_ms,
    }
}

/// Limits that nobody can mean.
fn check_limits(given: &RawWorkloadLimits, problems: &mut Vec<String>) {
    let of_calls = [given.reply_bytes, given.payload_bytes, given.host_calls, given.log_bytes, given.cpu_ms];
    let mib = [("memory_mib", given.memory_mib), ("max_memory_mib", given.max_memory_mib), ("tmp_mib", given.tmp_mib)];
    let millis = [("call_timeout_ms", given.call_timeout_ms), ("max_call_timeout_ms", given.max_call_timeout_ms)];
    let all = of_calls.into_iter().chain(mib.iter().chain(&millis).map(|(_, limit)| *limit)).chain([given.max_processes]);
    if given.concurrency == Some(0) || all.into_iter().any(|limit| limit == Some(0)) {
        problems.push("workload_limits: no limit may be 0".to_owned());
    }
    for (name, limit, most) in
        mib.map(|(name, it)| (name, it, MAX_MIB)).into_iter().chain(millis.map(|(name, it)| (name, it, DAY_MS)))
    {
        if limit.is_some_and(|limit| limit > most) {
            problems.push(format!("workload_limits.{name}: expected at most {most}"));
        }
    }
    for [(name, limit), (most_name, most)] in [[mib[0], mib[1]], millis] {
        if let (Some(limit), Some(most)) = (limit, most)
            && limit > most
        {
            problems.push(format!("workload_limits: {name} {limit} is over {most_name} {most}"));
        }
    }
}

/// Times that nobody can mean.
pub(super) fn check_times(raw: &RawConfig, problems: &mut Vec<String>) {
    for (name, millis) in [("deploy_timeout_ms", raw.deploy_timeout_ms), ("stop_grace_ms", raw.stop_grace_ms)] {
        if millis.is_some_and(|millis| !(1..=DAY_MS).contains(&millis)) {
            problems.push(format!("{name}: expected 1 to {DAY_MS}; without it there is a default"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Invalid, NodeConfig};

    #[test]
    fn limits_that_nobody_can_mean_are_refused_by_name() {
        let resolve = |text: &str| NodeConfig::resolve(RawConfig::parse(text).unwrap());
        for (text, named) in [
            (r#"{"workload_limits":{"memory_mib":18446744073709551615}}"#, "workload_limits.memory_mib: expected at most"),
            (r#"{"workload_limits":{"memory_mib":512,"max_memory_mib":256}}"#, "memory_mib 512 is over max_memory_mib 256"),
            (r#"{"workload_limits":{"call_timeout_ms":9,"max_call_timeout_ms":8}}"#, "call_timeout_ms 9 is over"),
            (r#"{"workload_limits":{"max_call_timeout_ms":86400001}}"#, "max_call_timeout_ms: expected at most"),
            (r#"{"workload_limits":{"tmp_mib":0}}"#, "no limit may be 0"),
            (r#"{"deploy_timeout_ms":0}"#, "deploy_timeout_ms: expected 1 to"),
            (r#"{"stop_grace_ms":86400001}"#, "stop_grace_ms: expected 1 to"),
        ] {
            let Invalid(problems) = resolve(text).unwrap_err();
            assert!(problems.len() == 1 && problems[0].contains(named), "{text}: {problems:?}");
        }
        let small = resolve(r#"{"workload_limits":{"max_memory_mib":32,"max_call_timeout_ms":1000}}"#).unwrap().workload_limits;
        assert_eq!((small.memory_bytes, small.max_memory_bytes), (32 * MIB, 32 * MIB));
        assert_eq!((small.call_timeout, small.max_call_timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    }
}
