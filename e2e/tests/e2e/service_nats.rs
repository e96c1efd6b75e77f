//! What a service finds of NATS where the node connects under TLS and with credentials.

use std::os::unix::fs::PermissionsExt as _;

use nex_testkit::{NatsOptions, dist_binary, skip};
use nix::unistd::geteuid;
use nkeys::KeyPair;
use serde_json::json;

use crate::connect::{Certificates, as_creds, certificates, operator_mode, user};
use crate::world::World;

#[test]
fn a_service_with_credentials_reaches_nats_under_tls_by_what_it_is_told() {
    if !geteuid().is_root() {
        skip!("a_service_with_credentials_reaches_nats_under_tls", "not root, so services share the host's network");
    }
    let (files, account) = (World::new(), KeyPair::new_account());
    let Certificates { ca, server: (cert, key), .. } = certificates(&files, "ours");
    let tls = format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, timeout: 5 }}\n");
    let world = World::with_nats_like(NatsOptions { config: tls + &operator_mode(&[&account]), ..NatsOptions::default() });
    let creds = |name: &str| {
        let (jwt, seed) = user(&account);
        world.file(name, as_creds(&jwt, &seed))
    };
    let own = creds("node.creds");
    let login = ["--creds", own.as_str(), "--tlsca", ca.as_str()];
    let run = |name: &str, more: &[&str]| {
        let service = dist_binary("echo-service");
        world.nex(&[&["devrun", service.to_str().unwrap(), "--name", name][..], more, &login].concat())
    };
    let answers = || {
        world.eventually("it answers", || {
            world.nex(&[&["call", "svc.echo", "hi", "--timeout", "1s"], &login[..]].concat()).code == 0
        });
    };

    // The node has credentials and makes none: who brings some is told where they are good, and nobody else.
    let node = world.node_up(&login);
    run("without", &[]).expect(1).says(&["NATS_URL is not set"]);
    run("bringing", &["--nats-creds", &creds("service.creds")]).expect(0);
    answers();
    node.interrupt().expect(0);

    // It makes some.
    let seed = world.file("account.nk", account.seed().unwrap());
    std::fs::set_permissions(&seed, std::fs::Permissions::from_mode(0o600)).unwrap();
    let made = json!({"service_credentials": {"key_file": seed, "publish": [], "subscribe": ["svc.echo", "$SRV.>"]}});
    let config = world.file("node.json", made.to_string());
    let node = world.node_up(&[&login[..], &["--config", &config]].concat());
    run("made", &[]).expect(0);
    answers();
    node.interrupt().expect(0);
}
