//! An environment is the workload's alone: it is found nowhere else.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use nex_protocol::deploy::WorkloadType;
use serde_json::json;
use tokio::task::JoinSet;

use crate::bus::bus_keys;
use crate::world::{World, kill9, processes};

/// All files below a directory in which a text occurs.
fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_with(&path, text));
        } else if fs::read(&path).is_ok_and(|bytes| contains(&bytes, text)) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Everything that is said on a connection from here on.
async fn overhear(ears: &mut JoinSet<()>, nats: &async_nats::Client) -> Arc<Mutex<Vec<async_nats::Message>>> {
    let (heard, mut all) = (Arc::new(Mutex::new(Vec::new())), nats.subscribe(">").await.unwrap());
    nats.flush().await.unwrap();
    let hearing = Arc::clone(&heard);
    ears.spawn(async move {
        while let Some(message) = all.next().await {
            hearing.lock().unwrap().push(message);
        }
    });
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_an_environment_is_seen_by_its_workload_and_nowhere_else() {
    let secret = format!("s3cret-{:016x}", rand::random::<u64>());
    let backwards: String = secret.chars().rev().collect();
    let mut world = World::start(json!({})).await;
    let mut ears = JoinSet::new();
    let public = overhear(&mut ears, &world.nats.client().await).await;
    let node_user = bus_keys(&world).node_user(nex_node::clock::unix_seconds());
    let sniffer = async_nats::ConnectOptions::with_jwt(node_user.jwt, {
        let key = Arc::new(nkeys::KeyPair::from_seed(&node_user.seed).unwrap());
        move |nonce| {
            let key = Arc::clone(&key);
            async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
        }
    });
    let inside = overhear(&mut ears, &world.connect_to_bus(sniffer).await.unwrap()).await;

    let source = b"() => env.TOKEN.split('').reverse().join('')";
    let mut function = world.prepare("function", WorkloadType::V8, source).await;
    function.environment.insert("TOKEN".into(), secret.clone());
    let script = b"#!/bin/sh\necho \"backwards: $(echo $TOKEN | rev)\"\nexec sleep 1000\n";
    let mut service = world.prepare("service", WorkloadType::Native, script).await;
    service.environment.insert("TOKEN".into(), secret.clone());
    service.essential = true;
    world.deploy(&function).await;
    let (started, agent) = world.deploy_watched(&service).await;
    assert_eq!(world.call("function", "").await, format!("\"{backwards}\""));
    let told = |it: &World| it.logs().iter().filter(|(_, line)| line.text.contains(&backwards)).count();
    world.until("the service saw it", |it| told(it) == 1).await;
    kill9(agent);
    world.until("the service sees it again", |it| told(it) == 2).await;
    world.ask(&format!("$NEX.INFO.default.{}", world.target().node), "").await;

    let nowhere = |world: &World| {
        assert_eq!(files_with(&world.state(), &secret), Vec::<String>::new());
        let lines: Vec<_> = processes().into_iter().filter(|(_, line)| line.contains(&secret)).collect();
        assert!(lines.is_empty(), "{lines:?}");
        for (where_, heard) in [("the user's NATS", &public), ("the internal bus", &inside)] {
            let heard = heard.lock().unwrap();
            assert!(heard.len() > 10, "nothing was overheard on {where_}");
            let leak = heard
                .iter()
                .find(|message| contains(&message.payload, &secret) || format!("{:?}", message.headers).contains(&secret));
            assert!(leak.is_none(), "on {where_}: {leak:?}");
        }
    };
    nowhere(&world);
    let deploys = inside.lock().unwrap().iter().filter(|message| message.subject.contains(".deploy.")).count();
    assert_eq!(deploys, 3, "what the node told its agents was overheard");
    world.stop_workload(&started).await;
    world.stop().await;
    nowhere(&world);
}
