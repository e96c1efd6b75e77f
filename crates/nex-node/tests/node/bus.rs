//! The internal bus: an agent hears and says what is its own, whatever it tries.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use futures::StreamExt as _;
use nex_node::bus::BusKeys;
use nex_node::nats_user::NatsUser;
use nex_node::state_dir::StateDir;
use nex_protocol::agent::{AgentEvent, Handshake, PROTOCOL, Undeploy, subject};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::host::Service;
use nex_protocol::id::{AgentId, InstanceId};
use nex_testkit::{eventually, guest, machines};
use nkeys::KeyPair;
use serde_json::json;
use tempfile::TempDir;

use crate::functions::relaying;
use crate::world::{World, timeout};

/// The keys of a running node's bus, from a copy of its files.
pub(crate) fn bus_keys(world: &World) -> BusKeys {
    let copy = TempDir::new().unwrap();
    fs::create_dir(copy.path().join("keys")).unwrap();
    for name in ["bus-operator.nk", "bus-account.nk"] {
        fs::copy(world.state().join("keys").join(name), copy.path().join("keys").join(name)).unwrap();
    }
    BusKeys::load(&StateDir::open(copy.path()).unwrap()).unwrap()
}

struct Intruder {
    id: AgentId,
    client: Client,
    violations: Arc<Mutex<Vec<String>>>,
    heard: Arc<Mutex<Vec<async_nats::Message>>>,
    ears: tokio::task::JoinSet<()>,
}

async fn log_in(world: &World, id: &AgentId, user: NatsUser) -> Result<Intruder, async_nats::ConnectError> {
    let (violations, key) = (Arc::new(Mutex::new(Vec::new())), Arc::new(KeyPair::from_seed(&user.seed).unwrap()));
    let told = Arc::clone(&violations);
    let options = ConnectOptions::with_jwt(user.jwt, move |nonce| {
        let key = Arc::clone(&key);
        async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
    })
    .custom_inbox_prefix(format!("_INBOX.{id}"))
    .event_callback(move |event| {
        let told = Arc::clone(&told);
        async move {
            if let Event::ServerError(error) = event {
                told.lock().unwrap().push(error.to_string());
            }
        }
    });
    let client = world.connect_to_bus(options).await?;
    Ok(Intruder { id: id.clone(), client, violations, heard: Arc::default(), ears: tokio::task::JoinSet::new() })
}

impl Intruder {
    /// Does something and waits until the server has complained about it.
    async fn is_denied(&self, what: &str) {
        self.client.flush().await.unwrap();
        let denied =
            |it: &str| it.to_lowercase().contains("permissions violation") && it.to_lowercase().contains(&what.to_lowercase());
        let held = eventually(timeout(), || std::future::ready(self.violations.lock().unwrap().iter().any(|it| denied(it))));
        assert!(held.await, "no complaint about {what}: {:?}", self.violations.lock().unwrap());
    }

    async fn shake(&self) -> String {
        let handshake = Handshake {
            protocol: PROTOCOL,
            version: "0".into(),
            engines: vec![WorkloadType::V8],
            xkey: nkeys::XKey::new().public_key(),
            capacity: 1,
            message: String::new(),
        };
        let request = self.client.request(subject::handshake(&self.id), serde_json::to_vec(&handshake).unwrap().into());
        String::from_utf8(request.await.unwrap().payload.to_vec()).unwrap()
    }

