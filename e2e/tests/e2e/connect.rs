//! Ways to reach NATS: whatever the server asks for, the node, the command line and the functions have it.

use std::time::{SystemTime, UNIX_EPOCH};

use nex_protocol::claims::{new_jti, sign};
use nex_testkit::{NatsOptions, guest};
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair as TlsKey};
use serde_json::{Value, json};

use crate::world::World;

fn with(config: String) -> World {
    World::with_nats_like(NatsOptions { config, ..NatsOptions::default() })
}

/// A node as its environment says, and a function that is deployed to it and called.
fn works(world: &World, flags: &[&str]) {
    let node = world.node_up(flags);
    let script = world.file("echo.js", guest::ECHO_JS);
    world.nex(&[&["devrun", script.as_str()], flags].concat()).expect(0);
    world.nex(&[&["call", "echojs", "hi"], flags].concat()).expect(0).says(&[r#""payload":"hi""#]);
    node.interrupt().expect(0);
}

#[test]
fn users_with_passwords_and_with_nkeys() {
    let key = KeyPair::new_user();
    let config = "authorization { users: [{ user: me, password: s3cret }, { nkey: KEY }] }";
    let mut world = with(config.replace("KEY", &key.public_key()));
    let refused = ["refused the connection", "next: check user, password"];
    world.nex(&["node", "ls"]).expect(6).says(&refused);
    world.nex(&["node", "ls", "--user", "me", "--password", "wrong"]).expect(6).says(&refused).says_not("wrong");
    world.nex(&["node", "up", "--user", "me", "--password", "wrong"]).expect(6).says(&refused);
    world.nex(&["up", "--user", "me", "--password", "wrong"]).expect(6).says(&refused);

    let seed = world.file("user.nk", key.seed().unwrap());
    works(&world, &["--nkey", &seed]);
    let other = world.file("other.nk", KeyPair::new_user().seed().unwrap());
    world.nex(&["node", "ls", "--nkey", &other]).expect(6).says(&refused);
    world.nex(&["node", "ls", "--nkey", "/no/such/file"]).expect(6).says(&["/no/such/file", "next: check its path"]);

    let url = world.url().replace("nats://", "nats://me:s3cret@");
    let node = world.node_up(&["-s", &url]);
    assert!(!node.err().contains("s3cret"), "{}", node.err());
    world.set("NATS_USER", "me");
    world.set("NATS_PASSWORD", "s3cret");
    assert_eq!(world.nodes().len(), 1);
    node.interrupt().expect(0);
    works(&world, &[]);
}

#[test]
fn a_token() {
    let mut world = with("authorization { token: t0ken }".to_owned());
    world.nex(&["node", "ls"]).expect(6).says(&["refused the connection"]);
    world.nex(&["node", "ls", "--token", "t0ken", "--timeout", "200ms"]).expect(0).says(&["No nodes discovered"]);
    // As in 0.2.7, a user without a password is a token.
    world.nex(&["node", "ls", "--user", "t0ken", "--timeout", "200ms"]).expect(0);
    world.set("NATS_TOKEN", "t0ken");
    works(&world, &[]);
}

#[test]
fn contexts_of_the_nats_cli() {
    let mut world = with("authorization { users: [{ user: me, password: s3cret }] }".to_owned());
    let context = json!({"description": "mine", "url": world.url(), "user": "me", "password": "s3cret"}).to_string();
    let file = world.file("home/config/nats/context/mine.json", &context);
    world.unset("NATS_URL");
    works(&world, &["--context", "mine"]);
    world.nex(&["ps", "--context", "mine", "-s", "nats://127.0.0.1:1"]).expect(6).says(&["127.0.0.1:1"]);
    world.nex(&["ps", "--context", &file, "--timeout", "200ms"]).expect(0);
    world.nex(&["ps", "--context", "yours"]).expect(2).says(&["unknown context provided: 'yours'", "mine", "next: "]);
    // The one that is selected is used when nothing else is said.
    world.file("home/config/nats/context.txt", "mine");
    world.nex(&["ps", "--timeout", "200ms"]).expect(0);
    world.nex(&["ps", "-s", "nats://127.0.0.1:1"]).expect(6).says(&["no NATS server at nats://127.0.0.1:1"]);
    world.set("NATS_CONTEXT", "yours");
    world.nex(&["ps"]).expect(2).says(&["unknown context provided: 'yours'"]);
}

fn token(subject: &str, nats: &Value, signer: &KeyPair) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"jti": new_jti(), "iat": now, "iss": signer.public_key(), "sub": subject, "name": "e2e", "nats": nats});
    sign(&claims, signer).unwrap()
}

