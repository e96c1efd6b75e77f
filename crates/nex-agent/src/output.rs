//! An instance's lines on their way to the node: in batches, in order, the loss of any of them reported.

use async_nats::Client;
use nex_engine::{Line, Lines, Output, Stream};
use nex_protocol::agent::{LogEntry, Logs, subject};
use nex_protocol::id::{AgentId, InstanceId};
use tokio::sync::{mpsc, oneshot};

/// Lines that may wait for the bus.
const BACKLOG: usize = 4_096;
/// Lines in one message.
const BATCH: usize = 128;
/// Bytes of text at which a message is full. A line more and six bytes of JSON for each of them are still what a node takes.
const BATCH_BYTES: usize = 64 * 1024;

/// Waits until what was written is on the bus. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Flush(mpsc::Sender<oneshot::Sender<()>>);

impl Flush {
    /// Every line written before this is published when it returns.
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
    let forwarder = LogForwarder { bus, subject: subject::log(agent, instance) };
    (output, Flush(flush), forwarder.run(lines, flushes))
}

struct LogForwarder {
    bus: Client,
    subject: String,
}

impl LogForwarder {
    async fn run(self, mut lines: Lines, mut flushes: mpsc::Receiver<oneshot::Sender<()>>) {
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

    async fn send_dropped(&self, lines: &Lines) {
        let last = Logs { lines: Vec::new(), dropped: lines.take_dropped() };
        if last.dropped > 0 {
            self.send(&last).await;
        }
    }

    /// Sends a line and those that wait behind it, as many as one message takes.
    async fn forward(&self, first: Line, lines: &mut Lines) {
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

    async fn send(&self, batch: &Logs) {
        self.bus.publish(self.subject.clone(), serde_json::to_vec(batch).unwrap_or_default().into()).await.ok();
        // While the bus is away the lines wait where their bytes are counted, and not in the client, which counts messages.
        self.bus.flush().await.ok();
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
