//! An instance's lines on their way to the node: in batches, one after the other, each sent again until the node has taken it. What is
//! written meanwhile waits where its bytes are counted; the loss of any of it is reported.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Request};
use bytes::Bytes;
use nex_engine::{Line, Lines, Output, Stream};
use nex_protocol::agent::report::SEQUENCE;
use nex_protocol::agent::{LogEntry, Logs, subject};
use nex_protocol::id::{AgentId, InstanceId};
use tokio::sync::{mpsc, oneshot};

/// Lines that may wait for the bus.
const BACKLOG: usize = 4_096;
/// Lines in one message.
const BATCH: usize = 128;
/// Bytes of text at which a message is full. A line more and six bytes of JSON for each of them are still what a node takes.
const BATCH_BYTES: usize = 64 * 1024;

/// Time the node has to take a batch before it is sent again.
const TAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before that where the answer came at once: nobody is on the bus.
const RESEND_PAUSE: Duration = Duration::from_millis(100);

/// Waits until the node has what was written. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Flush(mpsc::Sender<oneshot::Sender<()>>);

impl Flush {
    /// The node has every line written before this when it returns.
    pub(crate) async fn lines(&self) {
        let (done, wait) = oneshot::channel();
        if self.0.send(done).await.is_ok() {
            wait.await.ok();
        }
    }
}

/// An output for an instance, and the work of forwarding it, to be spawned.
pub(crate) fn to_bus(bus: Client, agent: &AgentId, instance: &InstanceId) -> (Output, Flush, impl Future<Output = ()> + use<>) {
    let (output, lines) = Output::channel(BACKLOG);
    let (flush, flushes) = mpsc::channel(1);
    let forwarder = LogForwarder { bus, subject: subject::log(agent, instance), sequence: 0 };
    (output, Flush(flush), forwarder.run(lines, flushes))
}

struct LogForwarder {
    bus: Client,
    subject: String,
    /// Number of the last batch.
    sequence: u64,
}

impl LogForwarder {
    async fn run(mut self, mut lines: Lines, mut flushes: mpsc::Receiver<oneshot::Sender<()>>) {
        loop {
            tokio::select! {
                // Lines first: when it is a flush's turn, there are none left.
                biased;
                line = lines.recv() => match line {
                    Some(first) => self.forward(first, &mut lines).await,
                    None => break,
                },
                Some(done) = flushes.recv() => {
                    self.send_dropped(&lines).await;
                    done.send(()).ok();
                }
            }
        }
        self.send_dropped(&lines).await;
        // A request that is just being sent would stay in the channel, unanswered, as long as its sender keeps its end.
        flushes.close();
        while let Some(done) = flushes.recv().await {
            done.send(()).ok();
        }
    }

    async fn send_dropped(&mut self, lines: &Lines) {
        let last = Logs { lines: Vec::new(), dropped: lines.take_dropped() };
        if last.dropped > 0 {
            self.send(&last).await;
        }
    }

    /// Sends a line and those that wait behind it, as many as one message takes.
    async fn forward(&mut self, first: Line, lines: &mut Lines) {
        let mut batch = Logs { lines: Vec::new(), dropped: lines.take_dropped() };
        let (mut next, mut bytes) = (Some(first), 0);
        while let Some(Line { stream, text }) = next {
            bytes += text.len();
            batch.lines.push(LogEntry { stderr: stream == Stream::Stderr, text });
            let is_full = bytes >= BATCH_BYTES || batch.lines.len() >= BATCH;
            next = if is_full { None } else { lines.try_recv() };
        }
        self.send(&batch).await;
    }

    /// Returns when the node has taken it, however long it is away.
    async fn send(&mut self, batch: &Logs) {
        self.sequence += 1;
        let body = Bytes::from(serde_json::to_vec(batch).unwrap_or_default());
        while !self.offer(body.clone()).await {
            tokio::time::sleep(RESEND_PAUSE).await;
        }
    }

    async fn offer(&self, body: Bytes) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(SEQUENCE, self.sequence.to_string());
        let request = Request::new().payload(body).headers(headers).timeout(Some(TAKE_TIMEOUT));
        self.bus.send_request(self.subject.clone(), request).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_the_last_lines_hears_of_them_however_late_it_asks() {
        // Never connected, and nothing is sent.
        let bus = async_nats::ConnectOptions::new().retry_on_initial_connect().connect("127.0.0.1:1").await.unwrap();
        let (output, Flush(flush), forwarding) = to_bus(bus, &AgentId::new(1), &InstanceId::new(2));
        let asking = async {
            // Somebody is about to ask when the last line is written.
            let asking = flush.clone().reserve_owned().await.unwrap();
            drop(output);
            flush.closed().await;
            let (done, wait) = oneshot::channel();
            asking.send(done);
            tokio::time::timeout(Duration::from_secs(20), wait).await
        };
        let ((), answered) = tokio::join!(forwarding, asking);
        assert!(answered.is_ok(), "it waits for ever, as long as it holds its end");
    }
}
