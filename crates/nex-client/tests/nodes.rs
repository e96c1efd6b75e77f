//! The client against a real nats-server and nodes that answer like nodes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use nex_client::Client;
use nex_client::artifact::{Artifact, ArtifactError, LocalFile, NewBucket, Upload};
use nex_client::call::CallError;
use nex_client::deploy::{DeployError, Deployment, Keys, StopError, Target};
use nex_client::request::RequestError;
use nex_client::watch::LogFilter;
use nex_protocol::control::AuctionRequest;
use nex_protocol::deploy::{DeployResponse, Location, WorkloadType};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::{ErrorCode, kind, success};
use nex_protocol::log::Level;
use nkeys::{KeyPair, XKey};
use support::{Nats, Properties, TestNode, settle};

const WAIT: Duration = Duration::from_secs(2);

async fn client(nats: &Nats) -> Client {
    Client::new(nats.connect().await, "default".parse().unwrap())
}

fn keys() -> Keys {
    Keys { issuer: KeyPair::new_account(), sender: XKey::new() }
}

fn artifact() -> Artifact {
    let location = Location::new("NEXCLIFILES", "echo").unwrap();
    Artifact { location, jetstream_domain: None, digest: Digest::of(b"echo"), bytes: 4 }
}

fn target(node: &TestNode) -> Target {
    Target { node: node.id().clone(), xkey: node.xkey(), is_signed: true }
}

async fn upload_of(file: &std::path::Path) -> Upload {
    let location = Location::new("NEXCLIFILES", "echo").unwrap();
    let file = LocalFile::read(file).await.unwrap();
    Upload { location, jetstream_domain: None, new_bucket: NewBucket::default(), file }
}

#[tokio::test]
async fn a_deploy_whose_answer_is_lost_is_asked_for_again_with_the_same_bytes() {
    let nats = Nats::start(false).await;
    let client = client(&nats).await.with_deploy_timeout(Duration::from_millis(900));
    let (node, keys) = (KeyPair::new_server().public_key(), keys());
    let deployment = Deployment::new("echo".parse().unwrap(), WorkloadType::V8, artifact());
    let target = Target { node: node.parse().unwrap(), xkey: XKey::new().public_key(), is_signed: true };
    let other = nats.connect().await;
    let mut requests = other.subscribe(format!("$NEX.DEPLOY.default.{node}")).await.unwrap();
    settle(&other).await;
    let deaf = async {
        let first = requests.next().await.unwrap();
        let second = requests.next().await.unwrap();
        assert_eq!(first.payload, second.payload);
        let answer = DeployResponse { started: true, id: "w1".into(), issuer: "A".into(), name: "echo".into(), exit_code: None };
        other.publish(second.reply.unwrap(), success(kind::RUN, &answer).into()).await.unwrap();
    };
    let (deployed, ()) = tokio::join!(client.deploy(&deployment, &target, &keys), deaf);
    assert_eq!(deployed.unwrap().id, "w1");

    let unsigned = Target { is_signed: false, ..target };
    let counted = async {
        requests.next().await.unwrap();
        futures::future::poll_immediate(requests.next()).await.flatten().is_none()
    };
    let (late, once) = tokio::join!(client.deploy(&deployment, &unsigned, &keys), counted);
    assert!(matches!(late, Err(DeployError::Request(RequestError::TimedOut { .. }))) && once, "a node of 0.2.7 is asked once");
    assert!(futures::future::poll_immediate(requests.next()).await.flatten().is_none());
}

