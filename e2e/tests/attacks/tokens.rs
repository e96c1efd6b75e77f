//! Somebody who may deploy, and has read what others sent to the node: their tokens and sealed environments.

use futures::StreamExt as _;
use nex_protocol::claims::{Claims, sign};
use nex_protocol::deploy::{DeployRequest, StopRequest, request_digest};
use nex_protocol::digest::Digest;
use nex_testkit::guest;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::victim::{Victim, is_refused, now};

/// What a command sends on a subject.
fn overheard(victim: &Victim, subject: &str, command: &[&str]) -> Vec<Value> {
    let mut ear = victim.world.block_on(victim.client.subscribe(subject.to_owned())).unwrap();
    victim.world.block_on(victim.client.flush()).unwrap();
    victim.world.nex(command).expect(0);
    // What it sent was answered, so it has arrived.
    victim.summary();
    let mut heard = Vec::new();
    while let Some(message) = victim.world.block_on(async { futures::future::poll_immediate(ear.next()).await.flatten() }) {
        heard.push(serde_json::from_slice(&message.payload).unwrap());
    }
    heard
}

/// A request of our own client's kind, before anybody used it.
fn bound(victim: &Victim, issuer: &KeyPair) -> (DeployRequest, Claims) {
    let request = DeployRequest { workload_jwt: None, ..victim.old_request(issuer, "fn.greet") };
    let digest = request_digest(&serde_json::to_vec(&request).unwrap()).unwrap();
    let claims = Claims::to_start("greetmjs", issuer, &Digest::of(guest::GREET_MJS.as_bytes()), now(), 60);
    let claims = claims.bound_to_request(&victim.node.parse().unwrap(), &"default".parse().unwrap(), digest);
    (request, claims)
}

fn signed(request: &DeployRequest, claims: &Claims, issuer: &KeyPair) -> DeployRequest {
    DeployRequest { workload_jwt: Some(sign(claims, issuer).unwrap()), ..request.clone() }
}

#[test]
fn a_sniffed_environment_is_of_no_use_to_another_issuer() {
    let victim = Victim::new();
    let script = victim.world.file("secret.js", "() => 'nothing'");
    let heard = overheard(&victim, "$NEX.DEPLOY.>", &["devrun", &script, "TOKEN=s3cret"]);
    let thief = KeyPair::new_account();
    let request = DeployRequest {
        environment: Some(heard[0]["environment"].as_str().unwrap().to_owned()),
        sender_public_key: Some(heard[0]["sender_public_key"].as_str().unwrap().to_owned()),
        ..victim.old_request(&thief, "fn.thief")
    };
    is_refused(&victim.deploy("default", &request), "it was sealed for another deploy");
    victim.stop();
}

#[test]
fn a_token_deploys_what_it_was_signed_for_and_nothing_else() {
    let victim = Victim::new();
    let issuer = KeyPair::new_account();
    let (request, claims) = bound(&victim, &issuer);
    let changed = "it was changed after signing";
    for other in [
        DeployRequest { argv: Some(vec!["x".into()]), ..request.clone() },
        DeployRequest { trigger_subjects: Some(vec!["fn.thief".into()]), ..request.clone() },
        DeployRequest { environment: None, ..request.clone() },
        DeployRequest { location: Some("nats://NEXCLIFILES/other".parse().unwrap()), ..request.clone() },
        DeployRequest { essential: Some(true), ..request.clone() },
    ] {
        is_refused(&victim.deploy("default", &signed(&other, &claims, &issuer)), changed);
    }
    let good = signed(&request, &claims, &issuer);
    is_refused(&victim.deploy("other", &good), "it is for another namespace");
    let elsewhere = Claims { aud: Some(KeyPair::new_server().public_key()), ..claims.clone() };
    is_refused(&victim.deploy("default", &signed(&request, &elsewhere, &issuer)), "it is for another node");
    let answer = victim.deploy("default", &good);
    assert_eq!(answer["data"]["started"], true, "{answer}");
    assert_eq!(victim.deploy("default", &good), answer, "heard again, it is answered again and starts nothing");
    let again = Claims { exp: claims.exp.map(|exp| exp + 1), ..claims };
    is_refused(&victim.deploy("default", &signed(&request, &again, &issuer)), "this workload JWT was used before");
    victim.stop();
}

