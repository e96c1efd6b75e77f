//! Quotas of the node, of namespaces and of issuers: kept by deploys that come together and after a restart, and named in refusals.

use futures::future::join_all;
use nex_client::Client;
use nex_client::deploy::{Deployment, Keys};
use nex_protocol::control::AuctionRequest;
use nex_protocol::deploy::{RequestedLimits, WorkloadType};
use nex_protocol::envelope::ErrorCode;
use nkeys::{KeyPair, XKey};
use serde_json::json;

use crate::world::World;

const SLEEPING: &[u8] = b"#!/bin/sh\nexec sleep 1000\n";

impl World {
    async fn idle(&self, name: &str) -> Deployment {
        self.prepare(name, WorkloadType::Native, SLEEPING).await
    }

    fn other(&self, namespace: &str) -> Client {
        Client::new(self.client.nats().clone(), namespace.parse().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deploys_that_come_together_never_exceed_a_quota_and_refusals_name_it() {
    let quotas = json!({"namespace": {"workloads": 2}, "namespaces": {"large": {"workloads": 3}}, "node": {"workloads": 4}});
    let mut world = World::start(json!({"quotas": quotas, "machine_pool_size": 2})).await;
    let sleeper = world.idle("sleeper").await;
    let target = world.target();
    let deploys = (0..6).map(|_| Box::pin(world.client.deploy(&sleeper, &target, &world.keys)));
    let answers = join_all(deploys).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2, "{answers:?}");
    let refused = world.refused(&sleeper).await;
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (ErrorCode::Unavailable, "quota of namespace default: workloads 2 of 2; it asks for 1",)
    );
    // Also in the auction, which a namespace that is not at its end wins.
    let large = world.other("large");
    for (client, bids) in [(&world.client, 0), (&large, 1)] {
        let auction = client.auction(&AuctionRequest::default(), std::time::Duration::from_secs(5)).await.unwrap();
        assert_eq!(auction.bids.len(), bids, "{auction:?}");
        let reasons: Vec<_> = auction.declined.iter().flat_map(|node| &node.declined).collect();
        assert!(bids == 1 || reasons[0].starts_with("quota of namespace default: workloads"), "{reasons:?}");
    }
    let deploys = (0..5).map(|_| Box::pin(large.deploy(&sleeper, &target, &world.keys)));
    let answers = join_all(deploys).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2, "the node has room for four: {answers:?}");
    let told = answers.iter().find_map(|answer| answer.as_ref().err()).unwrap().to_string();
    assert!(told.contains("quota of this node: workloads 4 of 4"), "{told}");
    // Room comes back, and a restart forgets nobody.
    world.stop().await;
    world.start_node().await;
    Box::pin(world.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_has_the_room_of_what_it_replaces_and_nobody_has_more_by_that() {
    for limits in [json!({"quotas": {"namespace": {"workloads": 2}}}), json!({"node_limits": {"max_workloads": 2}})] {
        let mut world = World::start(limits).await;
        let sleeper = world.idle("sleeper").await;
        let (old, other) = (world.deploy(&sleeper).await, world.deploy(&sleeper).await);
        let asks = |issuer: &str, replaces: Option<&str>| AuctionRequest {
            issuer: Some(issuer.to_owned()),
            replaces: replaces.map(str::to_owned),
            ..AuctionRequest::default()
        };
        let (issuer, stranger) = (world.keys.issuer.public_key(), KeyPair::new_account());
        for (asked, bids) in [
            (asks(&issuer, Some("sleeper")), 1),
            (asks(&issuer, None), 0),
            (asks(&issuer, Some("another")), 0),
            (asks(&stranger.public_key(), Some("sleeper")), 0),
        ] {
            let auction = world.client.auction(&asked, std::time::Duration::from_secs(5)).await.unwrap();
            assert_eq!(auction.bids.len(), bids, "{asked:?}: {auction:?}");
        }
        // Of another name, of another issuer, and where it does not start: what runs stays.
        let in_place = |it: &Deployment| Deployment { replaces: old.id.parse().ok(), ..it.clone() };
        assert_eq!(world.refused(&in_place(&world.idle("another").await)).await.code, ErrorCode::Unavailable);
        let strangers = Keys { issuer: stranger, sender: XKey::new() };
        Box::pin(world.client.deploy(&in_place(&sleeper), &world.target(), &strangers)).await.unwrap_err();
        let broken = world.prepare("broken", WorkloadType::Native, b"#!/bin/sh\nexit 3\n").await;
        let broken = Deployment { name: sleeper.name.clone(), settle: Some(std::time::Duration::from_secs(5)), ..broken };
        assert_eq!(world.refused(&in_place(&broken)).await.code, ErrorCode::Failed);
        assert!(world.workload(&old.id).await.is_some());
        // Nobody but the node stops the old one here, and several at once have its room only once.
        let (sleeper, target) = (in_place(&sleeper), world.target());
        let answers = join_all((0..4).map(|_| Box::pin(world.client.deploy(&sleeper, &target, &world.keys)))).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        world.until("the old one has gone", |it| it.node().registry().count() == 2).await;
        assert!(world.workload(&old.id).await.is_none() && world.workload(&other.id).await.is_some());
        let ended = world.events_of("workload_undeployed", &old.id);
        assert!(serde_json::to_string(&ended).unwrap().contains("replaced by "), "{ended:?}");
        Box::pin(world.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_counts_after_a_crash_and_room_comes_back_with_each_end() {
    let (mut world, doomed) = World::crashing().await;
    let sleeper = world.idle("sleeper").await;
    for _ in 0..2 {
        Box::pin(world.client.deploy(&sleeper, &doomed.target, &world.keys)).await.unwrap();
    }
    doomed.crash();
    world.set_config(json!({"quotas": {"namespace": {"workloads": 2}, "issuer": {"deploys_per_minute": 1_000}}}));
    world.start_node().await;
    let refused = world.refused(&sleeper).await;
    assert_eq!(refused.message, "quota of namespace default: workloads 2 of 2; it asks for 1");
    let running = world.client.workloads(None, std::time::Duration::from_secs(5)).await.unwrap();
    assert_eq!(running.len(), 2, "what was accepted is not refused");
    let (id, name) = (running[0].workload.id.parse().unwrap(), running[0].workload.name.parse().unwrap());
    world.client.stop(&world.target().node, &id, &name, &world.keys.issuer).await.unwrap();
    world.deploy(&sleeper).await;
    Box::pin(world.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_artifacts_and_deploys_are_counted_for_whom_they_are() {
    let quotas = json!({
        "namespace": {"memory_mib": 400, "artifact_mib": 1},
        "issuer": {"deploys_per_minute": 4},
    });
    let mut world = World::start(json!({"quotas": quotas, "workload_limits": {"max_memory_mib": 256}})).await;
    let asking = |mib, it: &Deployment| Deployment {
        limits: RequestedLimits { memory_mib: Some(mib), ..RequestedLimits::default() },
        ..it.clone()
    };
    let sleeper = world.idle("sleeper").await;
    world.deploy(&asking(200, &sleeper)).await;
    assert_eq!(world.refused(&sleeper).await.message, "quota of namespace default: memory 200 of 400 MiB; it asks for 256");
    world.deploy(&asking(200, &sleeper)).await;
    assert!(world.refused(&asking(1, &sleeper)).await.message.contains("memory 400 of 400 MiB"));
    let large = [b"#!/bin/sh\nexec sleep 1000\n#".as_slice(), &[b'x'; 1024 * 1024]].concat();
    let other = world.other("other");
    let large = Deployment::new("large".parse().unwrap(), WorkloadType::Native, world.upload("large", &large).await);
    let told = Box::pin(other.deploy(&asking(64, &large), &world.target(), &world.keys)).await.unwrap_err().to_string();
    assert!(told.contains("quota of namespace other: artifacts 0 of 1 MiB; it asks for 2"), "{told}");
    // Those that were refused for want of room are not counted, but the one that got as far as its artifact.
    Box::pin(other.deploy(&asking(64, &sleeper), &world.target(), &world.keys)).await.unwrap();
    let told = Box::pin(other.deploy(&asking(64, &sleeper), &world.target(), &world.keys)).await.unwrap_err().to_string();
    assert!(told.contains("quota of issuer A") && told.contains("4 deploys a minute; try again in "), "{told}");
    let another = Keys { issuer: KeyPair::new_account(), sender: XKey::new() };
    Box::pin(other.deploy(&asking(64, &sleeper), &world.target(), &another)).await.unwrap();
    let info = world.client.info(&world.target().node).await.unwrap();
    let of = |of: &str, what: &str| info.quotas.iter().find(|it| it.of == of && it.what == what).map(|it| (it.used, it.most));
    assert_eq!(of("namespace default", "memory"), Some((Some(400), 400)));
    assert_eq!(of(&format!("issuer {}", world.keys.issuer.public_key()), "deploys"), Some((None, 4)));
    assert_eq!(of("namespace other", "memory"), None, "{:?}", info.quotas);
    Box::pin(world.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_more_than_the_quota_of_its_namespace_is_told_and_others_are_not_touched() {
    let quotas = json!({"namespace": {"log_bytes_per_second": 2_000}});
    let mut world = World::start(json!({"quotas": quotas})).await;
    let flood =
        b"#!/bin/sh\ni=0\nwhile [ $i -lt 500 ]; do echo \"flood $i xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"; i=$((i+1)); done\n\
                  while :; do echo on; sleep 0.2; done\n";
    let flood = world.run("flood", WorkloadType::Native, flood).await;
    let other = world.other("other");
    let calm = world.prepare("calm", WorkloadType::Native, b"#!/bin/sh\necho calm\nexec sleep 1000\n").await;
    Box::pin(other.deploy(&calm, &world.target(), &world.keys)).await.unwrap();
    world.until("the other says what it says", |it| it.has_logged("calm")).await;
    world.until("it is told", |it| it.has_logged("the quota of namespace default for log lines is used up")).await;
    let lines = world.logs().iter().filter(|(_, line)| line.text.starts_with("flood")).count();
    assert!((10..200).contains(&lines), "{lines}");
    world.until("it is heard again", |it| it.logs().iter().filter(|(_, line)| line.text == "on").count() > 2).await;
    world.stop_workload(&flood).await;
    Box::pin(world.stop()).await;
}
