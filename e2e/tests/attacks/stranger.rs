//! A stranger on the user's NATS: no rights at `$NEX.DEPLOY`, no keys, but a connection.

use serde_json::Value;

use crate::victim::Victim;

/// Every question that a node answers by itself.
fn questions(node: &str) -> Vec<String> {
    let of_nex = ["AUCTION", "PING", "WPING.default", &format!("PING.{node}"), &format!("INFO.default.{node}")]
        .map(|it| format!("$NEX.{it}"));
    let of_micro = ["PING", "INFO", "STATS", "PING.nex", "INFO.nex", "STATS.nex"].map(|it| format!("$SRV.{it}"));
    of_nex.into_iter().chain(of_micro).collect()
}

#[test]
fn no_answer_of_a_node_drains_it() {
    let victim = Victim::new();
    let drain = format!("$NEX.LAMEDUCK.{}", victim.node);
    for question in questions(&victim.node) {
        victim.ask_with_reply(&question, &drain, "");
        assert_eq!(victim.summary()["tags"].get("nex.lameduck"), None, "{question} drained it");
    }
    for verb in ["DEPLOY", "STOP"] {
        victim.ask_with_reply(&format!("$NEX.{verb}.default.{}", victim.node), &drain, "{}");
        assert_eq!(victim.summary()["tags"].get("nex.lameduck"), None, "{verb} drained it");
    }
    victim.stop();
}

#[test]
fn no_answer_of_a_node_or_a_function_lands_in_a_bucket_or_at_jetstream() {
    let victim = Victim::new();
    let kv = victim.world.block_on(async {
        let jetstream = async_nats::jetstream::new(victim.client.clone());
        let config = async_nats::jetstream::kv::Config { bucket: "THEIRS".into(), ..Default::default() };
        jetstream.create_key_value(config).await.unwrap()
    });
    let mut askable = questions(&victim.node);
    askable.push("fn.greet".to_owned());
    for question in &askable {
        victim.ask_with_reply(question, "$KV.THEIRS.key", "you");
        // Answered after it, on the same connection.
        victim.summary();
        victim.world.nex(&["call", "fn.greet", "you"]).expect(0);
        let found = victim.world.block_on(kv.get("key")).unwrap();
        assert_eq!(found, None, "the answer to {question} is in the bucket");
    }
    for question in &askable {
        victim.ask_with_reply(question, "$JS.API.STREAM.PURGE.KV_THEIRS", "");
    }
    victim.summary();
    victim.stop();
}

/// Somebody who answers for a node, with a key of his own.
#[test]
fn who_answers_an_auction_under_another_nodes_name_gets_no_environment() {
    let victim = Victim::new();
    let (world, node) = (&victim.world, victim.node.clone());
    let own = nkeys::XKey::new();
    let mut summary = victim.summary();
    summary["target_xkey"] = own.public_key().into();
    summary["warm_agents"] = 1_000.into();
    let answer = serde_json::json!({"type": "io.nats.nex.v1.auction_response", "data": summary}).to_string();
    let (rogue, heard) = (victim.client.clone(), std::sync::Arc::new(std::sync::Mutex::new(Vec::<Value>::new())));
    let (mut auctions, mut deploys) = world
        .block_on(async { (rogue.subscribe("$NEX.AUCTION").await.unwrap(), rogue.subscribe("$NEX.DEPLOY.>").await.unwrap()) });
    world.block_on(rogue.flush()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    let runtime = world.block_on(async { tokio::runtime::Handle::current() });
    tasks.spawn_on(
        async move {
            use futures::StreamExt as _;
            while let Some(auction) = auctions.next().await {
                // Often enough to win a draw by lot.
                for _ in 0..50 {
                    rogue.publish(auction.reply.clone().unwrap(), answer.clone().into()).await.unwrap();
                }
            }
        },
        &runtime,
    );
    let overheard = std::sync::Arc::clone(&heard);
    tasks.spawn_on(
        async move {
            use futures::StreamExt as _;
            while let Some(deploy) = deploys.next().await {
                overheard.lock().unwrap().push(serde_json::from_slice(&deploy.payload).unwrap());
            }
        },
        &runtime,
    );
    let script = world.file("other.js", nex_testkit::guest::ECHO_JS);
    for _ in 0..3 {
        world.nex(&["devrun", &script, "TOKEN=s3cret"]).expect(0);
    }
    for deploy in heard.lock().unwrap().iter() {
        let (sealed, sender) = (deploy["environment"].as_str().unwrap(), deploy["sender_public_key"].as_str().unwrap());
        let opened = nex_protocol::seal::open(sealed, &own, sender);
        assert!(opened.is_err(), "the environment is the rogue's to read");
        assert_eq!(deploy["target_node"], node.as_str());
    }
    assert!(!heard.lock().unwrap().is_empty());
    drop(tasks);
    victim.stop();
}
