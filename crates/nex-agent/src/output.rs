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
                    None => return,
                },
                Some(done) = flushes.recv() => {
                    let last = Logs { lines: Vec::new(), dropped: lines.take_dropped() };
                    if last.dropped > 0 {
                        self.send(&last).await;
                    }
                    done.send(()).ok();
                }
            }
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