/// A user of an account: its JWT and seed.
pub(crate) fn user(account: &KeyPair) -> (String, String) {
    let user = KeyPair::new_user();
    let nats = json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
    (token(&user.public_key(), &nats, account), user.seed().unwrap())
}

pub(crate) fn as_creds(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

/// Configuration of a server in operator mode that knows these accounts.
pub(crate) fn operator_mode(accounts: &[&KeyPair]) -> String {
    let (operator, system) = (KeyPair::new_operator(), KeyPair::new_account());
    let all = accounts.iter().map(|account| (*account, -1)).chain([(&system, 0)]);
    let preload = all.map(|(it, storage)| {
        let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage});
        let permissions = json!({"pub": {}, "sub": {}});
        let claims = json!({"type": "account", "version": 2, "limits": limits, "default_permissions": permissions});
        format!("{}: {}", it.public_key(), token(&it.public_key(), &claims, &operator))
    });
    let preload = preload.collect::<Vec<_>>().join("\n");
    let operator = token(&operator.public_key(), &json!({"type": "operator", "version": 2}), &operator);
    let system = system.public_key();
    format!("operator: {operator}\nresolver: MEMORY\nsystem_account: {system}\nresolver_preload: {{ {preload} }}\n")
}

#[test]
fn credentials_of_the_node_of_the_user_and_of_a_workload() {
    let (account, other) = (KeyPair::new_account(), KeyPair::new_account());
    let world = with(operator_mode(&[&account, &other]));
    world.nex(&["ps"]).expect(6).says(&["refused the connection"]);
    let (jwt, seed) = user(&account);
    let creds = world.file("me.creds", as_creds(&jwt, &seed));
    works(&world, &["--creds", &creds]);

    // Users that the node makes for services: tried by preflight and by the start, by the same code.
    let key = world.file("account.nk", account.seed().unwrap());
    let config = json!({"no_sandbox": true, "service_credentials": {"key_file": key}}).to_string();
    let config = world.file("node.json", config);
    let preflight = ["node", "preflight", "--config", &config, "--creds", &creds];
    world.nex(&preflight).expect(1).says(&["others than its owner", "next: chmod 600"]);
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    world.nex(&preflight).expect(0).says(&["kept to what they may do [users of NATS for services]"]).says_not("nex-fence");
    for (seed, expected) in [
        (KeyPair::new_account().seed().unwrap(), "refuses users of account"),
        (KeyPair::new_operator().seed().unwrap(), "the seed of an operator"),
    ] {
        world.file("account.nk", &seed);
        world.nex(&preflight).expect(1).says(&[expected, "next: "]).says_not(&seed);
        world.nex(&["node", "up", "--config", &config, "--creds", &creds]).expect(1).says(&[expected, "next: "]).says_not(&seed);
    }

    // A workload that counts in another account, with credentials that only the node can read.
    let node = world.node_up(&["--creds", &creds]);
    let (jwt, seed) = user(&other);
    let (at_jwt, at_seed) = (format!("@{}", world.file("other.jwt", &jwt)), format!("@{}", world.file("other.seed", &seed)));
    let script = world.file("count.js", guest::KV_COUNTER_JS);
    let flags = ["--creds", &creds, "--hs_url", &world.url(), "--hs_jwt", &at_jwt, "--hs_seed", &at_seed];
    world.nex(&[&["devrun", script.as_str()][..], &flags].concat()).expect(0).says_not(&seed);
    let theirs = world.file("theirs.creds", as_creds(&jwt, &seed));
    // Its triggers are where its host services are.
    world.nex(&["call", "countjs", "", "--creds", &theirs]).expect(0).says(&[r#"{"count":1}"#]);
    world.nex(&["call", "countjs", "", "--creds", &creds, "--timeout", "500ms"]).expect(1).says(&["nothing listens"]);
    node.interrupt().expect(0).says_not(&seed);
}

pub(crate) struct Certificates {
    pub(crate) ca: String,
    pub(crate) server: (String, String),
    pub(crate) client: (String, String),
}

/// An authority in this directory of the world, and what it has signed.
pub(crate) fn certificates(world: &World, directory: &str) -> Certificates {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, TlsKey::generate().unwrap()).unwrap();
    let signed = |file: &str, names: &[&str], purpose| {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = TlsKey::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let file = format!("{directory}/{file}");
        (world.file(&format!("{file}.crt"), certificate.pem()), world.file(&format!("{file}.key"), key.serialize_pem()))
    };
    Certificates {
        ca: world.file(&format!("{directory}/ca.crt"), authority.pem()),
        server: signed("server", &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth),
        client: signed("client", &["me"], ExtendedKeyUsagePurpose::ClientAuth),
    }
}

#[test]
fn tls_with_and_without_a_certificate_of_ones_own() {
    let files = World::new();
    let Certificates { ca, server: (cert, key), client: (own_cert, own_key) } = certificates(&files, "ours");
    let config = format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, timeout: 5 }}");
    let world = with(config.clone());
    works(&world, &["--tlsca", &ca]);
    world.nex(&["ps"]).expect(6).says(&["no TLS connection to", "next: check certificate, key and root certificates"]);
    world.nex(&["ps", "--tlsca", "/no/such/ca"]).expect(6).says(&["/no/such/ca"]);

    let world = with(config.replace("timeout", &format!("verify: true, ca_file: {ca:?}, timeout")));
    works(&world, &["--tlsca", &ca, "--tlscert", &own_cert, "--tlskey", &own_key]);
    let wanted = ["asks for a client certificate", "next: give --tlscert and --tlskey, or cert and key in the NATS context"];
    let Certificates { client: (their_cert, their_key), .. } = certificates(&files, "theirs");
    let of_another = ["--tlsca", &ca, "--tlscert", &their_cert, "--tlskey", &their_key];
    let refused = ["refuses the client certificate", their_cert.as_str(), "next: give one that its authority has signed"];
    for command in [&["ps"][..], &["node", "up"], &["node", "preflight"]] {
        let code = if command == ["node", "preflight"] { 1 } else { 6 };
        world.nex(&[command, &["--tlsca", &ca]].concat()).expect(code).says(&wanted);
        world.nex(&[command, &of_another].concat()).expect(code).says(&refused);
    }
    world.nex(&["ps", "--tlsca", &ca, "--tlscert", &own_cert]).expect(6).says(&["comes without its key"]);
    let context = json!({"url": world.url(), "ca": ca, "cert": own_cert, "key": own_key});
    world.file("home/config/nats/context/mutual.json", context.to_string());
    works(&world, &["--context", "mutual"]);
    world.file("home/config/nats/context/bare.json", json!({"url": world.url(), "ca": ca}).to_string());
    world.nex(&["ps", "--context", "bare"]).expect(6).says(&wanted);

    let world = with(config.replace("timeout", "handshake_first: auto, timeout"));
    world.nex(&["node", "ls", "--tlsca", &ca, "--tlsfirst", "--timeout", "200ms"]).expect(0).says(&["No nodes discovered"]);
}

#[test]
fn of_several_servers_one_that_is_there_is_enough_and_none_is_told_with_all_of_them() {
    let world = World::with_nats();
    let _node = world.node_up(&[]);
    let gone = "nats://127.0.0.1:1";
    let script = world.file("echo.js", nex_testkit::guest::ECHO_JS);
    for servers in [format!("{gone},{}", world.url()), format!("{}, {gone}", world.url())] {
        world.nex(&["devrun", &script, "-s", &servers]).expect(0);
        world.nex(&["call", "echojs", "hi", "-s", &servers]).expect(0).says(&["hi"]);
    }
    world.nex(&["ps", "-s", "nats://127.0.0.1:1,nats://127.0.0.1:2"]).expect(6).says(&[gone, "nats://127.0.0.1:2", "next: "]);
}