    async fn listen(&mut self, subject: &str) {
        let mut heard = self.client.subscribe(subject.to_owned()).await.unwrap();
        let all = Arc::clone(&self.heard);
        self.ears.spawn(async move {
            while let Some(message) = heard.next().await {
                all.lock().unwrap().push(message);
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_hears_nothing_of_others_and_cannot_speak_for_them() {
    let mut world = relaying(json!({})).await;
    let started = world.run("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    world.until_warm(1).await;
    let others: Vec<AgentId> = world.agents().keys().map(|id| id.parse().unwrap()).collect();
    let id = AgentId::new(nex_node::clock::unix_seconds_u32());
    let user = bus_keys(&world).agent_user(&id, nex_node::clock::unix_seconds());
    let mut intruder = log_in(&world, &id, user).await.unwrap();

    let mut subjects: Vec<String> =
        [">", "*.>", "hostint.>", "agentint.>", "agentint.*.deploy.>", "_INBOX.>", "_INBOX.node.>", "$SYS.>", "$JS.>"]
            .map(Into::into)
            .to_vec();
    for other in &others {
        subjects.extend([subject::verbs(other), subject::from_agent(other), format!("{}.>", subject::inbox(other))]);
    }
    for subject in &subjects {
        intruder.listen(subject).await;
        intruder.is_denied(&format!("subscription to \"{subject}\"")).await;
    }
    // It tries to end the workloads of others, to answer for them, and to be one of them.
    let exited = serde_json::to_vec(&AgentEvent::Exited { code: 0, message: String::new() }).unwrap();
    let instance = InstanceId::new(1);
    let undeploy = serde_json::to_vec(&Undeploy { grace_ms: 0, signal: None }).unwrap();
    for other in &others {
        for (subject, body) in [
            (subject::event(other, &instance), exited.clone()),
            (subject::log(other, &instance), br#"{"lines":[{"stderr":true,"text":"forged"}]}"#.to_vec()),
            (subject::host_call(other, &instance, Service::KeyValue, "get"), Vec::new()),
            (subject::undeploy(other, &instance), undeploy.clone()),
            (subject::invoke(other, &instance), Vec::new()),
        ] {
            intruder.client.publish(subject.clone(), body.into()).await.unwrap();
            intruder.is_denied(&format!("publish to \"{subject}\"")).await;
        }
    }
    for subject in ["_INBOX.node.x", "hostint.x", "$SYS.REQ.SERVER.PING", "anything"] {
        intruder.client.publish(subject, "x".into()).await.unwrap();
        intruder.is_denied(&format!("publish to \"{subject}\"")).await;
    }
    // Its own subjects are its own: no complaint, and the node, which made no such agent, does not let it in.
    let complaints = intruder.violations.lock().unwrap().len();
    intruder.listen(&subject::verbs(&id)).await;
    let answer = intruder.shake().await;
    assert!(answer.contains("nobody waits for this agent"), "{answer}");
    for junk in ["", "null", "{", "\u{0}"] {
        let host_call = subject::host_call(&id, &instance, Service::KeyValue, "get");
        for subject in [subject::handshake(&id), subject::event(&id, &instance), subject::log(&id, &instance), host_call] {
            intruder.client.publish(subject, junk.into()).await.unwrap();
        }
        for what in ["event", "event.x", "log", "host", "host.x", "x.y"] {
            intruder.client.publish(format!("hostint.{id}.{what}"), junk.into()).await.unwrap();
        }
    }
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"");
    world.run("more", WorkloadType::V8, guest::ECHO_JS.as_bytes()).await;
    assert!(world.call("more", "").await.contains("triggered_on"));
    intruder.client.flush().await.unwrap();
    assert_eq!(intruder.violations.lock().unwrap().len(), complaints, "{:?}", intruder.violations.lock().unwrap().last());
    assert!(intruder.heard.lock().unwrap().is_empty(), "{:?}", intruder.heard.lock().unwrap());
    assert!(!world.has_logged("forged") && world.events("workload_undeployed").is_empty());
    assert_eq!(world.workload(&started.id).await.unwrap().restarts, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_logs_in_without_a_user_of_this_very_bus() {
    let mut world = World::start(json!({})).await;
    let id = AgentId::new(7);
    assert!(world.connect_to_bus(ConnectOptions::new()).await.is_err(), "no anonymous user");
    let foreign = TempDir::new().unwrap();
    let keys = BusKeys::load(&StateDir::open(foreign.path()).unwrap()).unwrap();
    let now = nex_node::clock::unix_seconds();
    for user in [keys.agent_user(&id, now), keys.node_user(now)] {
        let refused = tokio::time::timeout(Duration::from_secs(5), log_in(&world, &id, user)).await;
        assert!(refused.is_ok_and(|login| login.is_err()), "a user of another bus");
    }
    let mut mixed = bus_keys(&world).agent_user(&id, now);
    mixed.seed = KeyPair::new_user().seed().unwrap();
    assert!(log_in(&world, &id, mixed).await.is_err(), "the token alone is not enough");
    // On the gateway of machines, and of processes that have a network of their own; on the loopback elsewhere.
    let url = world.bus_url().unwrap();
    let on_gateway = url.starts_with("tls://192.168.");
    assert!(on_gateway || (!machines::in_machines() && url.starts_with("tls://127.0.0.1:")), "{url}: nowhere else");
    for name in ["node.nk", "node.xk", "bus-operator.nk", "bus-account.nk", "../bus/certificate.key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(world.state().join("keys").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    world.stop().await;
}

/// Users of the bus do not expire; what ends with an agent is that anybody listens to it or speaks to it.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_ended_agent_logged_in_with_is_worth_nothing() {
    let mut world = relaying(json!({})).await;
    world.until_warm(1).await;
    let id: AgentId = world.warm_agents().keys().next().unwrap().parse().unwrap();
    let started = world.run("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"");
    world.stop_workload(&started).await;
    world.until("its agent has ended", |it| !it.agents().contains_key(id.as_str())).await;

    let user = bus_keys(&world).agent_user(&id, nex_node::clock::unix_seconds());
    let mut thief = log_in(&world, &id, user).await.unwrap();
    thief.listen(&subject::verbs(&id)).await;
    assert!(thief.shake().await.contains("nobody waits for this agent"));
    let instance = InstanceId::new(1);
    let exited = serde_json::to_vec(&AgentEvent::Exited { code: 0, message: String::new() }).unwrap();
    for subject in [subject::event(&id, &instance), subject::host_call(&id, &instance, Service::KeyValue, "get")] {
        let headers = async_nats::HeaderMap::from_iter([(
            async_nats::HeaderName::from_static("Nex-Sequence"),
            async_nats::HeaderValue::from(1_000_u64),
        )]);
        let request = async_nats::Request::new().headers(headers).payload(exited.clone().into());
        let answer = thief.client.send_request(subject.clone(), request.timeout(Some(Duration::from_millis(500)))).await;
        assert!(answer.is_err(), "{subject}: {answer:?}");
    }
    // Others come and go meanwhile, and it hears of none.
    let other = world.run("other", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    assert_eq!(world.call("other", "you").await, "\"Hello, you!\"");
    world.stop_workload(&other).await;
    thief.client.flush().await.unwrap();
    assert!(thief.heard.lock().unwrap().is_empty(), "{:?}", thief.heard.lock().unwrap());
    world.stop().await;
}

/// NATS checks no permission on a reply subject: whoever gets the node to answer there speaks with the node's rights.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gets_no_answer_outside_its_own_inbox() {
    let mut world = relaying(json!({})).await;
    world.run("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    world.until_warm(1).await;
    let victims: Vec<AgentId> = world.agents().keys().map(|id| id.parse().unwrap()).collect();
    let id = AgentId::new(nex_node::clock::unix_seconds_u32());
    let now = nex_node::clock::unix_seconds();
    let intruder = log_in(&world, &id, bus_keys(&world).agent_user(&id, now)).await.unwrap();
    let node = bus_keys(&world).node_user(now);
    let mut listening = log_in(&world, &AgentId::new(1), node).await.unwrap();
    let instance = InstanceId::new(1);
    for victim in &victims {
        listening.listen(&subject::undeploy(victim, &instance)).await;
    }
    listening.listen("anywhere").await;
    listening.client.flush().await.unwrap();
    for victim in &victims {
        for reply in [subject::undeploy(victim, &instance), "anywhere".to_owned(), format!("{}.x", subject::inbox(victim))] {
            for subject in [subject::handshake(&id), subject::event(&id, &instance)] {
                intruder.client.publish_with_reply(subject, reply.clone(), "{}".into()).await.unwrap();
            }
        }
    }
    // Answered, so all before it was looked at.
    assert!(intruder.shake().await.contains("nobody waits for this agent"));
    listening.client.flush().await.unwrap();
    assert!(listening.heard.lock().unwrap().is_empty(), "{:?}", listening.heard.lock().unwrap());
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"");
    world.stop().await;
}
