//! What `nex logs`, `nex events` and `nex describe` have in common: they read what nodes have kept.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use nex_client::history::{History, Kept};
use nex_protocol::control::HistoryRequest;
use nex_protocol::id::NodeId;

use crate::output::Output;
use crate::session::Session;

/// A point in time, as it is given by `--since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long ago.
    Ago(SignedDuration),
    /// Then.
    At(Timestamp),
}

/// Parses `10m`, `2h30m`, `1d`, or a time of RFC 3339.
pub(crate) fn since(text: &str) -> Result<Since, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Since::At(at));
    }
    let span = text.parse::<Span>().ok().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    match span {
        Some(ago) if ago.is_positive() => Ok(Since::Ago(ago)),
        _ => Err("expected how long ago, such as 10m, 2h30m or 1d, or a time such as 2026-01-02T15:04:05Z".to_owned()),
    }
}

impl Since {
    /// Milliseconds since 1970.
    pub(crate) fn millis(self, now: Timestamp) -> i64 {
        match self {
            Self::At(at) => at.as_millisecond(),
            Self::Ago(ago) => now.as_millisecond().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

/// The nodes that are there.
pub(crate) async fn nodes(session: &Session) -> anyhow::Result<Vec<NodeId>> {
    let found = session.client.nodes(session.discovery_timeout).await?;
    let nodes: Vec<NodeId> = found.iter().filter_map(|node| node.node_id.parse().ok()).collect();
    anyhow::ensure!(!nodes.is_empty(), "no node answers; next: start one with `nex up` or `nex node up`");
    Ok(nodes)
}

/// Begins to read what they have kept; fails where none of them answers.
pub(crate) async fn open<T: Kept>(
    session: &Session,
    nodes: &[NodeId],
    namespaces: &[&str],
    request: &HistoryRequest,
) -> anyhow::Result<History<T>> {
    let mut history = session.client.kept::<T>(nodes, namespaces, request).await;
    if history.until.is_empty()
        && let Some((_, error)) = history.missed.pop()
    {
        return Err(error.into());
    }
    Ok(history)
}

/// Says what of it could not be read.
pub(crate) fn say_what_is_missing<T>(history: &History<T>, output: &Output) {
    for (node, error) in &history.missed {
        output.note(format!("What node {node} has kept is missing: {error}"));
    }
    if history.damaged > 0 {
        output.note(format!("{} damaged records were passed over", history.damaged));
    }
    if history.is_cut {
        output.note("There may be older ones: nodes do not search all that they have kept at once; narrow it by --since");
    }
}

/// A pause as it is told.
pub(crate) fn pause(millis: u64) -> String {
    format!("{:?}", Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_so_long_ago_or_a_point() {
        let now: Timestamp = "2026-01-02T15:04:05Z".parse().unwrap();
        let millis = |text: &str| since(text).map(|since| now.as_millisecond() - since.millis(now));
        assert_eq!(millis("10m"), Ok(600_000));
        assert_eq!(millis("1d"), Ok(86_400_000));
        assert_eq!(millis("1h30m"), Ok(5_400_000));
        assert_eq!(millis("2026-01-02T15:04:00Z"), Ok(5_000));
        for text in ["", "-5m", "0s", "yesterday", "10"] {
            assert!(since(text).is_err(), "{text}");
        }
    }
}
