//! The agent's conversation with its node: a handshake, then one request at a time answered, until it is told to go.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::{Client, Message};
use futures::StreamExt as _;
use nex_bus::connect::{ConnectError, Persistence, connect};
use nex_bus::settings::ConnectionSettings;
use nex_process::{Deadline, TaskScope, jail};
use nex_protocol::agent::{Accepted, Deploy, Handshake, Identity, PROTOCOL, Undeploy, agent_subject, host_subject};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::reply::ReplySubject;
use nkeys::XKey;
use tokio::signal::unix::{SignalKind, signal};

use crate::Place;
use crate::calls;
use crate::workload::{Starter, Workload};

/// Time the node has to answer the handshake, and one try of it: the bus may be started again in between.
const HANDSHAKE: Duration = Duration::from_secs(5);
const HANDSHAKE_TRY: Duration = Duration::from_secs(1);
/// Time a workload has to end when the agent itself is told to end.
const GRACE: Duration = Duration::from_secs(2);

struct Session {
    starter: Starter,
    out: PathBuf,
    workload: Option<Workload>,
    calls: TaskScope,
}

/// Lives until the node, or a signal, says it is over.
pub(crate) async fn run(identity: Identity, entered: &jail::Entered, place: Place) -> anyhow::Result<()> {
    // From the start: whoever is told to go while it still shakes hands goes in good order, too.
    let mut terminated = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let settings = ConnectionSettings {
        servers: vec![identity.bus.clone()],
        user_jwt: Some(identity.jwt.clone().into()),
        user_seed: Some(identity.seed.clone().into()),
        name: Some(format!("nex-agent-{}", identity.agent)),
        inbox_prefix: Some(format!("_INBOX.{}", identity.agent)),
        ..ConnectionSettings::default()
    };
    let bus = reach(&settings).await.context("cannot reach the internal bus")?;
    let mut requests = bus.subscribe(agent_subject(&identity.agent, ">")).await.context("cannot listen on the internal bus")?;
    let key = XKey::new();
    let message = match place {
        Place::Host => entered.report.to_string(),
        Place::Guest => format!("Host-supplied metadata; in a machine of its own: {}", entered.report),
    };
    shake(&bus, &identity, &key, message).await?;
    let starter = Starter { bus: bus.clone(), agent: identity.agent.clone(), key, confinement: entered.report.clone() };
    let mut session = Session { starter, out: entered.layout.out.clone(), workload: None, calls: TaskScope::new("calls") };
    loop {
        tokio::select! {
            request = requests.next() => match request {
                Some(request) => session.answer(&bus, request).await,
                None => bail!("the internal bus closed the subscription"),
            },
            _ = terminated.recv() => {
                if let Some(workload) = session.workload.take() {
                    workload.stop(GRACE).await;
                }
                return Ok(());
            }
        }
    }
}

/// The network of a machine that has just woken up may lose its first packets, and the bus may be starting again.
async fn reach(settings: &ConnectionSettings) -> Result<Client, ConnectError> {
    let by = Deadline::after(HANDSHAKE);
    loop {
        match connect(settings, Persistence::Once).await {
            Err(_not_yet) if !by.is_past() => tokio::time::sleep(HANDSHAKE_TRY / 10).await,
            reached => return reached,
        }
    }
}

async fn shake(bus: &Client, identity: &Identity, key: &XKey, message: String) -> anyhow::Result<()> {
    let handshake = Handshake {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engines: vec![WorkloadType::Native, WorkloadType::V8, WorkloadType::Wasm],
        xkey: key.public_key(),
        message,
    };
    let body = serde_json::to_vec(&handshake)?;
    let answer = tokio::time::timeout(HANDSHAKE, ask_until_heard(bus, host_subject(&identity.agent, "handshake"), &body))
        .await
        .context("the node did not answer the handshake")?;
    let answer: Accepted =
        serde_json::from_slice(&answer.payload).context("the node's answer to the handshake is not readable")?;
    if answer.accepted { Ok(()) } else { bail!("the node refused the handshake: {}", answer.message) }
}

async fn ask_until_heard(bus: &Client, subject: String, body: &[u8]) -> Message {
    loop {
        let request = async_nats::Request::new().payload(body.to_vec().into()).timeout(Some(HANDSHAKE_TRY));
        match bus.send_request(subject.clone(), request).await {
            Ok(answer) => return answer,
            // Said at once while the node is not back on the bus.
            Err(_unheard) => tokio::time::sleep(HANDSHAKE_TRY / 10).await,
        }
    }
}

impl Session {
    async fn answer(&mut self, bus: &Client, message: Message) {
        let verb = message.subject.rsplit('.').next().unwrap_or_default().to_owned();
        match verb.as_str() {
            "ping" => reply(bus, &message, b"OK".to_vec()).await,
            "trigger" => self.call(bus, message).await,
            "deploy" => {
                let accepted = match self.deploy(&message.payload).await {
                    Ok(compiled) => Accepted { accepted: true, message: String::new(), compiled },
                    Err(why) => Accepted { accepted: false, message: why, compiled: None },
                };
                reply(bus, &message, serde_json::to_vec(&accepted).unwrap_or_default()).await;
            }
            "undeploy" => {
                let grace =
                    serde_json::from_slice::<Undeploy>(&message.payload).map_or(GRACE, |it| Duration::from_millis(it.grace_ms));
                if let Some(workload) = self.workload.take() {
                    workload.stop(grace).await;
                }
                self.calls.shutdown(Duration::ZERO).await;
                bus.flush().await.ok();
                let done = Accepted { accepted: true, ..Accepted::default() };
                reply(bus, &message, serde_json::to_vec(&done).unwrap_or_default()).await;
            }
            _ => {}
        }
    }

    async fn deploy(&mut self, body: &[u8]) -> Result<Option<String>, String> {
        if self.workload.is_some() {
            return Err("this agent has its one workload already".to_owned());
        }
        let request: Deploy = serde_json::from_slice(body).map_err(|error| format!("unreadable deploy request: {error}"))?;
        let workload = Box::pin(self.starter.start(request, &self.out)).await?;
        let compiled = workload.compiled.clone();
        self.workload = Some(workload);
        Ok(compiled)
    }

    async fn call(&self, bus: &Client, message: Message) {
        match self.workload.as_ref().and_then(|workload| workload.function.clone()) {
            Some(function) => self.calls.spawn("call", calls::relayed(bus.clone(), function, message)),
            None => {
                nex_bus::service_error::refuse(bus, ReplySubject::of(message.reply.as_deref()), 404, "there is no function here")
                    .await;
            }
        }
    }
}

async fn reply(bus: &Client, message: &Message, body: Vec<u8>) {
    if let Some(to) = message.reply.clone() {
        bus.publish(to, body.into()).await.ok();
    }
}