#[tokio::test]
async fn a_gather_ends_soon_after_the_last_answer_and_at_once_without_nodes() {
    let nats = Nats::start(false).await;
    let client = client(&nats).await;
    let started = Instant::now();
    assert!(client.nodes(WAIT).await.unwrap().is_empty());
    let empty = started.elapsed();
    let nodes = [
        TestNode::start(&nats, Properties::default()).await,
        TestNode::start(&nats, Properties::default()).await,
        TestNode::start(&nats, Properties::default()).await,
    ];
    let started = Instant::now();
    assert_eq!(client.nodes(WAIT).await.unwrap().len(), nodes.len());
    let full = started.elapsed();
    let started = Instant::now();
    assert!(client.workloads(None, WAIT).await.unwrap().is_empty());
    println!("gather: {empty:?} without nodes, {full:?} with 3, {:?} for no workloads", started.elapsed());
    assert!(empty < Duration::from_millis(500) && full < Duration::from_secs(1) && started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn the_best_bid_wins_and_decliners_give_their_reasons() {
    let nats = Nats::start(false).await;
    let client = client(&nats).await;
    let cold = TestNode::start(&nats, Properties { warm: 0, ..Default::default() }).await;
    let warm = TestNode::start(&nats, Properties { warm: 3, ..Default::default() }).await;
    let native = vec![WorkloadType::Native];
    let other = TestNode::start(&nats, Properties { types: native.clone(), ..Default::default() }).await;
    let request = AuctionRequest { workload_types: Some(vec!["wasm".into()]), ..Default::default() };
    let auction = client.auction(&request, WAIT).await.unwrap();
    assert_eq!((auction.bids.len(), auction.declined.len()), (2, 1));
    assert_eq!(&auction.best().unwrap().node, warm.id());
    drop((cold, warm));
    let silent = TestNode::start(&nats, Properties { types: native, silent_decline: true, ..Default::default() }).await;
    let nobody = client.auction(&request, WAIT).await.unwrap().best().unwrap_err();
    assert!(nobody.to_string().contains(other.id().as_str()) && nobody.to_string().contains("does not take type wasm"));
    drop(other);
    let nobody = client.auction(&request, Duration::from_millis(300)).await.unwrap().best().unwrap_err();
    assert!(nobody.to_string().contains(silent.id().as_str()) && nobody.to_string().contains("gives no reason"), "{nobody}");
}

#[tokio::test]
async fn a_workload_is_deployed_called_found_and_stopped() {
    let nats = Nats::start(false).await;
    let (client, node, keys) = (client(&nats).await, TestNode::start(&nats, Properties::default()).await, keys());
    let mut deployment = Deployment::new("echo".parse().unwrap(), WorkloadType::V8, artifact());
    deployment.environment.insert("TOKEN".into(), "s3cret".into());
    let answer = client.deploy(&deployment, &target(&node), &keys).await.unwrap();
    node.deployed(|all| {
        let own = &all[&answer.id];
        assert_eq!(own.claims.nats.hash.as_deref(), Some(Digest::of(b"echo").to_string().as_str()));
        assert_eq!(own.claims.exp.unwrap() - own.claims.iat, 300);
        assert_eq!(own.environment["TOKEN"], "s3cret");
        assert_eq!(own.request.trigger_subjects.as_deref(), Some(&["echo".to_owned()][..]));
    });
    assert_eq!(client.call("echo", "hi".into(), WAIT).await.unwrap(), "hi");
    let found = client.workloads(Some("echo"), WAIT).await.unwrap();
    assert_eq!((found.len(), &found[0].node, &found[0].workload.id), (1, node.id(), &answer.id));
    assert_eq!(client.info(node.id()).await.unwrap().machines[0].workload.name, "echo");

    let (id, name) = (answer.id.parse().unwrap(), "echo".parse().unwrap());
    let stranger = client.stop(node.id(), &id, &name, &KeyPair::new_account()).await.unwrap_err();
    assert!(matches!(&stranger, StopError::Request(RequestError::Refused(f)) if f.code == ErrorCode::Denied), "{stranger}");
    client.stop(node.id(), &id, &name, &keys.issuer).await.unwrap();
    assert!(client.workloads(None, WAIT).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_node_that_is_not_there_is_said_so() {
    let nats = Nats::start(false).await;
    let client = client(&nats).await;
    let nowhere = KeyPair::new_server().public_key().parse().unwrap();
    let error = client.info(&nowhere).await.unwrap_err();
    assert!(matches!(error, RequestError::NotThere { .. }), "{error}");
    let error = client.call("nothing.here", "".into(), WAIT).await.unwrap_err();
    assert!(matches!(error, CallError::NobodyListens(_)), "{error}");
}

#[tokio::test]
async fn silence_and_service_errors_of_a_call_are_told_apart() {
    let nats = Nats::start(false).await;
    let client = client(&nats).await;
    let service = nats.connect().await;
    let _silent = service.subscribe("silent").await.unwrap();
    let mut failing = service.subscribe("failing").await.unwrap();
    settle(&service).await;
    let error = client.call("silent", "".into(), Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
    let answer = async {
        let call = failing.next().await.unwrap();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Service-Error", "boom");
        headers.insert("Nats-Service-Error-Code", "500");
        service.publish_with_headers(call.reply.unwrap(), headers, "".into()).await.unwrap();
        service.flush().await.unwrap();
    };
    let (error, ()) = tokio::join!(client.call("failing", "".into(), WAIT), answer);
    assert_eq!(error.unwrap_err().to_string(), "the call failed: boom (code 500)");
}

#[tokio::test]
async fn a_file_is_uploaded_once_and_again_only_when_it_changed() {
    let nats = Nats::start(true).await;
    let client = client(&nats).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![7; 1_000_000]).unwrap();
    let upload = upload_of(file.path()).await;
    let mut heard = Vec::new();
    let first = client.upload(&upload, |sent, total| heard.push((sent, total))).await.unwrap();
    assert!(!first.was_there && heard.last() == Some(&(1_000_000, 1_000_000)) && heard.len() > 3, "{heard:?}");
    assert_eq!(first.artifact.digest, Digest::of(&vec![7; 1_000_000]));
    let again = client.upload(&upload, |_, _| panic!("nothing is to be sent")).await.unwrap();
    assert!(again.was_there && again.artifact == first.artifact);
    assert_eq!(client.locate(&upload.location, None).await.unwrap(), first.artifact);
    std::fs::write(file.path(), "other").unwrap();
    let changed = client.upload(&upload_of(file.path()).await, |_, _| ()).await.unwrap();
    assert!(!changed.was_there);
    assert_eq!(client.locate(&upload.location, None).await.unwrap().digest, Digest::of(b"other"));
    let error = client.locate(&Location::new("NEXCLIFILES", "nothing").unwrap(), None).await.unwrap_err();
    assert!(matches!(error, ArtifactError::NoObject(_)), "{error}");
    let error = client.locate(&Location::new("NOBUCKET", "echo").unwrap(), None).await.unwrap_err();
    assert!(matches!(error, ArtifactError::NoBucket(_)), "{error}");
}

#[tokio::test]
async fn a_full_bucket_is_noticed_before_anything_is_sent() {
    let nats = Nats::start(true).await;
    let client = client(&nats).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![7; 100_000]).unwrap();
    let upload = Upload { new_bucket: NewBucket { bytes: 50_000, replicas: 1 }, ..upload_of(file.path()).await };
    let error = client.upload(&upload, |_, _| panic!("nothing is to be sent")).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Full { limit: 50_000, needed: 100_000, .. }), "{error}");
}

#[tokio::test]
async fn a_server_without_jetstream_is_said_so() {
    let nats = Nats::start(false).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = client(&nats).await.upload(&upload_of(file.path()).await, |_, _| ()).await.unwrap_err();
    assert!(matches!(error, ArtifactError::NoJetStream(_)), "{error}");
}

#[tokio::test]
async fn logs_are_filtered_in_both_orders_of_the_subject() {
    let nats = Nats::start(false).await;
    let (client, node) = (client(&nats).await, nats.connect().await);
    let id = nex_protocol::id::WorkloadId::new(7).to_string();
    let filter = LogFilter { workload_name: Some("echo".into()), level: Some(Level::Info), ..Default::default() };
    let mut lines = client.logs(filter).await.unwrap();
    settle(client.nats()).await;
    let say = |subject: String, level: &'static str, text: &'static str| {
        let (node, id) = (node.clone(), id.clone());
        async move {
            let body = serde_json::json!({"text": text, "level": level, "id": id}).to_string();
            node.publish(subject, body.into()).await.unwrap();
        }
    };
    say(format!("$NEX.logs.default.N1.other.{id}"), "INFO", "not mine").await;
    say(format!("$NEX.logs.elsewhere.N1.echo.{id}"), "INFO", "not here").await;
    say(format!("$NEX.logs.default.N1.echo.{id}"), "DEBUG", "too small").await;
    say(format!("$NEX.logs.default.N1.echo.{id}"), "ERROR", "new order").await;
    say(format!("$NEX.logs.default.N1.{id}.echo"), "WARN", "old order").await;
    let seen: Vec<_> = lines.by_ref().take(2).map(|entry| (entry.source.name, entry.source.id, entry.line.text)).collect().await;
    assert_eq!(seen, [("echo".into(), id.clone(), "new order".to_owned()), ("echo".into(), id, "old order".to_owned())]);
}

#[tokio::test]
async fn events_of_the_namespace_and_of_nodes_arrive() {
    let nats = Nats::start(false).await;
    let (client, node) = (client(&nats).await, nats.connect().await);
    let mut events = client.events().await.unwrap();
    settle(client.nats()).await;
    for (namespace, kind) in [("other", "heartbeat"), ("default", "workload_deployed"), ("system", "node_started")] {
        let event =
            nex_protocol::event::CloudEvent::new(kind, "N1".into(), "2026-01-01T00:00:00Z".into(), serde_json::Value::Null);
        node.publish(nex_protocol::subject::event(namespace, kind), serde_json::to_vec(&event).unwrap().into()).await.unwrap();
    }
    let mut seen: Vec<_> = events.by_ref().take(2).map(|event| (event.namespace, event.event.r#type)).collect().await;
    seen.sort();
    let expected = [("default".to_owned(), "workload_deployed".to_owned()), ("system".into(), "node_started".into())];
    assert_eq!(seen, expected);
}
