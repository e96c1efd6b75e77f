//! Connections of `nex-bus` against real servers: each way to say who one is, and a server that comes late.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::path::Path;

use nex_bus::connect::{ConnectError, connect};
use nex_bus::settings::ConnectionSettings;
use nkeys::KeyPair;
use support::{Nats, settle};

fn written(directory: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn an_nkey_seed_file_opens_the_door_and_no_key_does_not() {
    let key = KeyPair::new_user();
    let config = format!("authorization: {{ users: [ {{ nkey: {} }} ] }}", key.public_key());
    let nats = Nats::start_with(false, -1, &config).await;
    let directory = tempfile::tempdir().unwrap();
    let seed = written(directory.path(), "me.nk", &format!("# mine\n{}\n", key.seed().unwrap()));
    let settings = ConnectionSettings { nkey_file: Some(seed), ..ConnectionSettings::to_servers(&nats.url) };
    settle(&connect(&settings).await.unwrap()).await;
    let other = written(directory.path(), "other.nk", &KeyPair::new_user().seed().unwrap());
    for settings in [
        ConnectionSettings { nkey_file: Some(other), ..settings.clone() },
        ConnectionSettings { nkey_file: None, ..settings.clone() },
    ] {
        let error = connect(&settings).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("; next: check user, password"), "{error}");
    }
}

#[tokio::test]
async fn users_passwords_and_tokens_are_sent() {
    let nats = Nats::start_with(false, -1, "authorization: { user: me, password: \"p@w\" }").await;
    let settings =
        ConnectionSettings { user: Some("me".into()), password: Some("p@w".into()), ..ConnectionSettings::to_servers(&nats.url) };
    settle(&connect(&settings).await.unwrap()).await;
    let url = nats.url.replace("nats://", "nats://me:p%40w@");
    settle(&connect(&ConnectionSettings::to_servers(&url)).await.unwrap()).await;
    let nats = Nats::start_with(false, -1, "authorization: { token: t0ken }").await;
    for settings in [
        ConnectionSettings { token: Some("t0ken".into()), ..ConnectionSettings::to_servers(&nats.url) },
        ConnectionSettings { user: Some("t0ken".into()), ..ConnectionSettings::to_servers(&nats.url) },
        ConnectionSettings::to_servers(&nats.url.replace("nats://", "nats://t0ken@")),
    ] {
        settle(&connect(&settings).await.unwrap()).await;
    }
}
