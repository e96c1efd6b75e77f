//! The real `nats` beside `nex`: both find the same server and user, by contexts that `nats` has written, by variables and by flags, and
//! functions answer what `nats` asks. Needs `nats` on the `PATH` or beside `nats-server`.

use nex_testkit::{NatsOptions, NatsServer, guest, skip};
use nkeys::KeyPair;

use crate::connect::{Certificates, as_creds, certificates, operator_mode, user};
use crate::ended::Ended;
use crate::world::{World, free_port};

type Variables<'a> = &'a [(&'a str, &'a str)];

const MISSING: &str = "no nats CLI: go install github.com/nats-io/natscli/nats@v0.5.0";

fn with(config: String) -> World {
    World::with_nats_like(NatsOptions { config, ..NatsOptions::default() })
}

/// Whether there is a `nats` to run.
fn has_nats(world: &World) -> bool {
    let path = world
        .command("nats", &[])
        .as_std()
        .get_envs()
        .find(|(name, _)| *name == "PATH")
        .and_then(|(_, path)| path)
        .unwrap()
        .to_owned();
    std::env::split_paths(&path).any(|directory| directory.join("nats").is_file())
}

fn nats(world: &World, args: &[&str]) -> Ended {
    // By `env`, so that the program is looked for in this world's PATH.
    world.end(world.command("/usr/bin/env", &[&["nats"], args].concat()))
}

/// Server and user that both come to; nothing where neither is let in.
fn chosen(world: &World, flags: &[&str]) -> (Option<String>, Option<String>) {
    let told = nats(world, &[&["account", "info"], flags].concat());
    let after = |label: &str| told.text().lines().find_map(|line| line.trim().strip_prefix(label).map(|it| it.trim().to_owned()));
    let of_nats = after("Connected URL:").map(|url| format!("{url} as {}", after("User:").unwrap_or_else(|| told.text())));
    let told = world.nex(&[&["whoami", "--json"], flags].concat());
    let of_nex = (told.code == 0).then(|| {
        let told = told.json();
        format!("{} as {}", told["servers"].as_str().unwrap(), told["user"].as_str().unwrap())
    });
    (of_nats, of_nex)
}

