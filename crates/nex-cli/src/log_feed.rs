//! Publishes the node's log to NATS (`--logger nats`), on the subjects of 0.2.7.

use std::io;

use async_nats::Client;
use nex_protocol::id::NodeId;
use nex_protocol::subject;
use tokio::sync::mpsc;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines buffered until the node is connected; further ones are dropped.
const MAX_BUFFERED_LINES: usize = 1_024;

/// Whether a line is an error, and the line.
type Line = (bool, Vec<u8>);

/// The reading end of the log.
#[derive(Debug)]
pub(crate) struct LogFeed {
    lines: mpsc::Receiver<Line>,
}

/// The writing end of the log, for the subscriber.
#[derive(Debug, Clone)]
pub(crate) struct FeedWriter {
    lines: mpsc::Sender<Line>,
    is_error: bool,
}

/// Creates a feed.
pub(crate) fn feed() -> (FeedWriter, LogFeed) {
    let (sender, lines) = mpsc::channel(MAX_BUFFERED_LINES);
    (FeedWriter { lines: sender, is_error: false }, LogFeed { lines })
}

impl LogFeed {
    /// Publishes lines until the writing end is dropped.
    pub(crate) async fn publish(mut self, nats: Client, node: NodeId) {
        while let Some((is_error, line)) = self.lines.recv().await {
            let stream = if is_error { "stderr" } else { "stdout" };
            nats.publish(subject::node_log(&node, stream), line.into()).await.ok();
        }
    }
}

impl<'a> MakeWriter<'a> for FeedWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self {
        Self { is_error: *meta.level() == Level::ERROR, ..self.clone() }
    }
}

impl io::Write for FeedWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Never block logging on NATS: drop the line if the buffer is full.
        self.lines.try_send((self.is_error, line.to_vec())).ok();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
