//! What a dead letter says besides its payload: why it is one, and where it came from. Names of headers.

/// Why it was given up.
pub const REASON: &str = "Nex-Dead-Reason";
/// How often it was delivered, decimal.
pub const ATTEMPTS: &str = "Nex-Dead-Attempts";
/// Name of the workload.
pub const WORKLOAD: &str = "Nex-Dead-Workload";
/// Id of the workload that had it last.
pub const WORKLOAD_ID: &str = "Nex-Dead-Workload-Id";
/// SHA-256 of that workload's artifact: the version that failed.
pub const DIGEST: &str = "Nex-Dead-Digest";
/// The trigger.
pub const TRIGGER: &str = "Nex-Dead-Trigger";
/// The stream it came from.
pub const STREAM: &str = "Nex-Dead-Stream";
/// Its sequence in that, decimal.
pub const SEQUENCE: &str = "Nex-Dead-Sequence";
/// Its subject there.
pub const SUBJECT: &str = "Nex-Dead-Subject";
/// The host calls of the last attempt: the node's curve key, a blank, and a [`Record`](crate::replay::Record) that it sealed to who deployed
/// the workload; absent where there is none.
pub const CALLS: &str = "Nex-Dead-Calls";
/// What names of headers of the message itself begin with here, where a server or a node would act by them: `Nats-…`, `Nex-…`.
pub const KEPT: &str = "Nex-Kept-";

/// The name under which a dead letter keeps a header of its message.
#[must_use]
pub fn kept_as(name: &str) -> String {
    let begins = |with: &str| name.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    if begins("Nats-") || begins("Nex-") { format!("{KEPT}{name}") } else { name.to_owned() }
}

/// The name that a header of a dead letter had in its message; nothing where it is the dead letter's own.
#[must_use]
pub fn was_called(name: &str) -> Option<&str> {
    let begins = |with: &str| name.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    match name.get(KEPT.len()..) {
        Some(rest) if begins(KEPT) => Some(rest),
        _ if begins("Nats-") || begins("Nex-") => None,
        _ => Some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_and_none_acts_meanwhile() {
        for name in ["traceparent", "Nats-Msg-Id", "nats-rollup", "Nex-Dead-Reason", "Nex-Kept-Nats-TTL", "N", ""] {
            let kept = kept_as(name);
            assert!(!kept.to_ascii_lowercase().starts_with("nats-"), "{kept}");
            assert_eq!(was_called(&kept), Some(name));
        }
        assert_eq!((was_called(REASON), was_called("Nats-Msg-Id")), (None, None));
    }
}