#[test]
fn a_user_of_nats_is_no_workload() {
    let victim = Victim::new();
    let account = KeyPair::new_account();
    let request = victim.old_request(&account, "fn.greet");
    let user = json!({
        "jti": "x", "iat": now(), "iss": account.public_key(), "sub": KeyPair::new_user().public_key(), "name": "somebody",
        "nats": {"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1},
    });
    let token = sign(&user, &account).unwrap();
    is_refused(&victim.deploy("default", &DeployRequest { workload_jwt: Some(token), ..request }), "it is a token of NATS");
    victim.stop();
}

#[test]
fn a_captured_stop_stops_nothing_else() {
    let victim = Victim::new();
    let script = victim.world.file("mine.js", guest::ECHO_JS);
    victim.world.nex(&["devrun", &script]).expect(0);
    let heard = overheard(&victim, "$NEX.STOP.>", &["stop", "minejs"]);
    assert_eq!(heard.len(), 1);
    victim.world.nex(&["devrun", &script]).expect(0);
    let later = victim.world.ps().into_iter().find(|it| it["name"] == "minejs").unwrap()["id"].as_str().unwrap().to_owned();
    let subject = format!("$NEX.STOP.default.{}", victim.node);
    let mut replayed = heard[0].clone();
    replayed["workload_id"] = later.as_str().into();
    is_refused(&victim.ask(&subject, &replayed.to_string()), "its claims are for another workload");
    // A client of 0.2.7 names no workload: its token is older than what was started since.
    let issuer = KeyPair::new_account();
    let old = Claims { iat: now() - 10, ..Claims::to_stop("greetmjs", &issuer, now()) };
    let started = victim.deploy("default", &victim.old_request(&issuer, "fn.greet"));
    let request = StopRequest {
        workload_id: Some(started["data"]["id"].as_str().unwrap().to_owned()),
        workload_jwt: Some(sign(&old, &issuer).unwrap()),
        target_node: None,
    };
    is_refused(&victim.ask(&subject, &serde_json::to_string(&request).unwrap()), "its claims are older than the workload");
    let fresh =
        StopRequest { workload_jwt: Some(sign(&Claims::to_stop("greetmjs", &issuer, now()), &issuer).unwrap()), ..request };
    let stopped = victim.ask(&subject, &serde_json::to_string(&fresh).unwrap());
    assert_eq!(stopped["data"]["stopped"], true, "{stopped}");
    victim.stop();
}

#[test]
fn what_clients_of_0_2_7_cannot_offer_can_be_demanded() {
    let victim = Victim::with(&json!({"require_digest": true, "require_bound_claims": true, "require_bound_environment": true}));
    assert_eq!(victim.summary()["tags"]["nex.demands"], "digest,bound_claims,bound_environment");
    let issuer = KeyPair::new_account();
    let answer = victim.deploy("default", &victim.old_request(&issuer, "fn.greet"));
    is_refused(&answer, "this node demands claims that name it, the namespace and the request");
    let (request, claims) = bound(&victim, &issuer);
    let answer = victim.deploy("default", &signed(&request, &claims, &issuer));
    is_refused(&answer, "this node demands environments that name their issuer and token");
    let script = victim.world.file("mine.js", guest::ECHO_JS);
    victim.world.nex(&["devrun", &script, "KEY=value"]).expect(0);
    let id = victim.world.ps().into_iter().find(|it| it["name"] == "minejs").unwrap()["id"].as_str().unwrap().to_owned();
    let own = KeyPair::from_seed(std::fs::read_to_string(victim.world.path("home/.nex/issuer.nk")).unwrap().trim()).unwrap();
    let unbound = StopRequest {
        workload_id: Some(id),
        workload_jwt: Some(sign(&Claims::to_stop("minejs", &own, now()), &own).unwrap()),
        target_node: None,
    };
    let answer = victim.ask(&format!("$NEX.STOP.default.{}", victim.node), &serde_json::to_string(&unbound).unwrap());
    is_refused(&answer, "this node demands claims that name it");
    victim.world.nex(&["stop", "minejs"]).expect(0);
    victim.stop();
}
