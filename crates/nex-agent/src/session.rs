//! The agent's conversation with its node: a handshake, then a task for each verb, until it is told to go.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::{Client, Message, Subscriber};
use futures::StreamExt as _;
use nex_bus::connect::{ConnectError, connect};
use nex_bus::settings::ConnectionSettings;
use nex_process::{Deadline, TaskScope, jail};
use nex_protocol::agent::subject::{self, Verb};
use nex_protocol::agent::{Answer, Deploy, Handshake, Identity, PROTOCOL, Ping, Pong, RejectCode, Undeploy, Update, Welcome};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::id::InstanceId;
use nkeys::XKey;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::Place;
use crate::connections::WorkloadConnections;
use crate::engines::Engines;
use crate::event::EventSender;
use crate::instance::Starter;
use crate::instances::{CAPACITY, Instances};
use crate::invoke::{self, Row};
use crate::lockdown::Lockdown;

/// Time the node has to answer the handshake, and one try of it: the bus may be started again in between.
const HANDSHAKE: Duration = Duration::from_secs(5);
const HANDSHAKE_TRY: Duration = Duration::from_secs(1);
/// Time instances have to end when the agent itself is told to end, or the node does not say.
const GRACE: Duration = Duration::from_secs(2);

/// Lives until the node, or a signal, says it is over.
pub(crate) async fn run(identity: Identity, entered: &jail::Entered, place: Place) -> anyhow::Result<()> {
    // From the start: whoever is told to go while it still shakes hands goes in good order, too.
    let mut terminated = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let settings = ConnectionSettings {
        servers: vec![identity.bus.clone()],
        server_certificate: Some(identity.certificate.clone()),
        user_jwt: Some(identity.jwt.clone().into()),
        user_seed: Some(identity.seed.clone().into()),
        name: Some(format!("nex-agent-{}", identity.agent)),
        inbox_prefix: Some(subject::inbox(&identity.agent)),
        ..ConnectionSettings::default()
    };
    let bus = reach(&settings).await.context("cannot reach the internal bus")?;
    let requests = bus.subscribe(subject::verbs(&identity.agent)).await.context("cannot listen on the internal bus")?;
    let key = XKey::new();
    let message = match place {
        Place::Host => entered.report.to_string(),
        Place::Guest => format!("Host-supplied metadata; in a machine of its own: {}", entered.report),
    };
    shake(&bus, &identity, &key, message).await?;
    let starter = Starter {
        lockdown: Lockdown::default(),
        bus: bus.clone(),
        agent: identity.agent.clone(),
        key,
        confinement: entered.report.clone(),
        events: Arc::new(EventSender::new(bus.clone(), identity.agent.clone())),
        engines: Engines::default(),
        connections: WorkloadConnections::default(),
    };
    let session = Arc::new(Session { bus, instances: Instances::new(starter) });
    let verbs = TaskScope::new("verbs");
    let (closed, is_closed) = oneshot::channel();
    let (listening, tasks) = (Arc::clone(&session), verbs.child("verbs"));
    // In a task, beside that of the connection: this one has a thread of its own, which would be woken for each message.
    verbs.spawn("bus", async move {
        listening.listen(requests, &tasks).await;
        closed.send(()).ok();
    });
    tokio::select! {
        _ = is_closed => bail!("the internal bus closed the subscription"),
        _ = terminated.recv() => {
            session.instances.stop_all(GRACE).await;
            Ok(())
        }
    }
}

/// The network of a machine that has just woken up may lose its first packets, and the bus may be starting again.
async fn reach(settings: &ConnectionSettings) -> Result<Client, ConnectError> {
    let by = Deadline::after(HANDSHAKE);
    loop {
        match connect(settings).await {
            Err(_not_yet) if !by.is_past() => tokio::time::sleep(HANDSHAKE_TRY / 10).await,
            reached => return reached,
        }
    }
}

