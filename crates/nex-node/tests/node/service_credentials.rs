//! Users of NATS that the node makes for services, on a server in operator mode: what they may do, when they are renewed, and keys that make
//! none.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use data_encoding::BASE64URL_NOPAD;
use nex_bus::connect::connect_with;
use nex_bus::denials::Denials;
use nex_bus::settings::ConnectionSettings;
use nex_node::{Node, NodeError};
use nex_protocol::claims::{new_jti, sign};
use nex_protocol::deploy::WorkloadType;
use nex_testkit::{NatsOptions, NatsServer};
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::crash::is_back;
use crate::world::World;

/// It tells where its credentials are and shows them to the test, which is the only one to read that directory.
const SERVICE: &[u8] =
    b"#!/bin/sh\necho \"inbox $NATS_INBOX_PREFIX of $NATS_URL\"\ntell() { base64 -w0 $NATS_CREDS; echo; }\ntrap tell HUP\ntell\n\
    sleep 1000 &\nwhile kill -0 $!; do wait $!; done\n";

/// An operator, and an account of the server with a signing key.
struct Operator {
    account: KeyPair,
    signing: KeyPair,
    config: String,
}

impl Operator {
    fn new() -> Self {
        let (operator, account, signing) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let limits = |storage: i32| {
            json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
                "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage,
            })
        };
        let token = |subject: &str, nats: Value| {
            let claims =
                json!({"jti": new_jti(), "iat": 0, "iss": operator.public_key(), "sub": subject, "name": "x", "nats": nats});
            sign(&claims, &operator).unwrap()
        };
        let operator_jwt = token(&operator.public_key(), json!({"type": "operator", "version": 2}));
        let account_of = |keys: &[String], storage: i32| {
            let permissions = json!({"pub": {}, "sub": {}});
            let limits = limits(storage);
            json!({"type": "account", "version": 2, "limits": limits, "signing_keys": keys, "default_permissions": permissions})
        };
        let id = account.public_key();
        let account_jwt = token(&id, account_of(&[signing.public_key()], -1));
        let system = KeyPair::new_account().public_key();
        let system_jwt = token(&system, account_of(&[], 0));
        let config = format!(
            "operator: {operator_jwt}\nsystem_account: {system}\nresolver: MEMORY\nresolver_preload: {{ {id}: {account_jwt}, {system}: {system_jwt} }}\n"
        );
        Self { account, signing, config }
    }

    async fn server(&self) -> NatsServer {
        NatsServer::start_with(NatsOptions { config: self.config.clone(), ..NatsOptions::default() }).await
    }

    /// A user of the account that may do all.
    fn connection(&self, server: &NatsServer) -> ConnectionSettings {
        let user = KeyPair::new_user();
        let nats = json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
        let claims = json!({
            "jti": new_jti(), "iat": 0, "iss": self.account.public_key(), "sub": user.public_key(), "name": "node", "nats": nats,
        });
        ConnectionSettings {
            user_jwt: Some(sign(&claims, &self.account).unwrap().into()),
            user_seed: Some(user.seed().unwrap().into()),
            ..ConnectionSettings::to_servers(&server.url())
        }
    }
}

/// A file with a seed that nobody else reads.
fn key_file(directory: &tempfile::TempDir, seed: &str) -> Value {
    let path = directory.path().join("account.nk");
    fs::write(&path, seed).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    json!(path)
}

impl World {
    /// The credentials that a workload has told, in their order.
    fn credentials(&self, id: &str) -> Vec<String> {
        let lines = self.logs().into_iter().filter(|(_, line)| line.id == id);
        let texts = lines.filter_map(|(_, line)| data_encoding::BASE64.decode(line.text.as_bytes()).ok());
        texts
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .filter(|text| text.starts_with("-----BEGIN NATS USER JWT-----"))
            .collect()
    }

