//! The workload's lines on their way to the node: in batches, in order, the loss of any of them told.

use async_nats::Client;
use nex_engine::{Line, Output, Stream};
use nex_protocol::agent::{LogEntry, Logs, host_subject};
use nex_protocol::id::WorkloadId;
use tokio::sync::mpsc;

/// Lines that may wait for the bus.
const BACKLOG: usize = 4_096;
/// Lines in one message.
const BATCH: usize = 128;
/// Bytes of text in one message, so that it stays far below the bus's limit.
const BATCH_BYTES: usize = 256 * 1024;

/// An output for a workload, and the work of carrying it, to be spawned.
pub(crate) fn to_bus(bus: Client, agent: &WorkloadId) -> (Output, impl Future<Output = ()> + use<>) {
    let (output, lines) = Output::channel(BACKLOG);
    let carry = carry(bus, host_subject(agent, "logs"), lines, output.clone());
    (output, carry)
}

async fn carry(bus: Client, subject: String, mut lines: mpsc::Receiver<Line>, counter: Output) {
    let mut waiting = Vec::with_capacity(BATCH);
    while lines.recv_many(&mut waiting, BATCH).await > 0 {
        let mut batch = Logs { lines: Vec::with_capacity(waiting.len()), dropped: counter.take_dropped() };
        let mut bytes = 0;
        for Line { stream, text } in waiting.drain(..) {
            bytes += text.len();
            batch.lines.push(LogEntry { stderr: stream == Stream::Stderr, text });
            if bytes >= BATCH_BYTES {
                send(&bus, &subject, &batch).await;
                bytes = 0;
                (batch.lines, batch.dropped) = (Vec::new(), 0);
            }
        }
        if !batch.lines.is_empty() {
            send(&bus, &subject, &batch).await;
        }
    }
}

async fn send(bus: &Client, subject: &str, batch: &Logs) {
    // While the bus is away the client keeps what it can; the node is told of what it could not.
    bus.publish(subject.to_owned(), serde_json::to_vec(batch).unwrap_or_default().into()).await.ok();
}
