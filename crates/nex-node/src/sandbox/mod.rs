//! Chooses the sandboxes of this node's agents by its configuration and by probing the host.
//!
//! With `auto` the best kind that works is taken: Firecracker, then QEMU on KVM, then jailed processes; the log and the tags say why a
//! better kind is not used. A kind that is named is required.

mod builder;
mod candidate;
mod host;
mod machines;
mod network;
mod probe_cache;
mod timeouts;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nex_process::confinement::Part;
use nex_process::{Confinement, Deadline};
use nex_protocol::control::Tags;
use nex_protocol::deploy::Isolation;
use nex_sandbox::microvm::MicroVmProvider;
use nex_sandbox::process::{Limits, OpenError, ProcessConfig, ProcessNetwork, ProcessProvider};
use nex_sandbox::{AdoptError, Sandbox, SandboxId, SandboxProvider};

pub use candidate::{Accel, Candidate};
pub use host::{Host, UID_BASE};
pub use machines::{ProbeError, network_lacks, resources, vmm_candidates};
pub use nex_network::MissingRequirement;
pub use timeouts::Timeouts;

use crate::config::{NodeConfig, SandboxChoice};
use host::{SWEEP, short};

/// Longest time to probe the host.
const PROBE: Duration = Duration::from_secs(30);

/// No sandboxes.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Jailed processes do not work.
    #[error(transparent)]
    Process(#[from] OpenError),
    /// The microVMs that the configuration demands do not work.
    #[error("no microVM works on this host: {}; next: run 'nex node preflight', or use \"sandbox\": \"auto\"", .0.join("; "))]
    NoWorkingMonitor(Vec<String>),
}

/// The node's sandboxes.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    provider: Provider,
    /// Why a better kind is not used.
    reasons: Vec<String>,
    /// The NATS servers that a process in a network of its own reaches.
    servers: Vec<SocketAddr>,
    /// Layers that the operator waived.
    waived: Vec<Part>,
}

/// Which servers an agent reaches at the addresses that the node uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Those that the node reaches.
    Everything,
    /// These.
    Only(Vec<SocketAddr>),
    /// None: addresses differ in its network.
    Nothing,
}

impl Reach {
    /// Whether that server is reached.
    #[must_use]
    pub fn includes(&self, server: &SocketAddr) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(servers) => servers.contains(server),
            Self::Nothing => false,
        }
    }
}

#[derive(Debug, Clone)]
enum Provider {
    Process(ProcessProvider),
    MicroVm {
        provider: MicroVmProvider,
        candidate: Candidate,
        /// How long a machine takes to boot.
        boot: Duration,
        /// Builds the roots of images, or why none are built.
        builder: Result<ProcessProvider, String>,
    },
}

impl Sandboxes {
    /// Probes the host and opens the best sandboxes. Those that an earlier process left running are spared until the next sweep.
    ///
    /// # Errors
    /// [`SandboxError`] when nothing works, or not what the configuration demands.
    pub async fn open(config: &NodeConfig, host: Host<'_>, left: &BTreeSet<SandboxId>) -> Result<Self, SandboxError> {
        let mut reasons = Vec::new();
        if config.sandbox != SandboxChoice::Process {
            if let Some((provider, candidate, boot)) =
                Box::pin(machines::first_that_works(config, host, left, &mut reasons)).await
            {
                reasons.iter().for_each(|reason| tracing::info!("not used: {reason}"));
                let boot_ms = boot.as_millis();
                tracing::info!(monitor = %provider.kind(), accel = %candidate.accel, boot_ms, "workloads run in microVMs");
                provider.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
                let builder = builder::open(config, host).await;
                let provider = Provider::MicroVm { provider, candidate, boot, builder };
                return Ok(Self { provider, reasons, servers: Vec::new(), waived: Vec::new() });
            }
            if config.sandbox != SandboxChoice::Auto {
                return Err(SandboxError::NoWorkingMonitor(reasons));
            }
            let why = reasons.join("; ");
            if config.microvm.expected {
                tracing::warn!(
                    "workloads run in jailed processes, not in microVMs: {why}; next: run 'nex node preflight', or say \"sandbox\": \"process\" if this is meant"
                );
            } else {
                tracing::info!(
                    "workloads run in jailed processes ({why}); for microVMs: nex node preflight --sandbox auto --force"
                );
            }
        }
        let network = network::open(config, host).await;
        let left = host.state_dir.join("network");
        if matches!(network, ProcessNetwork::Shared { .. }) && left.is_dir() {
            // An earlier run of this node had a network; remove what is left of it.
            nex_network::remove_leftovers(&short(host.node), &left, Deadline::after(SWEEP)).await;
        }
        let provider = ProcessProvider::open(process_config(config, host), network, Deadline::after(PROBE)).await?;
        for (part, reason) in provider.confinement().missing() {
            tracing::warn!("workloads lack a layer of confinement: {part}: {reason}");
        }
        let reached = |server: &&SocketAddr| matches!(server, SocketAddr::V4(server) if network::reaches(*server));
        let servers = host.nats.iter().filter(reached).copied().collect();
        Ok(Self { provider: Provider::Process(provider), reasons, servers, waived: config.waive.clone() })
    }

