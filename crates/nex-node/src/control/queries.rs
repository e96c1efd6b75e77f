//! Questions about the node: AUCTION, PING, WPING, INFO, answered from memory, at once; HISTORY, from the disk.

use std::sync::Arc;
use std::time::Duration;

use nex_process::Deadline;
use nex_process::usage::ResourceUse;
use nex_protocol::control::{
    AuctionRequest, HistoryRequest, HistoryResponse, HostUse, InfoResponse, Memory, NodeSummary, ResourceSummary, TailLine,
    WorkloadPingRequest, WorkloadPingResponse, WorkloadSummary,
};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::envelope::{ErrorCode, Failure};
use nex_protocol::id::{InvalidId, Namespace};
use nex_protocol::subject::{self, HistoryKind};

use super::body;
use crate::config::{LiveConfig, NodeConfig};
use crate::identity::Identity;
use crate::policy;
use crate::quota::Charge;
use crate::status::{NodeStatus, VERSION};
use crate::tail::Tail;
use crate::workload::runtime::DriverServices;
use crate::workload::{Workload, Workloads};

/// Triggers of an auction that are compared with all that run here: anybody may ask. A deploy is asked about all of its own.
const MAX_TRIGGERS: usize = 32;

/// Answers questions.
pub(super) struct Queries {
    pub(super) identity: Arc<Identity>,
    pub(super) config: LiveConfig,
    pub(super) status: Arc<NodeStatus>,
    pub(super) registry: Workloads,
    pub(super) drivers: Arc<DriverServices>,
}

impl Queries {
    /// A bid; silence where the node declines and nobody asked why.
    pub(super) fn bid(&self, body: &[u8]) -> Option<NodeSummary> {
        // An empty or unreadable body asks everybody, as in 0.2.7.
        let request: AuctionRequest = serde_json::from_slice::<Option<AuctionRequest>>(body).ok().flatten().unwrap_or_default();
        let config = self.config.now();
        let mut declined = request.mismatches(&self.status.tags(), false, &config.workload_types);
        declined.extend(isolation_mismatch(&request, &config));
        if self.status.is_lame_duck() {
            declined.push("it is in lame duck mode".to_owned());
        }
        let config = self.config.now();
        declined.extend(self.registry.full(&config.quotas, &asked_for(&request, &config), request.replaces.as_deref()));
        let taken_trigger = self.taken_trigger(&request);
        declined.extend(
            taken_trigger.iter().map(|subject| format!("another namespace has a trigger there that overlaps with {subject}")),
        );
        match declined.is_empty() {
            true => Some(self.summary()),
            false => request.explain.then(|| NodeSummary { declined, taken_trigger, ..self.summary() }),
        }
    }

