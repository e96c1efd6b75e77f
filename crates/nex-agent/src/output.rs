//! An instance's lines on their way to the node: in batches, in order, the loss of any of them reported.

use async_nats::Client;
use nex_engine::{Line, Output, Stream};
use nex_protocol::agent::{LogEntry, Logs, subject};
use nex_protocol::id::{AgentId, InstanceId};
use tokio::sync::{mpsc, oneshot};

/// Lines that may wait for the bus.
const BACKLOG: usize = 4_096;
/// Lines in one message.
const BATCH: usize = 128;
/// Bytes of text in one message, so that it stays far below the bus's limit.
const BATCH_BYTES: usize = 256 * 1024;

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
    let forwarder = LogForwarder { bus, subject: subject::log(agent, instance), counter: output.clone() };
    (output, Flush(flush), forwarder.run(lines, flushes))
}

struct LogForwarder {
    bus: Client,
    subject: String,
    counter: Output,
}

impl LogForwarder {
    async fn run(self, mut lines: mpsc::Receiver<Line>, mut flushes: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut waiting = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                // Lines first: when it is a flush's turn, there are none left.
                biased;
                count = lines.recv_many(&mut waiting, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.forward(&mut waiting).await;
                }
                Some(done) = flushes.recv() => {
                    let last = Logs { lines: Vec::new(), dropped: self.counter.take_dropped() };
                    if last.dropped > 0 {
                        send(&self.bus, &self.subject, &last).await;
                    }
                    done.send(()).ok();
                }
            }
        }
    }

    async fn forward(&self, waiting: &mut Vec<Line>) {
        let mut batch = Logs { lines: Vec::with_capacity(waiting.len()), dropped: self.counter.take_dropped() };
        let mut bytes = 0;
        for Line { stream, text } in waiting.drain(..) {
            bytes += text.len();
            batch.lines.push(LogEntry { stderr: stream == Stream::Stderr, text });
            if bytes >= BATCH_BYTES {
                send(&self.bus, &self.subject, &batch).await;
                bytes = 0;
                (batch.lines, batch.dropped) = (Vec::new(), 0);
            }
        }
        if !batch.lines.is_empty() {
            send(&self.bus, &self.subject, &batch).await;
        }
    }
}

async fn send(bus: &Client, subject: &str, batch: &Logs) {
    // While the bus is away the client keeps what it can; the node is told of what it could not.
    bus.publish(subject.to_owned(), serde_json::to_vec(batch).unwrap_or_default().into()).await.ok();
}
