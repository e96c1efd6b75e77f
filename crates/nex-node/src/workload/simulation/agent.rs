//! An agent with one instance, on a bus that loses, delays and repeats.

use std::time::Duration;

use async_nats::{HeaderMap, Message};
use nex_protocol::agent::AgentEvent;
use nex_protocol::agent::report::EVENT_SEQUENCE;
use nex_protocol::id::{AgentId, InstanceId, WorkloadId};
use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use super::world::{Shared, lock};

/// An agent with one instance of a workload.
pub(super) struct SimulatedAgent {
    pub(super) world: Shared,
    pub(super) workload: WorkloadId,
    pub(super) agent: AgentId,
    pub(super) instance: InstanceId,
    pub(super) lost: CancellationToken,
}

/// An agent with one instance, on a bus that loses, delays and repeats: calls, then an exit, or the agent's own death, or neither.
pub(super) async fn live(it: SimulatedAgent) {
    let (reports, dies, exits, code) = {
        let mut world = lock(&it.world);
        if world.is_quiet {
            return;
        }
        (world.rng.random_range(0..4_u64), world.chance(30), world.chance(50), i32::from(world.chance(60)))
    };
    let mut sequence = 0;
    for report in 0..reports {
        let pause = lock(&it.world).pause(20_000);
        if it.lost.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        let succeeded = report + 1;
        let event = AgentEvent::Calls { trigger: "t".into(), succeeded, failed: 0, elapsed_nanos: 0, errors: Vec::new() };
        lock(&it.world).calls_sent += succeeded;
        sequence += 1;
        if it.lost.run_until_cancelled(deliver(&it, sequence, &event)).await.is_none() {
            // It was stopped meanwhile; whether this was heard is not promised.
            lock(&it.world).calls_are_certain = false;
            return;
        }
    }
    if dies {
        lock(&it.world).end(&it.agent);
    } else if exits {
        lock(&it.world).running.remove(&it.workload);
        let exited = AgentEvent::Exited { code, message: String::new() };
        it.lost.run_until_cancelled(deliver(&it, sequence + 1, &exited)).await;
    }
}

/// Sends an event until it is acknowledged, whether or not a node is there, over a bus that loses the event, loses the acknowledgement, or
/// delivers twice.
async fn deliver(it: &SimulatedAgent, sequence: u64, event: &AgentEvent) {
    let mut headers = HeaderMap::new();
    headers.insert(EVENT_SEQUENCE, sequence.to_string());
    let payload = bytes::Bytes::from(serde_json::to_vec(event).unwrap());
    let length = payload.len();
    let message =
        Message { subject: "x".into(), reply: None, payload, headers: Some(headers), status: None, description: None, length };
    loop {
        let (delay, is_lost, repeats, ack_is_lost) = {
            let mut world = lock(&it.world);
            (world.pause(300), world.chance(30), 1 + u32::from(world.chance(30)), world.chance(30))
        };
        tokio::time::sleep(delay).await;
        let router = lock(&it.world).router.clone();
        if let Some(router) = router.filter(|_| !is_lost) {
            let acks: Vec<_> = (0..repeats).map(|_| router.event(&it.agent, &it.instance, &message)).collect();
            if acks.iter().any(Option::is_some) && !ack_is_lost {
                return;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
