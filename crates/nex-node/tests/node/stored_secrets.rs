//! Secrets of the namespace's bucket: who opens them, when they are read again, and what becomes of those that somebody has tampered with.

use async_nats::jetstream::{self, kv::Store};
use nex_client::deploy::{DeployError, Deployment, Keys};
use nex_client::secret::{NewSecret, SecretsError};
use nex_protocol::claims::{Claims, sign};
use nex_protocol::deploy::{DeployResponse, WorkloadType};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::{self, ErrorCode, Failure, ReplyError};
use nex_protocol::id::SecretName;
use nex_protocol::seal::NATS_CREDS;
use nex_protocol::secret;
use nkeys::{KeyPair, XKey};
use serde_json::{Value, json};

use crate::crash::is_back;
use crate::world::{World, kill9};

/// It says what it knows backwards, so that the log does not hold the secret itself.
const SERVICE: &[u8] = b"#!/bin/sh\necho \"backwards: $(echo $TOKEN | rev)\"\nexec sleep 1000\n";

impl World {
    async fn set(&self, name: &str, value: &str, keys: &Keys) -> usize {
        let name = name.parse().unwrap();
        Box::pin(self.client.set_secret(NewSecret::new(&name, value), &keys.issuer, None)).await.unwrap()
    }

    async fn service(&self) -> Deployment {
        let mut service = self.prepare("service", WorkloadType::Native, SERVICE).await;
        service.secrets.insert("TOKEN".into(), "db".parse().unwrap());
        service.essential = true;
        service
    }

    async fn secrets_bucket(&self) -> Store {
        let bucket = secret::bucket(self.client.namespace());
        jetstream::new(self.client.nats().clone()).get_key_value(bucket).await.unwrap()
    }

    /// How often it was said that the token is this one.
    fn told(&self, backwards: &str) -> usize {
        self.logs().iter().filter(|(_, line)| line.text == format!("backwards: {backwards}")).count()
    }

    /// A deploy of the service as a client of one's own would send it.
    async fn deploy_raw(&self, issuer: &KeyPair, secrets: &Value) -> Failure {
        let claims = Claims::to_start("service", issuer, &Digest::of(SERVICE), nex_node::clock::unix_seconds(), 60);
        let request = json!({
            "type": "native", "location": "nats://NEXCLIFILES/service", "workload_jwt": sign(&claims, issuer).unwrap(),
            "secrets": secrets,
        });
        let subject = format!("$NEX.DEPLOY.default.{}", self.target().node);
        let answer = self.client.nats().request(subject, serde_json::to_vec(&request).unwrap().into()).await.unwrap();
        match envelope::open::<DeployResponse>(envelope::kind::RUN, &answer.payload) {
            Err(ReplyError::Failed(failure)) => failure,
            other => panic!("{secrets}: {other:?}"),
        }
    }

