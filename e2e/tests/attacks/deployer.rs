//! Somebody who may deploy, as everybody may unless the user's NATS says otherwise.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nex_protocol::deploy::DeployRequest;
use nkeys::KeyPair;
use serde_json::json;

use crate::victim::{Victim, is_refused};

#[test]
fn no_trigger_hears_what_is_not_for_functions() {
    let victim = Victim::new();
    for trigger in [
        "_INBOX.>",
        "$KV.>",
        "$O.>",
        "_R_.>",
        "$SRV.>",
        "$MQTT.>",
        "$G.x",
        ">",
        "*",
        "*.>",
        "*.x.y",
        "$SYS.>",
        "$JS.API.>",
        "$NEX.PING",
    ] {
        let answer = victim.deploy("default", &victim.old_request(&KeyPair::new_account(), trigger));
        is_refused(&answer, &format!("The trigger subject {trigger} overlaps with subject(s) in this node's deny list"));
    }
    victim.stop();
}

#[test]
fn no_trigger_is_taken_from_another_namespace() {
    let victim = Victim::new();
    for trigger in ["fn.greet", "fn.*", "fn.>"] {
        let answer = victim.deploy("other", &victim.old_request(&KeyPair::new_account(), trigger));
        is_refused(&answer, "overlaps with one of another namespace");
    }
    let answer = victim.deploy("default", &victim.old_request(&KeyPair::new_account(), "fn.greet"));
    assert_eq!(answer["data"]["started"], true, "copies in one namespace share it: {answer}");
    victim.stop();
}

#[test]
fn a_namespace_has_the_triggers_it_is_given() {
    let victim = Victim::with(&json!({"allow_trigger_subjects": {"default": ["fn.>"], "acme": ["acme.*"]}}));
    for (namespace, trigger) in [("acme", "fn.other"), ("acme", "acme.>"), ("other", "other.x"), ("default", "x")] {
        let answer = victim.deploy(namespace, &victim.old_request(&KeyPair::new_account(), trigger));
        is_refused(&answer, "is not among those allowed to this namespace");
    }
    let answer = victim.deploy("acme", &victim.old_request(&KeyPair::new_account(), "acme.x"));
    assert_eq!(answer["data"]["started"], true, "{answer}");
    victim.stop();
}

#[test]
fn a_node_never_dials_what_a_deployer_names() {
    let victim = Victim::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let own = listener.local_addr().unwrap();
    let said = |answer: &serde_json::Value| answer["error"].as_str().unwrap_or_default().to_owned();
    let text = "its NATS servers are not among those that this node connects workloads to";
    let closed = victim.deploy("default", &victim.connected("nats://127.0.0.1:1"));
    for url in [
        format!("nats://{own}"),
        format!("{},nats://{own}", victim.world.url()),
        "nats://169.254.169.254:80".into(),
        "nats://localhost:1".into(),
    ] {
        let answer = victim.deploy("default", &victim.connected(&url));
        is_refused(&answer, text);
        assert_eq!(said(&answer), said(&closed), "the answer tells nothing of what is there");
        let of_host = DeployRequest {
            host_services: victim.connected(&url).trigger_connection,
            ..victim.old_request(&KeyPair::new_account(), "fn.x")
        };
        is_refused(&victim.deploy("default", &of_host), text);
    }
    assert!(listener.accept().is_err(), "the node came");
    let answer = victim.deploy("default", &victim.connected(&victim.world.url()));
    assert_eq!(answer["data"]["started"], true, "its own servers are fine: {answer}");
    victim.stop();
}

/// A server that speaks NATS and says nothing more: it keeps whoever dials it waiting.
fn silent_server() -> (String, &'static AtomicUsize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let came: &'static AtomicUsize = Box::leak(Box::default());
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            came.fetch_add(1, Ordering::SeqCst);
            drop(stream.write_all(b"INFO {\"server_id\":\"x\",\"version\":\"2.12.0\",\"proto\":1,\"host\":\"x\",\"port\":1,\"max_payload\":1048576}\r\n"));
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            drop(stream.read(&mut [0; 64]));
            kept.push(stream);
        }
    });
    (url, came)
}

#[test]
fn slow_deploys_keep_nobody_else_waiting() {
    // Even where an operator lets workloads connect to a server that turns out to be silent.
    let (url, came) = silent_server();
    let victim = Victim::with(&json!({"allow_nats_urls": [url], "deploy_timeout_ms": 15_000}));
    let subject = format!("$NEX.DEPLOY.slow.{}", victim.node);
    let requests: Vec<_> = (0..400).map(|_| serde_json::to_vec(&victim.connected(&url)).unwrap()).collect();
    victim.world.block_on(async {
        for request in requests {
            victim.client.publish_with_reply(subject.clone(), "_INBOX.nobody", request.into()).await.unwrap();
        }
        victim.client.flush().await.unwrap();
    });
    victim.world.eventually("slow deploys are under way", || came.load(Ordering::SeqCst) > 0);
    let within = |subject: String| {
        let request = async_nats::Request::new().payload("{}".into()).timeout(Some(Duration::from_secs(5)));
        victim.world.block_on(victim.client.send_request(subject, request)).expect("an answer")
    };
    within("$NEX.PING".into());
    within(format!("$NEX.INFO.default.{}", victim.node));
    within(format!("$NEX.STOP.default.{}", victim.node));
    // Another namespace, another issuer: it has its turn before the slow ones are through.
    let answer = victim.deploy("default", &victim.old_request(&KeyPair::new_account(), "fn.greet"));
    assert_eq!(answer["data"]["started"], true, "{answer}");
    victim.stop();
}