#[test]
fn both_choose_the_same_server_and_user() {
    let config = "authorization { users: [{ user: a, password: p }, { user: b, password: p }, { user: c, password: p }] }";
    let (mut world, other) = (with(config.into()), with(config.into()));
    if !has_nats(&world) {
        skip!("both_choose_the_same_server_and_user", MISSING);
    }
    let (one, two) = (world.url(), other.url());
    world.unset("NATS_URL");
    nats(&world, &["context", "save", "one", "--server", &one, "--user", "a", "--password", "p"]).expect(0);
    nats(&world, &["context", "save", "two", "--server", &two, "--user", "b", "--password", "p"]).expect(0);
    nats(&world, &["context", "select", "one"]).expect(0);
    let as_c = ["--user", "c", "--password", "p"];
    let in_two = ["-s", two.as_str()];
    let flags: [(&[&str], &str, &str); 8] = [
        (&[], &one, "a"),
        (&["--context", "two"], &two, "b"),
        (&in_two, &two, "a"),
        (&as_c, &one, "c"),
        (&["--password", "p"], &one, "a"),
        (&[&in_two[..], &as_c].concat(), &two, "c"),
        (&[&["--context", "one"], &in_two[..]].concat(), &two, "a"),
        (&[&["--context", "two"], &as_c[..]].concat(), &two, "c"),
    ];
    let is = |server: &str, user: &str| Some(format!("{server} as {user}"));
    for (flags, server, user) in flags {
        assert_eq!(chosen(&world, flags), (is(server, user), is(server, user)), "{flags:?}");
    }
    let c = [("NATS_USER", "c"), ("NATS_PASSWORD", "p")];
    let url = [("NATS_URL", two.as_str())];
    let variables: [(Variables<'_>, &[&str], &str, &str); 5] = [
        (&[("NATS_CONTEXT", "two")], &[], &two, "b"),
        (&url, &[], &two, "a"),
        (&c, &[], &one, "c"),
        (&[&url[..], &c].concat(), &[], &two, "c"),
        (&[("NATS_CONTEXT", "two")], &["--context", "one"], &one, "a"),
    ];
    for (variables, flags, server, user) in variables {
        variables.iter().for_each(|(name, value)| world.set(name, value));
        assert_eq!(chosen(&world, flags), (is(server, user), is(server, user)), "{variables:?} {flags:?}");
        variables.iter().for_each(|(name, _)| world.unset(name));
    }
    // What neither is let in with, `nex` says in full, and no password.
    let wrong = world.nex(&["ps", "--password", "wrong"]).expect(6);
    wrong.says(&[&format!("used: context one, which is selected, under --password; {one}; user a")]).says_not("wrong");
}

#[test]
fn mutual_tls_by_context_by_variables_and_by_flags() {
    let files = World::new();
    let Certificates { ca, server: (cert, key), client: (own_cert, own_key) } = certificates(&files, "ours");
    let mut world = with(format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true, timeout: 5 }}"));
    if !has_nats(&world) {
        skip!("mutual_tls_by_context_by_variables_and_by_flags", MISSING);
    }
    let flags = ["--tlscert", own_cert.as_str(), "--tlskey", &own_key, "--tlsca", &ca];
    let url = world.url();
    nats(&world, &[&["context", "save", "mutual", "--server", &url], &flags[..]].concat()).expect(0);
    nats(&world, &["context", "save", "bare", "--server", &url, "--tlsca", &ca]).expect(0);
    let by_context = ["--context", "mutual"];
    let node = world.node_up(&by_context);
    let script = world.file("echo.js", guest::ECHO_JS);
    world.nex(&[&["devrun", &script, "--trigger_subject", "fn.echo"], &by_context[..]].concat()).expect(0);
    let both_call = |world: &World, flags: &[&str]| {
        world.nex(&[&["call", "fn.echo", "hi"], flags].concat()).expect(0).says(&[r#""payload":"hi""#]);
        nats(world, &[&["req", "fn.echo", "hi"], flags].concat()).expect(0).says(&[r#""payload":"hi""#]);
    };
    both_call(&world, &by_context);
    both_call(&world, &flags);
    let wanted = ["asks for a client certificate", "next: give --tlscert and --tlskey, or cert and key in the NATS context"];
    world.nex(&["ps", "--context", "bare"]).expect(6).says(&wanted).says(&["used: context bare, named by --context"]);
    assert_ne!(nats(&world, &["account", "info", "--context", "bare"]).code, 0);
    for (name, value) in [("NATS_CERT", &own_cert), ("NATS_KEY", &own_key), ("NATS_CA", &ca)] {
        world.set(name, value);
    }
    both_call(&world, &[]);
    node.interrupt().expect(0);
}

#[test]
fn credentials_in_operator_mode_and_functions_as_micro_services() {
    let account = KeyPair::new_account();
    let world = with(operator_mode(&[&account]));
    if !has_nats(&world) {
        skip!("credentials_in_operator_mode_and_functions_as_micro_services", MISSING);
    }
    let (jwt, seed) = user(&account);
    let creds = world.file("me.creds", as_creds(&jwt, &seed));
    let url = world.url();
    nats(&world, &["context", "save", "me", "--server", &url, "--creds", &creds]).expect(0);
    nats(&world, &["context", "select", "me"]).expect(0);
    let node = world.node_up(&["--context", "me"]);
    let script = world.file("echo.js", guest::ECHO_JS);
    let suggested = world.nex(&["devrun", &script, "--trigger_subject", "fn.echo", "--creds", &creds]).expect(0);
    // What it suggests reaches the workload as it stands.
    let said = format!("{}{}", suggested.stderr, suggested.text());
    let line = said.lines().find(|line| line.contains(" call "));
    let words = shlex::split(&line.expect("it suggests a call").replace("<payload>", "hi")).unwrap();
    let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    world.nex(&words).expect(0).says(&[r#""payload":"hi""#]);
    for _ in 0..3 {
        nats(&world, &["req", "fn.echo", "hi", "--context", "me"]).expect(0).says(&[r#""payload":"hi""#]);
    }
    nats(&world, &["micro", "ls", "--context", "me"]).expect(0).says(&["nex", "default-echojs"]);
    nats(&world, &["micro", "stats", "default-echojs", "--context", "me"]).expect(0).says(&["fn-echo", "Average Time"]);
    node.interrupt().expect(0);
}

#[test]
fn a_leaf_with_a_domain_of_its_own_by_a_context_of_nats() {
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let server = |domain: &str, leafnodes: String| {
        let store = directory.path().join(domain);
        let config = format!("jetstream {{ store_dir: {store:?}, domain: {domain} }}\nleafnodes {{ {leafnodes} }}\n");
        NatsOptions { config, jetstream: false, ..NatsOptions::default() }
    };
    let world = World::with_nats_like(server("hub", format!("listen: \"127.0.0.1:{port}\"")));
    if !has_nats(&world) {
        skip!("a_leaf_with_a_domain_of_its_own_by_a_context_of_nats", MISSING);
    }
    let remote = format!("remotes: [{{ url: \"nats://127.0.0.1:{port}\" }}]");
    let leaf = world.block_on(NatsServer::start_with(server("leaf", remote)));
    // From the leaf, with the hub's store: what `--js-domain` of `nats` is in its contexts.
    nats(&world, &["context", "save", "edge", "--server", &leaf.url(), "--js-domain", "hub"]).expect(0);
    let _node = world.node_up(&[]);
    let at_edge = |args: &[&str]| world.nex(&[args, &["--context", "edge"]].concat());
    world.eventually("the leaf is connected", || at_edge(&["node", "ls", "--json"]).text().contains("node_id"));
    let script = world.file("echo.js", guest::ECHO_JS);
    at_edge(&["devrun", &script, "--trigger_subject", "fn.echo"]).expect(0);
    nats(&world, &["object", "ls", "--context", "edge"]).expect(0).says(&["NEXCLIFILES"]);
    world.eventually("it is called", || {
        nats(&world, &["req", "fn.echo", "hi", "--context", "edge"]).text().contains(r#""payload":"hi""#)
    });
    at_edge(&["call", "fn.echo", "hi"]).expect(0).says(&[r#""payload":"hi""#]);
}

#[test]
fn nats_needs_no_flag_beside_nex_up() {
    let mut world = World::new();
    if !has_nats(&world) {
        skip!("nats_needs_no_flag_beside_nex_up", MISSING);
    }
    let up = world.up(&[]);
    world.unset("NATS_URL");
    let script = world.file("echo.js", guest::ECHO_JS);
    world.nex(&["devrun", &script, "--trigger_subject", "fn.echo"]).expect(0);
    nats(&world, &["req", "fn.echo", "hi"]).expect(0).says(&[r#""payload":"hi""#]);
    nats(&world, &["object", "ls"]).expect(0).says(&["NEXCLIFILES"]);
    up.interrupt().expect(0);
}
