//! An agent with one instance, on a bus that loses, delays and repeats.

use std::time::Duration;

use async_nats::{HeaderMap, Message};
use nex_protocol::agent::AgentEvent;
use nex_protocol::agent::report::SEQUENCE;
use nex_protocol::id::{AgentId, InstanceId, WorkloadId};
use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use super::world::{Shared, World, lock};

/// An agent with one instance of a workload.
pub(super) struct SimulatedAgent {
    pub(super) world: Shared,
    pub(super) workload: WorkloadId,
    pub(super) agent: AgentId,
    pub(super) instance: InstanceId,
    pub(super) lost: CancellationToken,
    /// Whether it has a health check.
    pub(super) is_gated: bool,
}

/// What becomes of an instance.
enum Fate {
    RunsOn,
    Exits(i32),
    /// Its agent dies.
    Dies,
    /// Its health check fails from now on.
    Sickens,
}

/// An agent with one instance, on a bus that loses, delays and repeats: news of its health, calls, then its fate.
pub(super) async fn live(it: SimulatedAgent) {
    let mut sequence = 0;
    if it.is_gated {
        let (pause, is_slow, is_dead) = {
            let mut world = lock(&it.world);
            (world.pause(10_000), world.fault(15), world.fault(10))
        };
        if is_dead || it.lost.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        if is_slow && !tell(&it, &mut sequence, &health(false)).await {
            return;
        }
        lock(&it.world).well.insert(it.agent.clone());
        if !tell(&it, &mut sequence, &health(true)).await {
            return;
        }
    }
    let (reports, fate) = {
        let mut world = lock(&it.world);
        if world.is_quiet {
            return;
        }
        (world.rng.random_range(0..4_u64), fate(&mut world, it.is_gated))
    };
    for report in 0..reports {
        let pause = lock(&it.world).pause(20_000);
        if it.lost.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        let succeeded = report + 1;
        let event = AgentEvent::Calls { trigger: "t".into(), succeeded, failed: 0, elapsed_nanos: 0, errors: Vec::new() };
        lock(&it.world).calls_sent += succeeded;
        if !tell(&it, &mut sequence, &event).await {
            // It was stopped meanwhile; whether this was heard is not promised.
            lock(&it.world).calls_are_certain = false;
            return;
        }
    }
    match fate {
        Fate::RunsOn => {}
        Fate::Dies => lock(&it.world).end(&it.agent),
        Fate::Exits(code) => {
            lock(&it.world).running.remove(&it.workload);
            tell(&it, &mut sequence, &AgentEvent::Exited { code, message: String::new() }).await;
        }
        Fate::Sickens => {
            lock(&it.world).sick.insert(it.agent.clone());
            while tell(&it, &mut sequence, &health(false)).await {
                it.lost.run_until_cancelled(tokio::time::sleep(Duration::from_secs(30))).await;
            }
        }
    }
}

fn fate(world: &mut World, is_gated: bool) -> Fate {
    match world.rng.random_range(0..100) {
        0..30 => Fate::Dies,
        30..60 => Fate::Exits(i32::from(world.chance(60))),
        60..75 if is_gated => Fate::Sickens,
        _ => Fate::RunsOn,
    }
}

fn health(healthy: bool) -> AgentEvent {
    AgentEvent::Health { healthy, message: String::new() }
}

/// Tells an event; whether it was heard before the agent was ended.
async fn tell(it: &SimulatedAgent, sequence: &mut u64, event: &AgentEvent) -> bool {
    *sequence += 1;
    it.lost.run_until_cancelled(deliver(it, *sequence, event)).await.is_some()
}

/// Sends an event until it is acknowledged, whether or not a node is there, over a bus that loses the event, loses the acknowledgement, or
/// delivers twice.
async fn deliver(it: &SimulatedAgent, sequence: u64, event: &AgentEvent) {
    let mut headers = HeaderMap::new();
    headers.insert(SEQUENCE, sequence.to_string());
    let payload = bytes::Bytes::from(serde_json::to_vec(event).unwrap());
    let length = payload.len();
    let message =
        Message { subject: "x".into(), reply: None, payload, headers: Some(headers), status: None, description: None, length };
    loop {
        let (delay, is_lost, repeats, ack_is_lost) = {
            let mut world = lock(&it.world);
            (world.pause(300), world.fault(30), 1 + u32::from(world.fault(30)), world.fault(30))
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
