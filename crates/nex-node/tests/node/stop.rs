//! Who may stop a workload.

use nex_protocol::claims::{Claims, sign};
use nex_protocol::deploy::{StopRequest, WorkloadType};
use nex_testkit::guest;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::world::World;

const GREET: &[u8] = guest::GREET_MJS.as_bytes();

impl World {
    async fn ask_stop(&self, namespace: &str, id: &str, claims: &Claims, signer: &KeyPair) -> Value {
        self.ask_stop_by(namespace, id, &sign(claims, signer).unwrap()).await
    }

    async fn ask_stop_by(&self, namespace: &str, id: &str, token: &str) -> Value {
        let node = self.target().node;
        let request =
            StopRequest { workload_id: Some(id.into()), workload_jwt: Some(token.into()), target_node: Some(node.to_string()) };
        self.ask(&format!("$NEX.STOP.{namespace}.{node}"), serde_json::to_vec(&request).unwrap()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_issuer_stops_a_workload_and_only_with_a_token_made_for_that() {
    let mut world = World::start(json!({})).await;
    let issuer = world.keys.issuer.clone();
    let artifact = world.upload("greet", GREET).await;
    let now = nex_node::clock::unix_seconds();
    // Deployed by hand, for the start token must be known.
    let start = Claims::to_start("greet", &issuer, &artifact.digest, now, 60);
    let target = world.target();
    let request = json!({
        "type": "v8", "location": "nats://NEXCLIFILES/greet", "trigger_subjects": ["greet"], "environment": "",
        "workload_jwt": sign(&start, &issuer).unwrap(),
    });
    let deployed = world.ask(&format!("$NEX.DEPLOY.default.{}", target.node), request.to_string()).await;
    let id = deployed["data"]["id"].as_str().unwrap_or_else(|| panic!("{deployed}")).to_owned();

    let stranger = KeyPair::new_account();
    let stop = |name: &str, key: &KeyPair| Claims::to_stop(name, key, now);
    let prefix = "Invalid stop request: ";
    for (answer, text) in [
        (world.ask_stop("default", &id, &start, &issuer).await, "stop claims appear to be cloned or captured"),
        (world.ask_stop("default", &id, &stop("other", &issuer), &issuer).await, "does not match original start claims subject"),
        (world.ask_stop("default", &id, &stop("greet", &stranger), &stranger).await, "the only entity allowed to terminate"),
        (world.ask_stop("default", &id, &stop("greet", &issuer), &stranger).await, "could not decode workload JWT"),
        (world.ask_stop_by("default", &id, "").await, "could not decode workload JWT"),
        (world.ask_stop("default", &id, &Claims { exp: Some(now - 5), ..stop("greet", &issuer) }, &issuer).await, "expired"),
    ] {
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{text}: {answer}"));
        assert!(error.starts_with(prefix) && error.contains(text), "{answer}");
        assert_eq!((&answer["type"], &answer["data"]), (&json!("io.nats.nex.v1.stop_response"), &json!("")));
    }
    let nobody = nex_protocol::id::WorkloadId::new(7);
    for (namespace, id) in
        [("other", id.as_str()), ("Default", &id), ("default", nobody.as_str()), ("default", ""), ("default", "../..")]
    {
        let answer = world.ask_stop(namespace, id, &stop("greet", &issuer), &issuer).await;
        assert_eq!((&answer["error"], &answer["code"]), (&json!("No such workload"), &json!("not_found")), "{namespace} {id}");
    }
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"", "it still runs");

    // Within the second of its start, as its own issuer.
    let stopped = world.ask_stop("default", &id, &stop("greet", &issuer), &issuer).await;
    let expected = json!({"stopped": true, "id": id, "issuer": issuer.public_key(), "name": "greet"});
    assert_eq!(stopped, json!({"type": "io.nats.nex.v1.stop_response", "data": expected}));
    let again = world.ask_stop("default", &id, &stop("greet", &issuer), &issuer).await;
    assert_eq!(again["error"], "No such workload");
    world.until("its end is told", |it| it.events_of("workload_undeployed", &id).len() == 1).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_stops_one_workload_by_a_token_for_it_and_in_no_other_way() {
    let operator = KeyPair::new_account();
    let mut world = World::start(json!({"operators": [operator.public_key()]})).await;
    let first = world.run("greet", WorkloadType::V8, GREET).await;
    let second = world.run("greet", WorkloadType::V8, GREET).await;
    let (node, namespace, now) = (world.target().node, "default".parse().unwrap(), nex_node::clock::unix_seconds());
    let stop = |id: &str| Claims::to_stop("greet", &operator, now).bound_to_workload(&node, &namespace, &id.parse().unwrap());
    for (namespace, claims, text) in [
        ("default", Claims::to_stop("greet", &operator, now), "claims that name a workload also name the node"),
        ("default", stop(&second.id), "its claims are for another workload"),
        ("other", stop(&first.id), "No such workload"),
        ("default", Claims { exp: None, ..stop(&first.id) }, "claims that name a workload also name the node"),
    ] {
        let answer = world.ask_stop(namespace, &first.id, &claims, &operator).await;
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(text)), "{text}: {answer}");
    }
    assert_eq!((world.node().registry().count(), world.events("workload_stopped_by_operator").len()), (2, 0));

    let claims = stop(&first.id);
    let stopped = world.ask_stop("default", &first.id, &claims, &operator).await;
    assert_eq!(stopped["data"]["issuer"], json!(world.keys.issuer.public_key()), "{stopped}");
    world.until("it is told", |it| it.events_of("workload_stopped_by_operator", &first.id).len() == 1).await;
    let told = world.events_of("workload_stopped_by_operator", &first.id).remove(0).data;
    assert_eq!((&told["operator"], &told["issuer"]), (&json!(operator.public_key()), &stopped["data"]["issuer"]));
    world.until("its end is told", |it| it.events_of("workload_undeployed", &first.id).len() == 1).await;
    let captured = world.ask_stop("default", &second.id, &claims, &operator).await;
    assert!(captured["error"].as_str().is_some_and(|error| error.contains("its claims are for another workload")), "{captured}");
    assert_eq!(world.node().registry().count(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_stops_at_once_end_a_workload_once() {
    let mut world = World::start(json!({})).await;
    let started = world.run("greet", WorkloadType::V8, GREET).await;
    let node = world.target().node;
    let question = |_| {
        let claims = Claims::to_stop("greet", &world.keys.issuer, nex_node::clock::unix_seconds());
        let token = sign(&claims, &world.keys.issuer).unwrap();
        let body = json!({"workload_id": started.id, "workload_jwt": token});
        (format!("$NEX.STOP.default.{node}"), body.to_string().into_bytes())
    };
    let questions: Vec<_> = (0..20).map(question).collect();
    let answers = world.ask_all(&questions).await;
    assert!(answers.iter().all(|answers| answers.len() == 1), "one answer each");
    let stopped = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["data"]["stopped"] == true;
    assert!(answers.iter().any(|answers| stopped(&answers[0].payload)), "{answers:?}");
    world.stop().await;
    world.until("the node said goodbye", |it| it.events("node_stopped").len() == 1).await;
    assert_eq!(world.events_of("workload_undeployed", &started.id).len(), 1);
}