    /// The provider, for the pool.
    #[must_use]
    pub fn provider(&self) -> Arc<dyn SandboxProvider> {
        match &self.provider {
            Provider::Process(provider) => Arc::new(provider.clone()),
            Provider::MicroVm { provider, .. } => Arc::new(provider.clone()),
        }
    }

    /// The provider that compiles WebAssembly in a jail; none for microVMs, which accept no file but an artifact.
    #[must_use]
    pub fn compiler(&self) -> Option<ProcessProvider> {
        match &self.provider {
            Provider::Process(provider) => Some(provider.clone()),
            Provider::MicroVm { .. } => None,
        }
    }

    /// The provider that builds the roots of images.
    ///
    /// # Errors
    /// Why no workload can have one here.
    pub fn images(&self) -> Result<ProcessProvider, String> {
        match &self.provider {
            Provider::Process(provider) => provider.takes_images().map(|()| provider.clone()),
            Provider::MicroVm { builder, .. } => builder.clone(),
        }
    }

    /// How far they keep workloads apart: jailed processes may be shared, machines are not.
    #[must_use]
    pub fn isolations(&self) -> Vec<Isolation> {
        match &self.provider {
            Provider::Process(_) => vec![Isolation::Isolate, Isolation::Process],
            Provider::MicroVm { .. } => vec![Isolation::MicroVm],
        }
    }

    /// Where the internal bus must listen for agents to reach it, and the ports where they would reach something else.
    #[must_use]
    pub fn bus_place(&self) -> (IpAddr, BTreeSet<u16>) {
        match &self.provider {
            Provider::Process(provider) => match provider.network() {
                Some(network) => (network.gateway().into(), network.loopback_ports().clone()),
                None => (Ipv4Addr::LOCALHOST.into(), BTreeSet::new()),
            },
            Provider::MicroVm { provider, .. } => (provider.gateway().into(), provider.loopback_ports().clone()),
        }
    }

    /// Lets agents reach the internal bus.
    ///
    /// # Errors
    /// [`nex_network::NetworkError`]
    pub async fn permit_bus(&self, port: u16) -> Result<(), nex_network::NetworkError> {
        match &self.provider {
            Provider::Process(provider) => match provider.network() {
                Some(network) => network.permit_gateway_port(port).await,
                None => Ok(()),
            },
            Provider::MicroVm { provider, .. } => provider.permit_gateway_port(port).await,
        }
    }

    /// Which NATS servers agents reach at the addresses that this process uses.
    #[must_use]
    pub fn reach(&self) -> Reach {
        match &self.provider {
            Provider::Process(provider) if provider.network().is_none() => Reach::Everything,
            Provider::Process(_) => Reach::Only(self.servers.clone()),
            Provider::MicroVm { .. } => Reach::Nothing,
        }
    }

