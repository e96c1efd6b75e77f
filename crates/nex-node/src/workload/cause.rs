//! Why an instance ended, by name, and with the numbers where it was a limit.

use nex_process::cgroup::MemoryUse;
use nex_protocol::control::ExitCause;

/// What a shell says of a child that SIGKILL ended.
const KILLED: i32 = 137;

/// The cause of an end by itself, and what there is to say of it besides code and signal.
pub(super) fn of_exit(code: i32, signal: &str, memory: Option<MemoryUse>) -> (ExitCause, Option<String>) {
    let was_killed = signal == "SIGKILL" || (signal.is_empty() && code == KILLED);
    match signal {
        _ if was_killed && used_up(memory).is_some() => (ExitCause::OutOfMemory, used_up(memory)),
        "" => (ExitCause::Exit, None),
        "SIGXCPU" => (ExitCause::Limit, Some("SIGXCPU: its processor time was used up".to_owned())),
        "SIGXFSZ" => (ExitCause::Limit, Some("SIGXFSZ: it wrote more to a file than it may".to_owned())),
        _ => (ExitCause::Signal, None),
    }
}

/// The cause of an end with its agent.
pub(super) fn of_loss(memory: Option<MemoryUse>) -> (ExitCause, Option<String>) {
    let used_up = used_up(memory);
    (if used_up.is_some() { ExitCause::OutOfMemory } else { ExitCause::Lost }, used_up)
}

fn used_up(memory: Option<MemoryUse>) -> Option<String> {
    let MemoryUse { limit, peak, .. } = memory.filter(|memory| memory.kills > 0)?;
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let had = peak.map(|peak| format!(", had {} MiB", mib(peak))).unwrap_or_default();
    Some(format!("out of memory: it may have {} MiB{had}", mib(limit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_killed_for_memory_is_told_from_who_was_killed() {
        let memory = |kills| Some(MemoryUse { limit: 64 << 20, peak: Some(64 << 20), kills });
        let told = (ExitCause::OutOfMemory, Some("out of memory: it may have 64 MiB, had 64 MiB".to_owned()));
        assert_eq!(of_exit(-1, "SIGKILL", memory(1)), told);
        assert_eq!(of_exit(137, "", memory(1)), told, "a shell tells of its child");
        assert_eq!(of_exit(-1, "SIGKILL", memory(0)), (ExitCause::Signal, None));
        assert_eq!(of_exit(3, "", memory(1)), (ExitCause::Exit, None), "a child of it may have been killed before");
        assert_eq!(of_exit(-1, "SIGXCPU", None).0, ExitCause::Limit);
        assert_eq!(of_loss(memory(2)), told);
        assert_eq!(of_loss(None), (ExitCause::Lost, None));
    }
}