async fn shake(bus: &Client, identity: &Identity, key: &XKey, message: String) -> anyhow::Result<()> {
    let handshake = Handshake {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engines: vec![WorkloadType::Native, WorkloadType::V8, WorkloadType::Wasm, WorkloadType::Oci],
        xkey: key.public_key(),
        capacity: CAPACITY,
        message,
    };
    let body = serde_json::to_vec(&handshake)?;
    let answer = tokio::time::timeout(HANDSHAKE, ask_until_heard(bus, subject::handshake(&identity.agent), &body))
        .await
        .context("the node did not answer the handshake")?;
    let answer: Welcome =
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

struct Session {
    bus: Client,
    instances: Instances,
}

impl Session {
    /// Hears the node until the bus has no more. A verb has a task of its own, so that a ping is answered while a deploy or a long stop is
    /// under way; an invocation has one where it takes long.
    async fn listen(self: &Arc<Self>, mut requests: Subscriber, tasks: &TaskScope) {
        let mut row = Row::default();
        while let Some(message) = requests.next().await {
            match Verb::parse(&message.subject) {
                Some(Verb::Invoke(instance)) => self.invoke(&instance, message, tasks).await,
                verb => {
                    let session = Arc::clone(self);
                    tasks.spawn("verb", async move { session.answer(verb, message).await });
                }
            }
            row.taken().await;
        }
    }

    async fn invoke(&self, instance: &InstanceId, message: Message, tasks: &TaskScope) {
        let (bus, callee) = (self.bus.clone(), self.instances.callee(instance));
        match callee.clone() {
            Some(called) => called.begin(async move { invoke::answer(&bus, callee, message).await }, tasks).await,
            None => invoke::answer(&bus, None, message).await,
        }
    }

    async fn answer(&self, verb: Option<Verb>, message: Message) {
        match verb {
            Some(Verb::Ping) => {
                let asked = serde_json::from_slice::<Ping>(&message.payload).unwrap_or_default();
                let ids = if asked.ids { self.instances.ids() } else { Vec::new() };
                self.reply(&message, &Pong { instances: self.instances.count(), ids }).await;
            }
            Some(Verb::Invoke(instance)) => invoke::answer(&self.bus, self.instances.callee(&instance), message).await,
            Some(Verb::Deploy(instance)) => {
                let answer = self.deploy(instance, &message.payload).await;
                self.reply(&message, &answer).await;
            }
            Some(Verb::Undeploy(instance)) => {
                let asked = serde_json::from_slice::<Undeploy>(&message.payload).ok();
                let grace = asked.map_or(GRACE, |asked| Duration::from_millis(asked.grace_ms));
                let answer = self.instances.undeploy(&instance, grace, asked.and_then(|asked| asked.signal)).await;
                self.bus.flush().await.ok();
                self.reply(&message, &answer).await;
            }
            Some(Verb::Update(instance)) => {
                let answer = match serde_json::from_slice::<Update>(&message.payload) {
                    Ok(request) => self.instances.update(&instance, &request).await,
                    Err(error) => malformed(&format!("unreadable update: {error}")),
                };
                self.reply(&message, &answer).await;
            }
            None => {
                self.reply(&message, &malformed("this agent knows no such verb")).await;
            }
        }
    }

    async fn deploy(&self, instance: InstanceId, body: &[u8]) -> Answer {
        match serde_json::from_slice::<Deploy>(body) {
            Ok(request) => self.instances.deploy(instance, request).await,
            Err(error) => malformed(&format!("unreadable deploy request: {error}")),
        }
    }

    async fn reply<T: Serialize>(&self, message: &Message, body: &T) {
        if let Some(to) = message.reply.clone() {
            self.bus.publish(to, serde_json::to_vec(body).unwrap_or_default().into()).await.ok();
        }
    }
}

fn malformed(why: &str) -> Answer {
    Answer::Rejected { code: RejectCode::Malformed, message: why.to_owned() }
}
