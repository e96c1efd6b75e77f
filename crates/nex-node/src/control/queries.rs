//! Questions about the node: AUCTION, PING, WPING, INFO. Answered from memory, at once.

use std::sync::Arc;

use nex_protocol::control::{
    AuctionRequest, EndedWorkload, InfoResponse, Memory, NodeSummary, TailLine, WorkloadPingRequest, WorkloadPingResponse,
    WorkloadSummary,
};

use crate::config::NodeConfig;
use crate::identity::Identity;
use crate::status::{NodeStatus, VERSION};
use crate::tail::Tail;
use crate::workload::Workloads;
use crate::workload::runtime::DriverServices;

/// Answers questions.
pub(super) struct Queries {
    pub(super) identity: Arc<Identity>,
    pub(super) config: Arc<NodeConfig>,
    pub(super) status: Arc<NodeStatus>,
    pub(super) registry: Workloads,
    pub(super) drivers: Arc<DriverServices>,
}

impl Queries {
    /// A bid; silence where the node declines and nobody asked why.
    pub(super) fn bid(&self, body: &[u8]) -> Option<NodeSummary> {
        // An empty or unreadable body asks everybody, as in 0.2.7.
        let request: AuctionRequest = serde_json::from_slice::<Option<AuctionRequest>>(body).ok().flatten().unwrap_or_default();
        let mut declined = request.mismatches(&self.status.tags(), false, &self.config.workload_types);
        if self.status.is_lame_duck() {
            declined.push("it is in lame duck mode".to_owned());
        }
        declined.extend(self.registry.full());
        match declined.is_empty() {
            true => Some(self.summary()),
            false => request.explain.then(|| NodeSummary { declined, ..self.summary() }),
        }
    }

    /// The answer to PING.
    pub(super) fn ping(&self) -> NodeSummary {
        self.summary()
    }

    fn summary(&self) -> NodeSummary {
        NodeSummary {
            node_id: self.identity.node.to_string(),
            nexus: self.identity.nexus.clone(),
            version: VERSION.to_owned(),
            uptime: self.status.uptime(),
            target_xkey: self.identity.xkey.public_key(),
            xkey_signature: self.identity.xkey_signature.clone(),
            tags: self.status.tags(),
            running_machines: self.registry.count(),
            warm_agents: Some(self.drivers.launcher.pools.ready()),
            declined: Vec::new(),
        }
    }

    /// The answer to WPING; silence where nothing matches.
    pub(super) fn workload_ping(&self, namespace: &str, workload: Option<&str>, body: &[u8]) -> Option<WorkloadPingResponse> {
        // An empty or unreadable body asks for nothing more, as in 0.2.7.
        let request: WorkloadPingRequest = serde_json::from_slice(body).unwrap_or_default();
        let mut tails = TailReader { most: request.tail.unwrap_or(0), bytes: TAILS };
        let wanted = |name: &str, id: &str| workload.is_none_or(|wanted| wanted == id || wanted.eq_ignore_ascii_case(name));
        let found = self.registry.all().into_iter().filter(|known| {
            known.spec.namespace.as_str() == namespace && wanted(known.spec.name.as_str(), known.spec.id.as_str())
        });
        let running_machines: Vec<_> =
            found.map(|workload| WorkloadSummary { tail: tails.read(&workload.tail), ..workload.summary() }).collect();
        let ended = if request.ended { self.drivers.ended.of(namespace, workload) } else { Vec::new() };
        // The last ones to end have their lines first, should they be too many for all.
        let mut ended: Vec<_> =
            ended.into_iter().rev().map(|(told, tail)| EndedWorkload { tail: tails.read(&tail), ..told }).collect();
        ended.reverse();
        (!running_machines.is_empty() || !ended.is_empty()).then(|| WorkloadPingResponse {
            node_id: self.identity.node.to_string(),
            target_xkey: self.identity.xkey.public_key(),
            version: VERSION.to_owned(),
            tags: self.status.tags(),
            uptime: self.status.uptime(),
            running_machines,
            ended,
        })
    }

    /// The answer to INFO.
    pub(super) fn info(&self, namespace: &str) -> InfoResponse {
        let machines = self.registry.all();
        InfoResponse {
            version: VERSION.to_owned(),
            uptime: self.status.uptime(),
            public_xkey: self.identity.xkey.public_key(),
            xkey_signature: self.identity.xkey_signature.clone(),
            tags: self.status.tags(),
            memory: std::fs::read_to_string("/proc/meminfo").ok().map(|text| memory(&text)),
            machines: machines.iter().filter(|m| m.spec.namespace.as_str() == namespace).map(|m| m.machine()).collect(),
            supported_workload_types: self.config.workload_types.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Most bytes of lines in one answer, which has to fit into a message.
const TAILS: usize = 256 * 1024;

/// Reads last lines while there is room for them.
struct TailReader {
    most: usize,
    bytes: usize,
}

impl TailReader {
    fn read(&mut self, tail: &Tail) -> Vec<TailLine> {
        let mut lines = Vec::new();
        for line in tail.last(self.most).into_iter().rev() {
            // Twice its length, should much of it have to be escaped, and the rest of its JSON.
            let cost = line.text.len() * 2 + 64;
            if cost > self.bytes {
                break;
            }
            self.bytes -= cost;
            lines.push(TailLine { at: line.at, level: line.level, text: line.text.into() });
        }
        lines.reverse();
        lines
    }
}

fn memory(meminfo: &str) -> Memory {
    let kb = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    Memory { total: kb("MemTotal"), free: kb("MemFree"), available: kb("MemAvailable") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_kilobytes_and_its_absence_is_zero() {
        let text = "MemTotal:       24000 kB\nMemFree:  1000 kB\nMemAvailable: 2000 kB\n";
        assert_eq!(memory(text), Memory { total: 24_000, free: 1_000, available: 2_000 });
        assert_eq!(memory("nonsense"), Memory::default());
    }
}
