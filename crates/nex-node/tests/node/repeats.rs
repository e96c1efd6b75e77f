//! A deploy asked for again with the same token: the same answer, and nothing started twice.

use std::time::Duration;

use nex_client::deploy::Deployment;
use nex_protocol::claims::{Claims, sign};
use nex_protocol::deploy::{DeployRequest, WorkloadType};
use nex_protocol::envelope::ErrorCode;
use nex_testkit::guest;
use serde_json::{Value, json};

use crate::world::World;

/// Deploys while it listens; what was sent, and its answer.
async fn overheard(world: &World, deployment: &Deployment) -> (Vec<u8>, Value) {
    let mut ear = world.client.nats().subscribe("$NEX.DEPLOY.>").await.unwrap();
    let answer = world.client.deploy(deployment, &world.target(), &world.keys).await;
    let heard = futures::StreamExt::next(&mut ear).await.unwrap();
    let answer = answer.map_or_else(|error| json!(error.to_string()), |it| serde_json::to_value(it).unwrap());
    (heard.payload.to_vec(), answer)
}

fn subject(world: &World) -> String {
    format!("$NEX.DEPLOY.default.{}", world.target().node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_again_is_answered_again_and_starts_nothing() {
    let mut world = World::start(json!({})).await;
    let sleeper = world.prepare("sleeper", WorkloadType::Native, b"#!/bin/sh\nexec sleep 1000\n").await;
    let (body, answer) = overheard(&world, &sleeper).await;
    let many = vec![(subject(&world), body.clone()); 5];
    for answers in world.ask_all(&many).await {
        let again: Value = serde_json::from_slice(&answers[0].payload).unwrap();
        assert_eq!(again["data"], answer);
    }
    assert_eq!(world.ask("$NEX.PING", "").await["data"]["running_machines"], 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_together_start_one_workload() {
    let mut world = World::start(json!({})).await;
    let artifact = world.upload("greet", guest::GREET_MJS.as_bytes()).await;
    let issuer = &world.keys.issuer;
    let claims = Claims::to_start("greet", issuer, &artifact.digest, nex_node::clock::unix_seconds(), 60);
    let request = DeployRequest {
        r#type: Some("v8".into()),
        location: Some(artifact.location),
        workload_jwt: Some(sign(&claims, issuer).unwrap()),
        trigger_subjects: Some(vec!["greet".into()]),
        ..DeployRequest::default()
    };
    let body = serde_json::to_vec(&request).unwrap();
    let many = vec![(subject(&world), body); 5];
    let answers: Vec<Value> =
        world.ask_all(&many).await.iter().map(|answers| serde_json::from_slice(&answers[0].payload).unwrap()).collect();
    assert!(answers.iter().all(|it| it["data"]["started"] == true && *it == answers[0]), "{answers:?}");
    assert_eq!(world.ask("$NEX.PING", "").await["data"]["running_machines"], 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_answered_again_too() {
    let mut world = World::start(json!({})).await;
    let crash = world.prepare("crash", WorkloadType::Native, b"#!/bin/sh\necho no database >&2\nexit 7\n").await;
    let crash = Deployment { settle: Some(Duration::from_secs(30)), ..crash };
    let (body, answer) = overheard(&world, &crash).await;
    assert!(answer.as_str().unwrap().contains("no database"), "{answer}");
    let again = world.ask(&subject(&world), body).await;
    assert_eq!((&again["error"], &again["code"]), (&answer, &json!(ErrorCode::Failed)));
    assert_eq!(world.events("workload_deployed").len(), 1);
    world.stop().await;
}