    /// The first of the triggers that another namespace has here: functions of both would be called.
    fn taken_trigger(&self, request: &AuctionRequest) -> Option<String> {
        let namespace = request.namespace.as_deref()?.parse::<Namespace>().ok()?;
        let triggers = request.triggers.get(..request.triggers.len().min(MAX_TRIGGERS))?;
        self.registry.taken_trigger(&namespace, triggers)
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
            taken_trigger: None,
        }
    }

    /// The answer to WPING; silence where nothing matches.
    pub(super) async fn workload_ping(
        &self,
        namespace: &str,
        workload: Option<&str>,
        body: &[u8],
    ) -> Option<WorkloadPingResponse> {
        // An empty or unreadable body asks for nothing more, as in 0.2.7.
        let request: WorkloadPingRequest = serde_json::from_slice(body).unwrap_or_default();
        let mut room = SETTINGS;
        let mut settings = |workload: &Workload| {
            let sealed = request.settings.then(|| workload.spec.sealed_settings(&self.identity.xkey)).flatten()?;
            // What there is no room for is asked for by itself.
            room = room.checked_sub(sealed.sealed.len())?;
            Some(sealed)
        };
        let mut tails = TailReader { most: request.tail.unwrap_or(0), bytes: TAILS };
        let wanted = |name: &str, id: &str| workload.is_none_or(|wanted| wanted == id || wanted.eq_ignore_ascii_case(name));
        let mut found = self.registry.all();
        found.retain(|known| is_in(namespace, &known.spec.namespace) && wanted(known.spec.name.as_str(), known.spec.id.as_str()));
        let mut usage = if request.usage { self.usage(&found).await } else { Vec::new() }.into_iter();
        let running_machines: Vec<_> = found
            .iter()
            .map(|workload| WorkloadSummary {
                tail: tails.read(&workload.tail),
                isolation: Some(self.drivers.launcher.isolation(&workload.spec)),
                usage: usage.next().flatten(),
                settings: settings(workload),
                trigger_states: self.drivers.launcher.durable.of(&workload.spec),
                ..workload.summary()
            })
            .collect();
        let mut ended = if request.ended { self.drivers.ended.of(namespace, workload) } else { Vec::new() };
        if !request.settings {
            ended.iter_mut().for_each(|ended| ended.settings = None);
        }
        // The last ones to end have their lines first, should they be too many for all.
        ended.iter_mut().rev().for_each(|ended| tails.cut(&mut ended.tail));
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

    /// What workloads use, in their order. The kernel's files are read where nobody is kept waiting.
    async fn usage(&self, workloads: &[Arc<Workload>]) -> Vec<Option<ResourceSummary>> {
        let meters: Vec<_> = workloads.iter().map(|workload| workload.meter.clone()).collect();
        let status = Arc::clone(&self.status);
        let read = move || {
            let measured = |used: ResourceUse| ResourceSummary {
                at_ms: status.running_ms(),
                cpu_ms: u64::try_from(used.cpu.as_millis()).unwrap_or(u64::MAX),
                memory_bytes: used.memory_bytes,
                memory_limit_bytes: used.memory_limit,
            };
            meters.iter().map(|meter| meter.read().map(measured)).collect()
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// The answer to HISTORY: read from the disk.
    pub(super) async fn history(
        &self,
        namespace: &str,
        kind: HistoryKind,
        body: &[u8],
        by: Deadline,
    ) -> Result<HistoryResponse, Failure> {
        let request: HistoryRequest = if body.is_empty() { HistoryRequest::default() } else { body::parse("history", body)? };
        let namespace = namespace.parse().map_err(|error: InvalidId| Failure::new(ErrorCode::BadRequest, error.to_string()))?;
        self.drivers.history.page(namespace, kind, request, by.within(HISTORY)).await.map_err(Failure::from)
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
            host: std::fs::read_to_string("/proc/stat").ok().and_then(|text| host(&text, self.status.running_ms())),
            machines: machines.iter().filter(|m| m.spec.namespace.as_str() == namespace).map(|m| m.machine()).collect(),
            more_machines: 0,
            supported_workload_types: self.config.now().workload_types.iter().map(ToString::to_string).collect(),
            quotas: self.registry.quotas(&self.config.now().quotas, namespace),
            history: Some(self.drivers.history.summary()),
        }
    }
}

/// Why workloads as they are asked for cannot be kept apart here as they have to be.
fn isolation_mismatch(request: &AuctionRequest, config: &NodeConfig) -> Option<String> {
    let kinds = request.workload_types.iter().flatten().filter_map(|text| text.parse::<WorkloadType>().ok());
    // A client that says neither is told when it deploys.
    let (asked, namespace) = (request.isolation.as_deref(), request.namespace.as_deref());
    let kind = kinds.max().or_else(|| asked.map(|_| WorkloadType::V8))?;
    config.isolation.of(asked, namespace.unwrap_or_default(), kind, false).err().map(|refusal| refusal.to_string())
}

/// Whom a workload would count for that somebody asks about, and what.
fn asked_for(request: &AuctionRequest, config: &NodeConfig) -> Charge {
    let kind = request.workload_types.iter().flatten().find_map(|kind| kind.parse::<WorkloadType>().ok());
    Charge {
        namespace: request.namespace.as_deref().and_then(|namespace| namespace.parse().ok()),
        issuer: request.issuer.clone(),
        demand: policy::demand(config, kind, request.memory_mib, request.machine_class.as_deref()),
    }
}

/// Longest time to read what was kept: who asks waits no longer.
const HISTORY: Duration = Duration::from_secs(10);
/// Whether a namespace is the one that was asked about, or all were.
fn is_in(asked: &str, namespace: &Namespace) -> bool {
    asked == subject::ALL_NAMESPACES || namespace.as_str() == asked
}

/// Most bytes of settings in one answer, which has to fit into a message.
const SETTINGS: usize = 512 * 1024;
/// Most bytes of lines in one answer, which has to fit into a message.
const TAILS: usize = 256 * 1024;

/// Reads last lines while there is room for them.
struct TailReader {
    most: usize,
    bytes: usize,
}

impl TailReader {
    fn read(&mut self, tail: &Tail) -> Vec<TailLine> {
        let mut lines = tail.last_within(self.most, self.bytes);
        self.cut(&mut lines);
        lines
    }

    /// Leaves the last lines that there is room for.
    fn cut(&mut self, lines: &mut Vec<TailLine>) {
        let mut first = lines.len();
        for line in lines.iter().rev().take(self.most) {
            let cost = line.text.len() * 2 + 64;
            if cost > self.bytes {
                break;
            }
            self.bytes -= cost;
            first -= 1;
        }
        lines.drain(..first);
    }
}

fn memory(meminfo: &str) -> Memory {
    let kb = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    Memory { total: kb("MemTotal"), free: kb("MemFree"), available: kb("MemAvailable") }
}

/// How busy the host's processors were since it was booted.
fn host(stat: &str, at_ms: u64) -> Option<HostUse> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|field| field.parse::<u64>().ok());
    // user nice system, idle iowait, irq softirq steal; time of guests is in user already.
    let mut sum = |count: usize| fields.by_ref().take(count).sum::<u64>();
    let (before, _idle, after) = (sum(3), sum(2), sum(3));
    let processors =
        stat.lines().filter(|line| line.strip_prefix("cpu").is_some_and(|it| it.starts_with(|c: char| c.is_ascii_digit())));
    // Ticks are hundredths of a second wherever the kernel tells them to programs.
    Some(HostUse { at_ms, busy_ms: (before + after).saturating_mul(10), processors: processors.count() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_as_busy_as_its_processors_were() {
        let text = "cpu  1 2 3 1000 1000 4 5 6 7 8\ncpu0 1 2\ncpu1 1 2\nintr 5\n";
        assert_eq!(host(text, 9), Some(HostUse { at_ms: 9, busy_ms: 210, processors: 2 }));
        assert_eq!(host("nonsense", 9), None);
    }

    #[test]
    fn meminfo_is_read_in_kilobytes_and_its_absence_is_zero() {
        let text = "MemTotal:       24000 kB\nMemFree:  1000 kB\nMemAvailable: 2000 kB\n";
        assert_eq!(memory(text), Memory { total: 24_000, free: 1_000, available: 2_000 });
        assert_eq!(memory("nonsense"), Memory::default());
    }
}
