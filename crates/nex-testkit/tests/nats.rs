//! The test support against a real nats-server and client.

use std::path::PathBuf;
use std::time::Duration;

use nex_testkit::{NatsOptions, NatsServer, eventually};

fn is_running(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_dropped_server_leaves_no_process() {
    let nats = NatsServer::start().await;
    let pid = nats.pid().unwrap();
    nats.client().await.flush().await.unwrap();
    assert!(is_running(pid));
    drop(nats);
    assert!(!is_running(pid));
}

#[tokio::test]
async fn what_jetstream_stored_survives_kill9_and_restart_on_the_same_port() {
    let mut nats = NatsServer::start().await;
    let (url, client) = (nats.url(), nats.client().await);
    let bucket = async_nats::jetstream::kv::Config { bucket: "TEST".into(), ..Default::default() };
    let kv = async_nats::jetstream::new(client).create_key_value(bucket).await.unwrap();
    kv.put("key", "value".into()).await.unwrap();
    nats.kill9();
    assert_eq!(nats.pid(), None);
    nats.restart().await;
    assert_eq!(nats.url(), url);
    let jetstream = async_nats::jetstream::new(nats.client().await);
    let held = eventually(Duration::from_secs(10), async || match jetstream.get_key_value("TEST").await {
        Ok(kv) => kv.get("key").await.ok().flatten().is_some_and(|value| value == "value"),
        Err(_) => false,
    });
    assert!(held.await);
    nats.restart().await;
    assert_eq!(nats.url(), url);
}

#[tokio::test]
async fn a_server_with_users_refuses_a_stranger() {
    let config = "authorization { users: [{ user: me, password: secret }] }".to_owned();
    let nats = NatsServer::start_with(NatsOptions { jetstream: false, config, ..NatsOptions::default() }).await;
    assert!(async_nats::connect(nats.url()).await.is_err());
    let me = async_nats::ConnectOptions::with_user_and_password("me".into(), "secret".into());
    me.connect(nats.url()).await.unwrap();
}

#[tokio::test]
async fn a_condition_that_hangs_or_never_holds_does_not_hold() {
    assert!(!eventually(Duration::from_millis(20), std::future::pending::<bool>).await);
    assert!(!eventually(Duration::from_millis(20), async || false).await);
}