    /// Logs in with credentials, and says which of these subjects the server denies: to publish (`>`) or to subscribe (`<`).
    async fn denied(&self, credentials: &str, id: &str, tried: &[&str]) -> BTreeSet<String> {
        let file = self.dir.path().join("tried.creds");
        fs::write(&file, credentials).unwrap();
        let settings = ConnectionSettings {
            credentials_file: Some(file),
            inbox_prefix: Some(format!("_INBOX_{id}")),
            ..ConnectionSettings::to_servers(&self.nats.url())
        };
        let denials = Denials::default();
        let client = connect_with(&settings, &denials).await.unwrap();
        let mut subscriptions = Vec::new();
        for subject in tried {
            match subject.split_at(1) {
                (">", subject) => client.publish(subject.to_owned(), "".into()).await.unwrap(),
                (_, subject) => subscriptions.push(client.subscribe(subject.to_owned()).await.unwrap()),
            }
        }
        denials.settle(&client).await;
        std::iter::from_fn(|| denials.take(|_| true)).map(|denial| denial.subject).collect()
    }
}

fn claims(credentials: &str) -> Value {
    let jwt = credentials.lines().nth(1).unwrap();
    serde_json::from_slice(&BASE64URL_NOPAD.decode(jwt.split('.').nth(1).unwrap().as_bytes()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_a_user_of_its_own_that_may_do_what_its_namespace_may_and_nothing_else() {
    let (operator, directory) = (Operator::new(), tempfile::tempdir().unwrap());
    let server = operator.server().await;
    let connection = operator.connection(&server);
    let seed = operator.signing.seed().unwrap();
    let config =
        json!({"service_credentials": {"key_file": key_file(&directory, &seed), "account": operator.account.public_key()}});
    let mut world = World::start_on(server, connection, config).await;
    let started = world.run("service", WorkloadType::Native, SERVICE).await;
    world.until("it has its credentials", |it| !it.credentials(&started.id).is_empty()).await;
    let told = format!("inbox _INBOX_{} of nats://", started.id);
    assert!(world.logs().iter().any(|(_, line)| line.text.starts_with(&told)), "{:?}", world.logs());

    let credentials = world.credentials(&started.id).remove(0);
    let inbox = format!("<_INBOX_{}.x", started.id);
    let tried = [
        ">default.a",
        "<default.>",
        "<nex.svc.default.service",
        &inbox,
        ">other.a",
        "<other.>",
        "<nex.svc.other.service",
        "<_INBOX.>",
        ">$JS.API.INFO",
        ">$NEX.PING",
        "<$NEX.logs.>",
    ];
    let denied = world.denied(&credentials, &started.id, &tried).await;
    let expected = ["other.a", "other.>", "nex.svc.other.service", "_INBOX.>", "$JS.API.INFO", "$NEX.PING", "$NEX.logs.>"];
    assert_eq!(denied, expected.map(str::to_owned).into());

    // What it is asked it answers, wherever the answer goes.
    let (told, other) = (claims(&credentials), world.run("other", WorkloadType::Native, SERVICE).await);
    assert_eq!(told["exp"].as_i64().unwrap() - told["iat"].as_i64().unwrap(), 86_400);
    assert_eq!(
        (&told["iss"], &told["nats"]["issuer_account"]),
        (&json!(operator.signing.public_key()), &json!(operator.account.public_key()))
    );
    world.until("another one has others", |it| !it.credentials(&other.id).is_empty()).await;
    assert_ne!(claims(&world.credentials(&other.id)[0])["sub"], told["sub"]);

    // Who brings credentials has those, and functions have none.
    let mut bringing =
        world.prepare("bringing", WorkloadType::Native, b"#!/bin/sh\necho \"$(cat $NATS_CREDS)\"\nexec sleep 1000\n").await;
    bringing.environment.insert(nex_protocol::seal::NATS_CREDS.into(), "its own".into());
    world.deploy(&bringing).await;
    world.until("it has its own", |it| it.has_logged("its own")).await;
    world.run("function", WorkloadType::V8, b"() => Object.keys(env)").await;
    assert_eq!(world.call("function", "").await, "[]");

    // The seed is nowhere in what the node keeps.
    let seeds = [seed, credentials.lines().find(|line| line.starts_with("SU")).unwrap().to_owned()];
    for seed in seeds {
        let found = files(&world.state())
            .into_iter()
            .find(|file| fs::read(file).unwrap_or_default().windows(seed.len()).any(|it| it == seed.as_bytes()));
        assert_eq!(found, None);
    }
    world.stop().await;
}

fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_renewed_while_the_service_runs_and_by_the_next_process_of_the_node() {
    let (operator, directory) = (Operator::new(), tempfile::tempdir().unwrap());
    let server = operator.server().await;
    let connection = operator.connection(&server);
    let key = key_file(&directory, &operator.account.seed().unwrap());
    let config =
        json!({"service_credentials": {"key_file": key, "lifetime_ms": 10_000, "publish": [], "subscribe": ["x.{name}"]}});
    let mut world = World::without_node(server, connection, config).await;
    let doomed = world.start_doomed().await;
    let mut service = world.prepare("service", WorkloadType::Native, SERVICE).await;
    service.policy = Some(serde_json::from_str(r#"{"on_secret_change":"signal:SIGHUP"}"#).unwrap());
    let started = world.start_on_doomed(&doomed, &service).await;
    world.until("it has its credentials", |it| !it.credentials(&started.id).is_empty()).await;
    let first = world.credentials(&started.id).remove(0);
    let denied = world.denied(&first, &started.id, &["<x.service", "<default.>", ">default.a"]).await;
    assert_eq!(denied, ["default.>", "default.a"].map(str::to_owned).into());

    // After half of their time, long before anybody is shut out.
    world.until("it has new ones", |it| it.credentials(&started.id).len() >= 2).await;
    let second = world.credentials(&started.id).remove(1);
    assert_ne!(claims(&first)["sub"], claims(&second)["sub"]);
    assert!(claims(&second)["iat"].as_i64() < claims(&first)["exp"].as_i64());
    assert!(world.denied(&second, &started.id, &["<x.service"]).await.is_empty());

    // A process that takes the service over does not know how long they are good, and renews them.
    doomed.crash();
    let before = world.credentials(&started.id).len();
    world.start_node().await;
    is_back(&world, &started).await;
    world.until("it has those of the next process", |it| it.credentials(&started.id).len() > before).await;
    assert_eq!(world.workload(&started.id).await.unwrap().restarts, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_users_the_server_refuses_or_does_not_bind_does_not_start_and_says_why() {
    let (operator, directory) = (Operator::new(), tempfile::tempdir().unwrap());
    let server = operator.server().await;
    let connection = operator.connection(&server);
    let signing = key_file(&directory, &operator.signing.seed().unwrap());
    let mut world = World::without_node(server, connection, json!({})).await;
    let stranger = KeyPair::new_account();
    let start = async |world: &mut World, service_credentials: Value| {
        world.set_config(json!({"service_credentials": service_credentials}));
        match Box::pin(Node::start(world.options())).await {
            Err(error @ NodeError::ServiceUsers(_)) => error.to_string(),
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("it starts"),
        }
    };
    let told = start(&mut world, json!({"key_file": signing})).await;
    assert!(
        told.contains("refuses users of account") && told.contains("name its account in service_credentials.account"),
        "{told}"
    );
    let told = start(&mut world, json!({"key_file": signing, "account": stranger.public_key()})).await;
    assert!(told.contains("has this signing key"), "{told}");
    let user = key_file(&directory, &KeyPair::new_user().seed().unwrap());
    let told = start(&mut world, json!({"key_file": user})).await;
    assert!(told.contains("the seed of a user"), "{told}");

    let plain = NatsServer::start().await;
    let connection = ConnectionSettings::to_servers(&plain.url());
    let mut world = World::without_node(plain, connection, json!({})).await;
    let account = key_file(&directory, &operator.account.seed().unwrap());
    let told = start(&mut world, json!({"key_file": account})).await;
    assert!(told.contains("does not keep the users"), "{told}");
}
