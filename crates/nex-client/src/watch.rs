//! Logs and events as they happen. What was said before the stream began is in [`crate::history`], as far as nodes have kept it.

use futures::{Stream, StreamExt as _};
use nex_protocol::event::{self, CloudEvent};
use nex_protocol::log::{Level, LogLine};
use nex_protocol::subject::{self, LogSource};
use tracing::debug;

use crate::Client;

/// The stream could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {subject}; next: check the permissions of the NATS user")]
pub struct WatchError {
    /// The subject.
    pub subject: String,
    /// Why.
    #[source]
    pub source: async_nats::SubscribeError,
}

/// Which lines to see; absent members do not filter. The namespace is the client's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Node id.
    pub node: Option<String>,
    /// Workload name.
    pub workload_name: Option<String>,
    /// Workload id.
    pub workload_id: Option<String>,
    /// The least serious level to see.
    pub level: Option<Level>,
}

/// One line of a log and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Where from.
    pub source: LogSource,
    /// The line.
    pub line: LogLine,
}

impl LogFilter {
    /// Whether a line passes. Name and id are compared here and not by the subject, since nodes of 0.2.7 send them in the
    /// other order.
    #[must_use]
    pub fn passes(&self, entry: &LogEntry) -> bool {
        let equal = |wanted: &Option<String>, own: &str| wanted.as_deref().is_none_or(|wanted| wanted == own);
        equal(&self.node, &entry.source.node)
            && equal(&self.workload_name, &entry.source.name)
            && equal(&self.workload_id, &entry.source.id)
            && self.level.is_none_or(|least| entry.line.level >= least)
    }
}

/// An event and the namespace it was told in, `system` for nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct NamespacedEvent {
    /// The namespace.
    pub namespace: String,
    /// The event.
    pub event: CloudEvent,
}

impl Client {
    /// Log lines of the namespace from now on.
    ///
    /// # Errors
    /// [`WatchError`]
    pub async fn logs(&self, filter: LogFilter) -> Result<impl Stream<Item = LogEntry> + Unpin + use<>, WatchError> {
        let subject = subject::log(self.namespace.as_str(), "*", "*", "*");
        let lines = self.subscribe(subject).await?.filter_map(move |message| {
            let entry = read_log(&message).filter(|entry| filter.passes(entry));
            std::future::ready(entry)
        });
        Ok(lines)
    }

    /// Events of the namespace and of nodes from now on.
    ///
    /// # Errors
    /// [`WatchError`]
    pub async fn events(&self) -> Result<impl Stream<Item = NamespacedEvent> + Unpin + use<>, WatchError> {
        let own = self.subscribe(subject::event(self.namespace.as_str(), "*")).await?;
        let system = self.subscribe(subject::event(event::SYSTEM, "*")).await?;
        Ok(futures::stream::select(own, system).filter_map(|message| std::future::ready(read_event(&message))))
    }

    async fn subscribe(&self, subject: String) -> Result<async_nats::Subscriber, WatchError> {
        self.nats.subscribe(subject.clone()).await.map_err(|source| WatchError { subject, source })
    }
}

fn read_log(message: &async_nats::Message) -> Option<LogEntry> {
    let source = LogSource::parse(&message.subject)?;
    match serde_json::from_slice(&message.payload) {
        Ok(line) => Some(LogEntry { source, line }),
        Err(error) => {
            debug!(subject = %message.subject, %error, "skipped what is no log line");
            None
        }
    }
}

fn read_event(message: &async_nats::Message) -> Option<NamespacedEvent> {
    let namespace = message.subject.strip_prefix("$NEX.events.")?.split('.').next()?.to_owned();
    match serde_json::from_slice(&message.payload) {
        Ok(event) => Some(NamespacedEvent { namespace, event }),
        Err(error) => {
            debug!(subject = %message.subject, %error, "skipped what is no event");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_compares_each_member_it_has() {
        let source = LogSource { namespace: "default".into(), node: "N1".into(), name: "echo".into(), id: "w1".into() };
        let entry = LogEntry { source, line: LogLine { text: "hi".into(), level: Level::Info, id: "w1".into(), seq: None } };
        let filter = |name: &str, level| LogFilter { workload_name: Some(name.into()), level: Some(level), ..Default::default() };
        assert!(LogFilter::default().passes(&entry));
        assert!(filter("echo", Level::Debug).passes(&entry) && filter("echo", Level::Info).passes(&entry));
        assert!(!filter("other", Level::Info).passes(&entry) && !filter("echo", Level::Warn).passes(&entry));
        assert!(!LogFilter { node: Some("N2".into()), ..Default::default() }.passes(&entry));
    }
}
