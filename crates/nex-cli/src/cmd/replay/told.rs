//! What a replay came to, and what of it differs from the record.

use nex_client::replay::{Difference, differences};
use nex_protocol::replay::{Answer, HostCall, Kept, Record, Replayed};
use serde_json::{Value, json};

use super::{Called, Message};
use crate::output::Output;
use crate::style::harmless;

/// Longest text of a body, in characters.
const SHOWN: usize = 200;
/// Longest reason of a dead letter, in characters.
const MAX_REASON: usize = 1_024;

/// A replay, to be told.
pub(super) struct Told<'a> {
    pub(super) message: &'a Message,
    pub(super) called: &'a Called,
    pub(super) replayed: &'a Replayed,
    pub(super) is_live: bool,
}

impl Told<'_> {
    /// Whether it came to the same as before; nothing where that is not known.
    pub(super) fn is_same(&self) -> Option<bool> {
        let before = self.message.failure.as_deref()?;
        let now = self.replayed.failure.as_deref().map(as_reason);
        let is_same_failure = now.is_some_and(|now| without_place(&now) == without_place(before));
        Some(is_same_failure && !self.replayed.is_later && self.differences().is_empty())
    }

    fn differences(&self) -> Vec<Difference<'_>> {
        match (&self.message.record, &self.replayed.record) {
            (Some(before), Some(now)) => differences(before, now),
            _ => Vec::new(),
        }
    }

    /// Prints it.
    pub(super) fn print(&self, output: &mut Output) -> anyhow::Result<()> {
        if output.is_json() {
            return output.document(&self.as_json());
        }
        let (message, called) = (self.message, self.called);
        let of = format!("{} ({}, attempt {})", message.what, harmless(&message.subject), message.attempt);
        output.line(format_args!("Replayed {of} with {} ({}) on node {}", called.name, called.id, called.target.node))?;
        if let Some(before) = &message.failure {
            output.line(format_args!("  before  it failed: {}", harmless(before)))?;
        }
        let style = output.style();
        let now = match (&self.replayed.failure, self.replayed.is_later) {
            (Some(failure), _) => style.error(&format!("it failed: {}", harmless(failure))),
            (None, true) => style.warn("it wants the message later"),
            (None, false) => style.good(&format!("it replied {}", shown(&self.replayed.reply))),
        };
        output.line(format_args!("  now     {now}"))?;
        output.line(format_args!("  host calls  {}", self.calls()))?;
        for difference in self.differences() {
            output.line(format_args!("    {}", line(&difference)))?;
        }
        if message.record.is_none() {
            for call in self.replayed.record.iter().flat_map(|record| &record.calls) {
                output.line(format_args!("    {}{}", named(call), answered(call)))?;
            }
        }
        output.line(match self.is_same() {
            Some(true) => "The same as on record",
            Some(false) => "Something else than on record",
            None => "There is nothing on record to compare with",
        })
    }

    fn calls(&self) -> String {
        let count = |record: &Record| record.calls.len() as u64 + record.left_out;
        let Some(now) = &self.replayed.record else { return "its own, which are not seen".to_owned() };
        let others = if self.is_live { "made" } else { "refused" };
        match &self.message.record {
            Some(before) => {
                let missing = match before.left_out {
                    0 => String::new(),
                    count => format!(" ({count} more were not kept)"),
                };
                format!("{} now, {} on record{missing}; others are {others}", count(now), before.calls.len())
            }
            None => format!("{}, all {others}", count(now)),
        }
    }

    fn as_json(&self) -> Value {
        let (message, replayed) = (self.message, self.replayed);
        let outcome = match (&replayed.failure, replayed.is_later) {
            (Some(_), _) => "failed",
            (None, true) => "later",
            (None, false) => "replied",
        };
        let told = |difference: &Difference<'_>| match difference {
            Difference::Gone(call) => json!({ "kind": "gone", "before": call }),
            Difference::New(call) => json!({ "kind": "new", "now": call }),
            Difference::Changed(before, now) => json!({ "kind": "changed", "before": before, "now": now }),
        };
        json!({
            "message": { "what": message.what, "subject": message.subject, "attempt": message.attempt, "bytes": message.payload.len() },
            "workload": self.called.name, "workload_id": self.called.id, "node_id": self.called.target.node,
            "before": message.failure.as_ref().map(|failure| json!({ "outcome": "failed", "failure": failure })),
            "now": { "outcome": outcome, "failure": replayed.failure, "reply": replayed.reply, "headers": replayed.headers },
            "is_recorded": message.record.is_some(), "host_calls": replayed.record, "is_live": self.is_live,
            "differences": self.differences().iter().map(told).collect::<Vec<_>>(),
            "is_same": self.is_same(),
        })
    }
}

/// A failure as a dead letter has it.
fn as_reason(failure: &str) -> String {
    failure.chars().take(MAX_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A failure without the line of the source where it began: that is another one in each version.
fn without_place(failure: &str) -> &str {
    let is_place = |place: &str| {
        let mut parts = place.trim_end_matches(')').rsplit(':');
        let is_number =
            |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit()));
        is_number(parts.next()) && is_number(parts.next())
    };
    match failure.rsplit_once(" at ") {
        Some((what, place)) if is_place(place) => what,
        _ => failure,
    }
}

fn line(difference: &Difference<'_>) -> String {
    match difference {
        Difference::Gone(call) => format!("- {} is not made any more", named(call)),
        Difference::New(call) => format!("+ {} is new{}", named(call), answered(call)),
        Difference::Changed(before, now) if before.body == now.body => format!("~ {}: other headers", named(now)),
        Difference::Changed(before, now) => format!("~ {}: {} instead of {}", named(now), shown(&now.body), shown(&before.body)),
    }
}

fn named(call: &HostCall) -> String {
    format!("{} {}", harmless(&call.call), harmless(&call.target))
}

fn answered(call: &HostCall) -> String {
    match &call.answer {
        Some(Answer::Ok(kept)) => format!(", and was answered {}", shown(kept)),
        Some(Answer::Err { code, message }) => format!(", and failed: {} ({code})", harmless(message)),
        None => ", without an answer".to_owned(),
    }
}

fn shown(kept: &Kept) -> String {
    let bytes = |count: u64| format!("{count} bytes");
    match kept {
        Kept::Text(text) if text.is_empty() => "nothing".to_owned(),
        Kept::Text(text) if text.chars().nth(SHOWN).is_some() => {
            format!("\"{}…\" ({})", harmless(&text.chars().take(SHOWN).collect::<String>()), bytes(text.len() as u64))
        }
        Kept::Text(text) => format!("\"{}\"", harmless(text)),
        Kept::Base64(_) => bytes(kept.bytes().map_or(0, |bytes| bytes.len() as u64)),
        Kept::Cut { bytes: count, sha256 } => format!("{} of SHA-256 {sha256}", bytes(*count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_the_same_wherever_it_stands() {
        let failed = "Error: no total at noon";
        for text in [failed, "Error: no total at noon at default (orders.js:10:81)", "Error: no total at noon at orders.js:3:4"] {
            assert_eq!(without_place(text), failed);
        }
        assert_eq!(without_place("late at 10:30 pm"), "late at 10:30 pm");
    }
}