    /// The timeouts that suit the speed of these sandboxes.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        match &self.provider {
            Provider::Process(_) => Timeouts::default(),
            Provider::MicroVm { candidate, boot, .. } => Timeouts::of_machines(candidate.accel, *boot),
        }
    }

    /// Takes over a sandbox of an earlier process of this node.
    ///
    /// # Errors
    /// [`AdoptError`]
    pub async fn adopt(&self, id: &SandboxId) -> Result<Box<dyn Sandbox>, AdoptError> {
        match &self.provider {
            Provider::Process(provider) => Ok(Box::new(provider.adopt(id, Deadline::after(SWEEP)).await?)),
            Provider::MicroVm { provider, .. } => provider.adopt(id, Deadline::after(SWEEP)).await,
        }
    }

    /// Removes sandboxes that an earlier process of this node left, except those to keep; returns how many.
    pub async fn sweep(&self, keep: &BTreeSet<SandboxId>) -> usize {
        match &self.provider {
            Provider::Process(provider) => provider.sweep(keep, Deadline::after(SWEEP)).await,
            Provider::MicroVm { provider, .. } => provider.sweep(keep, Deadline::after(SWEEP)).await,
        }
    }

    /// Waits until everything dropped is removed.
    pub async fn close(&self) {
        match &self.provider {
            Provider::Process(provider) => provider.close(SWEEP).await,
            Provider::MicroVm { provider, builder, .. } => {
                provider.close(SWEEP).await;
                if let Ok(builder) = builder {
                    builder.close(SWEEP).await;
                }
            }
        }
    }

    /// What confines the agents, as tags.
    #[must_use]
    pub fn tags(&self) -> Tags {
        match &self.provider {
            Provider::Process(provider) => {
                let mut tags = tags(provider.confinement());
                if !self.waived.is_empty() {
                    let waived: Vec<_> = self.waived.iter().map(|part| part.name()).collect();
                    tags.insert("nex.sandbox.waived".into(), waived.join(", "));
                }
                if !self.reasons.is_empty() {
                    tags.insert("nex.sandbox.reason".into(), self.reasons.join("; "));
                }
                tags
            }
            Provider::MicroVm { provider, candidate, .. } => Tags::from([
                ("nex.sandbox".to_owned(), provider.kind().to_string()),
                ("nex.sandbox.accel".to_owned(), candidate.accel.to_string()),
                ("nex.unsafe".to_owned(), (!candidate.is_safe()).to_string()),
            ]),
        }
    }
}

fn process_config(config: &NodeConfig, host: Host<'_>) -> ProcessConfig {
    let limits = &config.workload_limits;
    ProcessConfig {
        node: short(host.node),
        agent_binary: host.agent_binary.to_owned(),
        state_dir: host.state_dir.to_owned(),
        limits: Limits {
            memory_bytes: limits.max_memory_bytes,
            pids: limits.processes,
            cpu_percent: limits.cpu_percent,
            tmp_bytes: limits.tmp_bytes,
            ..Limits::default()
        },
        uid_base: UID_BASE,
        require: required(config),
    }
}

/// The layers without which jailed processes are not taken, by this user.
#[must_use]
pub fn required(config: &NodeConfig) -> Vec<Part> {
    config.required(nix::unistd::geteuid().is_root())
}

/// Probes the confinement of this host, for preflight.
///
/// # Errors
/// [`OpenError`] when the agent does not start or does not report.
pub async fn probe(agent_binary: &Path, uid: u32, by: Deadline) -> Result<Confinement, OpenError> {
    nex_sandbox::process::probe(agent_binary, uid, network::of_processes(), by).await
}

/// How agents are confined, as tags: the kind of sandbox, and what this host lacks of it.
#[must_use]
pub fn tags(confinement: &Confinement) -> Tags {
    // As in 0.2.7: workloads are not in VMs of their own. How they are confined instead stands in the other tags.
    let mut tags = Tags::from([("nex.sandbox".to_owned(), "process".to_owned()), ("nex.unsafe".to_owned(), "true".to_owned())]);
    let missing: Vec<String> = confinement.missing().into_iter().map(|(part, _)| part.name().to_owned()).collect();
    if !missing.is_empty() {
        tags.insert("nex.sandbox.missing".into(), missing.join(", "));
    }
    tags
}
