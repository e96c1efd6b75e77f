//! Flags that bound a workload.

use std::time::Duration;

use clap::Args;
use nex_protocol::deploy::RequestedLimits;

use crate::check;

/// What a workload may use; the node caps all of it.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// Memory of one instance or of the process, MiB; the node caps it
    #[arg(long = "memory-mib", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    memory_mib: Option<u64>,
    /// Longest time of one call; the node caps it
    #[arg(long = "call-timeout", value_name = "TIME", value_parser = check::duration)]
    call_timeout: Option<Duration>,
    /// Calls under way at once; the node caps it
    #[arg(long, value_name = "CALLS", value_parser = check::concurrency)]
    concurrency: Option<usize>,
    /// Most processor time of one call; the node caps it
    #[arg(long = "cpu-time", value_name = "TIME", value_parser = check::duration)]
    cpu_time: Option<Duration>,
    /// Largest payload of a call; the node caps it
    #[arg(long = "payload-bytes", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    payload_bytes: Option<u64>,
    /// Largest reply; the node caps it [default: the node's, 1 MiB]
    #[arg(long = "reply-bytes", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    reply_bytes: Option<u64>,
    /// Most host calls of one call; the node caps it
    #[arg(long = "host-calls", value_name = "CALLS", value_parser = clap::value_parser!(u64).range(1..))]
    host_calls: Option<u64>,
    /// Most that one call may log; the node caps it
    #[arg(long = "log-bytes", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    log_bytes: Option<u64>,
}

impl LimitArgs {
    /// As they are asked for.
    pub(crate) fn requested(&self) -> RequestedLimits {
        RequestedLimits {
            memory_mib: self.memory_mib,
            call_timeout_ms: self.call_timeout.map(milliseconds),
            concurrency: self.concurrency,
            cpu_ms: self.cpu_time.map(milliseconds),
            payload_bytes: self.payload_bytes,
            reply_bytes: self.reply_bytes,
            host_calls: self.host_calls,
            log_bytes: self.log_bytes,
        }
    }
}

/// A time as requests have it, at least 1 ms.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
