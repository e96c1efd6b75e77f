//! How times spent are written, as nats-server and 0.2.7 do.

use std::time::Duration;

/// A time span as nats-server writes uptimes: `12s`, `3m12s`, `1h3m12s`, `2d1h3m12s`, `1y2d1h3m12s`.
#[must_use]
pub fn uptime(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let (s, m, h) = (seconds % 60, minutes % 60, hours % 24);
    match () {
        () if days >= 365 => format!("{}y{}d{h}h{m}m{s}s", days / 365, days % 365),
        () if days > 0 => format!("{days}d{h}h{m}m{s}s"),
        () if hours > 0 => format!("{h}h{m}m{s}s"),
        () if minutes > 0 => format!("{m}m{s}s"),
        () => format!("{s}s"),
    }
}

/// Time spent in a function's calls: `<n>ns` below 1 µs, `<n>ms` below 1 s, else as [`uptime`].
#[must_use]
pub fn runtime(span: Duration) -> String {
    match span {
        span if span < Duration::from_micros(1) => format!("{}ns", span.as_nanos()),
        span if span < Duration::from_secs(1) => format!("{}ms", span.as_millis()),
        span => uptime(span),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes_read_like_those_of_nats_server() {
        for (seconds, expected) in
            [(12, "12s"), (192, "3m12s"), (3_792, "1h3m12s"), (176_592, "2d1h3m12s"), (31_712_592, "1y2d1h3m12s")]
        {
            assert_eq!(uptime(Duration::from_secs(seconds)), expected);
        }
    }
}
