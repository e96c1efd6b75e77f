//! Makes agents for the pool: an id, a bus user, a sandbox, a handshake; undone as a whole when a step fails.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use futures::future::BoxFuture;
use nex_process::{Deadline, Elapsed};
use nex_protocol::agent::Identity;
use nex_protocol::envelope::chain;
use nex_protocol::id::AgentId;
use nex_sandbox::{MachineSize, Sandbox, SandboxId, SandboxProvider, SandboxSpec};

use super::agent::{Agent, AgentRecord};
use super::router::AgentRouter;
use crate::bus::BusKeys;
use crate::clock;
use crate::events::Events;
use crate::pool::{CreateFailed, Factory};

/// What an agent in a machine says first in its handshake.
const HOST_SUPPLIED: &str = "Host-supplied metadata";

/// All it takes to make an agent.
#[derive(Clone)]
pub struct AgentFactory {
    /// Mints its bus user.
    pub keys: Arc<BusKeys>,
    /// Where the bus listens.
    pub bus_url: String,
    /// What it proves with that it is the bus.
    pub bus_certificate: String,
    /// The node's own connection to it.
    pub bus: Client,
    /// Where agents are heard.
    pub router: AgentRouter,
    /// Makes its sandbox.
    pub sandboxes: Arc<dyn SandboxProvider>,
    /// Tells the world.
    pub events: Events,
    /// How large it is; the sandboxes' own size if absent.
    pub size: Option<MachineSize>,
    /// Its memory, MiB, where that is not the sandboxes' own.
    pub memory_mib: Option<u32>,
    /// Longest time from the making to the handshake.
    pub handshake_timeout: Duration,
    /// Longest time to answer a ping.
    pub ping_timeout: Duration,
}

impl std::fmt::Debug for AgentFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentFactory").field("bus_url", &self.bus_url).finish_non_exhaustive()
    }
}

impl Factory for AgentFactory {
    type Item = Agent;

    fn create(&self) -> BoxFuture<'_, Result<Agent, CreateFailed>> {
        Box::pin(async move { self.make_or_forget(None).await })
    }

    fn gone(&self, item: &Agent) -> BoxFuture<'static, ()> {
        let lost = item.lost();
        Box::pin(async move {
            lost.await;
        })
    }

    fn discard(&self, item: Agent) -> BoxFuture<'static, ()> {
        Box::pin(async move { item.end(Duration::from_millis(500)).await })
    }
}

impl AgentFactory {
    /// An agent that shook hands with an earlier process of the node and lives on in its sandbox.
    #[must_use]
    pub fn adopt(&self, record: AgentRecord, sandbox: Arc<dyn Sandbox>) -> Agent {
        Agent::new(record, sandbox, self.bus.clone(), self.router.clone(), self.ping_timeout)
    }

    /// An agent in an image, of a size of its own.
    ///
    /// # Errors
    /// Why it could not be made; whatever was begun is undone.
    pub async fn with_image(&self, image: PathBuf, size: Option<MachineSize>, by: Deadline) -> Result<Agent, CreateFailed> {
        let factory = Self { size, ..self.clone() };
        match by.bound(factory.make_or_forget(Some(image))).await {
            Ok(made) => made,
            Err(Elapsed) => Err("there was no time left for it".to_owned()),
        }
    }

    /// An agent for functions to share: it reaches nothing but its bus and the NATS servers.
    ///
    /// # Errors
    /// Why it could not be made; whatever was begun is undone.
    pub async fn shared(&self, memory_mib: u32, by: Deadline) -> Result<Agent, CreateFailed> {
        let factory = Self { size: None, memory_mib: Some(memory_mib), ..self.clone() };
        let agent =
            by.bound(factory.make_or_forget(None)).await.map_err(|Elapsed| "there was no time left for it".to_owned())??;
        match agent.restrict_network().await {
            Ok(()) => Ok(agent),
            Err(error) => {
                agent.end(Duration::ZERO).await;
                Err(format!("its network: {error}"))
            }
        }
    }

    async fn make_or_forget(&self, image: Option<PathBuf>) -> Result<Agent, CreateFailed> {
        let agent = AgentId::new(clock::unix_seconds_u32());
        let made = Box::pin(self.make(&agent, image)).await;
        if made.is_err() {
            self.router.forget(&agent);
        }
        made
    }

    async fn make(&self, agent: &AgentId, image: Option<PathBuf>) -> Result<Agent, CreateFailed> {
        let by = Deadline::after(self.handshake_timeout);
        let user = self.keys.agent_user(agent, clock::unix_seconds());
        let (bus, certificate) = (self.bus_url.clone(), self.bus_certificate.clone());
        let identity = Identity { agent: agent.clone(), bus, certificate, jwt: user.jwt, seed: user.seed };
        let mut handshake = self.router.expect(agent);
        let id = SandboxId::parse(agent.as_str()).map_err(|error| chain(&error))?;
        let spec = SandboxSpec {
            id,
            identity: serde_json::to_vec(&identity).unwrap_or_default(),
            size: self.size,
            memory_mib: self.memory_mib,
            image,
        };
        let sandbox: Arc<dyn Sandbox> = Arc::from(self.sandboxes.create(spec, by).await.map_err(|error| chain(&error))?);
        if let Some(link) = sandbox.record().network {
            let port = self.bus_url.rsplit_once(':').map_or("", |(_, port)| port);
            let netmask = format!("{:08x}", u32::MAX.checked_shl(32 - u32::from(link.prefix)).unwrap_or(0));
            tracing::info!(gateway = %link.gateway, hosttap = %link.tap, ip = %link.address, nats_host = %link.gateway, nats_port = %port, netmask = %netmask, vmid = %agent, "Machine started");
            tracing::info!(ip = %link.address, vmid = %agent, "Adding new VM to warm pool");
        }
        let shaken = tokio::select! {
            shaken = by.bound(&mut handshake) => shaken,
            exit = sandbox.exited() => return Err(format!("the agent ended before its handshake: {exit}")),
        };
        let handshake = match shaken {
            Ok(Ok(handshake)) => handshake,
            Ok(Err(_)) => return Err("the node stopped listening for the agent".to_owned()),
            Err(Elapsed) => return Err(format!("no handshake within {} ms", self.handshake_timeout.as_millis())),
        };
        match handshake.message.strip_prefix(HOST_SUPPLIED).and_then(|rest| rest.strip_prefix("; ")) {
            // A field named "message" would be the text itself; with this name it is printed beside it, as `message="…"`.
            Some(rest) => {
                tracing::info!("r#message" = HOST_SUPPLIED, confinement = rest, vmid = %agent, "Received agent handshake");
            }
            None => tracing::info!(confinement = handshake.message, vmid = %agent, "Received agent handshake"),
        }
        self.events.agent_started(agent, &handshake.version);
        let record = AgentRecord { id: agent.clone(), handshake };
        Ok(Agent::new(record, sandbox, self.bus.clone(), self.router.clone(), self.ping_timeout))
    }
}