    /// The agents that have a workload.
    fn busy_agent(&self) -> i32 {
        let warm = self.warm_agents();
        self.agents().into_iter().find(|(id, _)| !warm.contains_key(id)).unwrap().1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_sealed_to_the_node_that_runs_what_uses_it_and_read_again_when_that_is_started_again() {
    let mut world = World::start(json!({})).await;
    let service = world.service().await;
    match world.client.deploy(&service, &world.target(), &world.keys).await {
        Err(DeployError::Secrets(error @ SecretsError::Missing { .. })) => {
            assert!(error.to_string().contains("nex secret set db"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.set("db", "first-value", &world.keys).await, 0, "nobody but its issuer can open it yet");
    let (started, agent) = world.deploy_watched(&service).await;
    world.until("it has the first one", |it| it.told("eulav-tsrif") == 1).await;
    assert_eq!(world.workload(&started.id).await.unwrap().secrets, ["db"]);
    let listed = Box::pin(world.client.secrets(None)).await.unwrap();
    let nodes: Vec<_> = listed[0].secret.as_ref().unwrap().nodes().map(|(node, _)| node.clone()).collect();
    assert_eq!((listed.len(), nodes), (1, vec![world.target().node]));

    // Rotated: the node can open the new one, and the workload has it as soon as it is started again.
    assert_eq!(world.set("db", "second-value", &world.keys).await, 1);
    kill9(agent);
    world.until("it has the second one", |it| it.told("eulav-dnoces") == 1).await;

    // Somebody who can write to the bucket puts the first version back: it is told, and nothing is started with it.
    let (bucket, issuer) = (world.secrets_bucket().await, world.keys.issuer.public_key());
    let key = format!("{issuer}.db");
    let second = bucket.get(key.as_str()).await.unwrap().unwrap();
    assert_eq!(world.set("db", "third-value", &world.keys).await, 1);
    kill9(world.busy_agent());
    world.until("it has the third one", |it| it.told("eulav-driht") == 1).await;
    bucket.put(key.as_str(), second).await.unwrap();
    kill9(world.busy_agent());
    world.until("it is not started with an old one", |it| it.has_logged("an older version than the one it had")).await;
    bucket.put(key.as_str(), "nonsense".into()).await.unwrap();
    world.until("nor with nonsense", |it| it.has_logged("what lies there is no secret")).await;
    assert_eq!(world.told("eulav-dnoces"), 1);
    // Set again, it is good again; nobody knows which nodes could open it, so it is deployed there once more.
    assert_eq!(world.set("db", "fourth-value", &world.keys).await, 0);
    world.deploy(&service).await;
    world.until("both copies have the fourth", |it| it.told("eulav-htruof") == 2).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_of_no_use_to_another_issuer_of_the_namespace() {
    let mut world = World::start(json!({})).await;
    world.set("db", "s3cret-value", &world.keys).await;
    let service = world.service().await;
    world.deploy(&service).await;
    world.until("its owner has it", |it| it.told("eulav-terc3s") == 1).await;

    let thief = Keys { issuer: KeyPair::new_account(), sender: XKey::new() };
    let deploy = async || world.client.deploy(&service, &world.target(), &thief).await;
    assert!(matches!(deploy().await, Err(DeployError::Secrets(SecretsError::Missing { .. }))));
    // He copies the record to where his own would be.
    let bucket = world.secrets_bucket().await;
    let record = bucket.get(format!("{}.db", world.keys.issuer.public_key())).await.unwrap().unwrap();
    bucket.put(format!("{}.db", thief.issuer.public_key()), record).await.unwrap();
    let error = deploy().await.unwrap_err().to_string();
    assert!(error.contains("its issuer has not signed it"), "{error}");
    // He does not ask his client: the node sees the same.
    let request = |value| json!({ "TOKEN": value });
    for (secrets, code, text) in [
        (request("db"), ErrorCode::Denied, "its issuer has not signed it"),
        (request("none"), ErrorCode::Failed, "its secret 'none' is not there"),
        (request("a.b"), ErrorCode::BadRequest, "no name of a secret"),
        (json!({ "A=B": "db" }), ErrorCode::BadRequest, "'A=B'"),
        (json!({ "": "db" }), ErrorCode::BadRequest, "cannot be one"),
    ] {
        let failure = world.deploy_raw(&thief.issuer, &secrets).await;
        assert_eq!((failure.code, failure.message.contains(text)), (code, true), "{failure}");
    }
    assert_eq!(world.node().registry().count(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_started_again_with_what_it_had_while_nats_is_away() {
    let mut world = World::start(json!({})).await;
    world.set("db", "kept-value", &world.keys).await;
    let (_, agent) = world.deploy_watched(&world.service().await).await;
    world.until("it has it", |it| it.told("eulav-tpek") == 1).await;
    world.nats.kill9();
    kill9(agent);
    world.until("another agent has it", |it| it.agents().values().any(|pid| *pid != agent)).await;
    world.nats.restart().await;
    world.until("it was started again", |it| it.told("eulav-tpek") == 2).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_knows_where_it_runs_and_has_its_credentials_in_a_file_of_its_own() {
    let mut world = World::start(json!({})).await;
    let name: SecretName = "bus".parse().unwrap();
    Box::pin(world.client.set_secret(NewSecret::new(&name, "jwt and seed"), &world.keys.issuer, None)).await.unwrap();
    let script = b"#!/bin/sh\necho \"I am $NEX_WORKLOAD_ID, $NEX_WORKLOAD_NAME of $NEX_NAMESPACE on $NEX_NODE_ID\"\n\
        echo \"$(stat -c %a $NATS_CREDS): $(cat $NATS_CREDS)\"\nenv | grep -c 'jwt and seed'\nexec sleep 1000\n";
    for (workload, secret) in [("given", None), ("stored", Some(name))] {
        let mut service = world.prepare(workload, WorkloadType::Native, script).await;
        match secret {
            Some(name) => drop(service.secrets.insert(NATS_CREDS.into(), name)),
            None => drop(service.environment.insert(NATS_CREDS.into(), "jwt and seed".into())),
        }
        let started = world.deploy(&service).await;
        let who = format!("I am {}, {workload} of default on {}", started.id, world.target().node);
        world.until("it says who it is", |it| it.has_logged(&who)).await;
        let lines = |it: &World, text: &str| it.logs().iter().any(|(_, line)| line.id == started.id && line.text == text);
        world.until("it reads its credentials", |it| lines(it, "400: jwt and seed")).await;
        world.until("they are in no variable", |it| lines(it, "0")).await;
    }
    world.stop().await;
}

/// A function that tells what it knows backwards.
const FUNCTION: &[u8] = b"() => [...env.TOKEN].reverse().join('')";

#[tokio::test(flavor = "multi_thread")]
async fn a_function_has_a_new_value_without_a_redeploy_and_misses_no_call() {
    let mut world = World::start(json!({})).await;
    assert_eq!(world.set("db", "value-0", &world.keys).await, 0);
    let mut function = world.prepare("teller", WorkloadType::V8, FUNCTION).await;
    function.secrets.insert("TOKEN".into(), "db".parse().unwrap());
    let started = world.deploy(&function).await;
    assert_eq!(world.call("teller", "").await, "\"0-eulav\"");
    // One after the other, without a pause, and then the last one counts.
    for number in 1..=30 {
        assert_eq!(world.set("db", &format!("value-{number}"), &world.keys).await, 1);
    }
    let mut answers = Vec::new();
    while answers.last().is_none_or(|last: &String| last != "\"03-eulav\"") {
        answers.push(world.call("teller", "").await);
        assert!(answers.len() < 100_000, "{:?}", answers.last());
    }
    let told: std::collections::BTreeSet<_> = answers.iter().collect();
    assert!(told.len() <= 10, "many changes are one: {told:?}");
    let summary = world.workload(&started.id).await.unwrap();
    assert_eq!((summary.state.as_str(), summary.restarts), ("running", 0));
    // Another issuer's of the same name, nonsense in its place, and none at all change nothing.
    let other = Keys { issuer: KeyPair::new_account(), sender: XKey::new() };
    world.set("db", "s3cret of another", &other).await;
    let (bucket, key) = (world.secrets_bucket().await, format!("{}.db", world.keys.issuer.public_key()));
    bucket.put(key.as_str(), "nonsense".into()).await.unwrap();
    bucket.delete(key.as_str()).await.unwrap();
    world.set("another", "x", &world.keys).await;
    assert_eq!(world.call("teller", "").await, "\"03-eulav\"");
    world.until("one agent is left of all of them", |it| it.agents().len() - it.warm_agents().len() == 1).await;
    assert!(world.logs().iter().all(|(_, line)| !line.text.contains("value-")));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_started_again_with_a_new_value_only_where_it_wants_that() {
    let mut world = World::start(json!({})).await;
    world.set("db", "first-value", &world.keys).await;
    let keeps = world.service().await;
    let policy = serde_json::from_str(r#"{"on_secret_change":"restart"}"#).unwrap();
    let follows = Deployment { name: "follower".parse().unwrap(), policy: Some(policy), ..keeps.clone() };
    let (kept, followed) = (world.deploy(&keeps).await, world.deploy(&follows).await);
    world.until("both have the first one", |it| it.told("eulav-tsrif") == 2).await;
    world.set("db", "second-value", &world.keys).await;
    world.until("it has the second one", |it| it.told("eulav-dnoces") > 0).await;
    let second = world.logs().into_iter().filter(|(_, line)| line.text == "backwards: eulav-dnoces");
    assert!(second.map(|(_, line)| line.id).all(|id| id == followed.id));
    assert_eq!(world.workload(&kept.id).await.unwrap().restarts, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_was_set_while_no_node_ran_is_for_what_the_next_one_takes_over_and_nothing_else_is_started_anew() {
    let (mut world, doomed) = World::crashing().await;
    world.set("db", "first-value", &world.keys).await;
    world.set("other", "never-changed", &world.keys).await;
    let follows = |mut deployment: Deployment, name: &str, secret: &str| {
        deployment.name = name.parse().unwrap();
        deployment.policy = Some(serde_json::from_str(r#"{"on_secret_change":"restart"}"#).unwrap());
        deployment.secrets.insert("TOKEN".into(), secret.parse().unwrap());
        deployment
    };
    let service = world.service().await;
    let follower = world.start_on_doomed(&doomed, &follows(service.clone(), "follower", "db")).await;
    let content = world.start_on_doomed(&doomed, &follows(service, "content", "other")).await;
    world.until("both have begun", |it| it.told("eulav-tsrif") == 1 && it.told("degnahc-reven") == 1).await;
    doomed.crash();
    assert_eq!(world.set("db", "second-value", &world.keys).await, 1);
    world.start_node().await;
    world.until("it has the second one", |it| it.told("eulav-dnoces") == 1).await;
    for started in [&follower, &content] {
        is_back(&world, started).await;
    }
    assert_eq!((world.told("eulav-tsrif"), world.told("degnahc-reven")), (1, 1));
    world.stop().await;
}

/// It says what it reads in its file backwards, when it starts and with each SIGHUP.
const READER: &[u8] =
    b"#!/bin/sh\ntell() { echo \"backwards: $(rev < $TOKEN_FILE) $(env | grep -c value)\"; }\ntrap tell HUP\ntell\n\
    sleep 1000 &\nwhile kill -0 $!; do wait $!; done\n";
/// It says so whenever its file is another one.
const WATCHER: &[u8] =
    b"#!/bin/sh\nwhile :; do\n  now=$(rev < $TOKEN_FILE)\n  [ \"$now\" = \"$last\" ] || echo \"backwards: $now\"\n  last=$now\n\
    sleep 0.05\ndone\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_a_new_value_in_its_file_while_it_runs_and_is_told_if_it_wants_that() {
    let mut world = World::start(json!({})).await;
    world.set("db", "first-value", &world.keys).await;
    let deployment = async |name, script, policy: &str| {
        let mut service = world.prepare(name, WorkloadType::Native, script).await;
        service.secrets.insert("nex:file:TOKEN_FILE".into(), "db".parse().unwrap());
        service.policy = Some(serde_json::from_str(policy).unwrap());
        service
    };
    let reader = deployment("reader", READER, r#"{"on_secret_change":"signal:SIGHUP"}"#).await;
    let watcher = deployment("watcher", WATCHER, "{}").await;
    let (reader, watcher) = (world.deploy(&reader).await, world.deploy(&watcher).await);
    let says =
        |it: &World, who: &DeployResponse, text: &str| it.logs().iter().any(|(_, line)| line.id == who.id && line.text == text);
    world.until("the reader has the first one", |it| says(it, &reader, "backwards: eulav-tsrif 0")).await;
    world.until("the watcher has the first one", |it| says(it, &watcher, "backwards: eulav-tsrif")).await;
    for (value, backwards) in [("second-value", "eulav-dnoces"), ("third-value", "eulav-driht")] {
        assert_eq!(world.set("db", value, &world.keys).await, 1);
        world.until("the reader is told", |it| says(it, &reader, &format!("backwards: {backwards} 0"))).await;
        world.until("the watcher sees it", |it| says(it, &watcher, &format!("backwards: {backwards}"))).await;
    }
    for started in [&reader, &watcher] {
        let summary = world.workload(&started.id).await.unwrap();
        assert_eq!((summary.state.as_str(), summary.restarts), ("running", 0));
    }
    world.stop().await;
}
