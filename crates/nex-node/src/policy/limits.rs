//! The bounds of a workload: what its deployer asks for, capped by what the node allows.

use nex_protocol::agent;
use nex_protocol::deploy::{DeployRequest, WorkloadType};

use super::refusal::DeployRefusal;
use crate::config::WorkloadLimits;

/// Most calls under way at once.
const MAX_CONCURRENCY: usize = 1_024;
const MIB: u64 = 1024 * 1024;

pub(super) fn limits(request: &DeployRequest, own: &WorkloadLimits) -> Result<agent::Limits, DeployRefusal> {
    let asked = request.limits.unwrap_or_default();
    let memory_bytes = asked.memory_mib.map_or(own.memory_bytes, |mib| mib.saturating_mul(MIB));
    if memory_bytes > own.max_memory_bytes || memory_bytes == 0 {
        return Err(DeployRefusal::Memory(own.max_memory_bytes / MIB));
    }
    let longest = u64::try_from(own.max_call_timeout.as_millis()).unwrap_or(u64::MAX);
    let call_timeout_ms =
        asked.call_timeout_ms.unwrap_or_else(|| u64::try_from(own.call_timeout.as_millis()).unwrap_or(u64::MAX));
    if call_timeout_ms > longest || call_timeout_ms == 0 {
        return Err(DeployRefusal::CallTimeout(longest));
    }
    // A service has its whole sandbox unless it asks for less; a function's limit is that of one instance.
    let is_function = request.r#type.as_deref().is_some_and(|kind| kind.parse().is_ok_and(WorkloadType::is_function));
    let reply_bytes = capped("reply_bytes", asked.reply_bytes, Some(own.reply_bytes))?.unwrap_or(own.reply_bytes);
    Ok(agent::Limits {
        call_timeout_ms,
        memory_bytes: if is_function || asked.memory_mib.is_some() { memory_bytes } else { 0 },
        concurrency: asked.concurrency.unwrap_or(own.concurrency).clamp(1, MAX_CONCURRENCY),
        reply_bytes: usize::try_from(reply_bytes).unwrap_or(usize::MAX),
        payload_bytes: capped("payload_bytes", asked.payload_bytes, own.payload_bytes)?,
        host_calls: capped("host_calls", asked.host_calls, own.host_calls)?,
        log_bytes: capped("log_bytes", asked.log_bytes, own.log_bytes)?,
        cpu_ms: capped("cpu_ms", asked.cpu_ms, own.cpu_ms)?,
    })
}

/// What is asked for, or else what the node gives; it gives no more to anybody.
fn capped(name: &'static str, asked: Option<u64>, own: Option<u64>) -> Result<Option<u64>, DeployRefusal> {
    match asked {
        Some(0) => Err(DeployRefusal::Limit { name, most: own.unwrap_or(u64::MAX) }),
        Some(asked) if own.is_some_and(|most| asked > most) => Err(DeployRefusal::Limit { name, most: own.unwrap_or(u64::MAX) }),
        asked => Ok(asked.or(own)),
    }
}
