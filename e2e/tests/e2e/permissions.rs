//! The least permissions that `docs/security.md` shows: with all of them everything works, and without any one of them it is said which.

use std::path::Path;

use nex_testkit::NatsOptions;

use crate::running::Running;
use crate::world::World;

/// The configuration of nats-server in the document.
pub(crate) fn documented() -> String {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/security.md");
    let text = std::fs::read_to_string(document).unwrap();
    let block = text.split("<!-- nats-server -->\n```text\n").nth(1).expect("the document has the configuration");
    block.split("```").next().unwrap().to_owned()
}

/// One permission of one user: where it stands in the configuration.
struct Permission {
    user: String,
    line: usize,
    subject: String,
}

fn permissions(config: &str) -> Vec<Permission> {
    let (mut user, mut found) = (String::new(), Vec::new());
    for (line, text) in config.lines().enumerate() {
        let text = text.trim();
        if let Some(name) = text.strip_prefix("user: ") {
            name.clone_into(&mut user);
        }
        if let Some(subject) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            found.push(Permission { user: user.clone(), line, subject: subject.to_owned() });
        }
    }
    found
}

fn with(config: String) -> World {
    World::with_nats_like(NatsOptions { config, ..NatsOptions::default() })
}

pub(crate) fn flags(user: &str) -> Vec<String> {
    let secret = format!("{user}-secret");
    let inbox = format!("_INBOX_{}", user.to_uppercase());
    ["--user", user, "--password", &secret, "--inbox-prefix", &inbox].map(str::to_owned).to_vec()
}

pub(crate) fn as_user<'a>(flags: &'a [String], line: &[&'a str]) -> Vec<&'a str> {
    line.iter().copied().chain(flags.iter().map(String::as_str)).collect()
}

/// What is said of a story that cannot be told to its end.
pub(crate) type Told = Result<(), String>;

pub(crate) fn step(world: &World, user: &str, line: &[&str]) -> Told {
    let ended = world.nex(&as_user(&flags(user), line));
    if ended.code == 0 { Ok(()) } else { Err(format!("exit code {}: {}", ended.code, ended.stderr)) }
}

fn script(world: &World) -> String {
    // It says something, so that there is a log, and is large enough for flow control.
    world.file("greet.js", format!("(subject) => {{ console.log('called'); return 'hello' }}\n// {}", "x".repeat(4_000_000)))
}

fn start(world: &World) -> Result<Running, String> {
    let node = world.start(&as_user(&flags("node"), &["node", "up"]));
    node.says_either("is ready", "error: ").map(|()| node)
}

/// A deploy, a replacement, a call and a stop.
fn deploy_and_call(world: &World) -> Told {
    let script = script(world);
    let deploy = ["devrun", &script, "--trigger_subject", "fn.greet", "KEY=value"];
    step(world, "deployer", &deploy)?;
    step(world, "deployer", &deploy)?;
    step(world, "caller", &["call", "fn.greet", "you"])?;
    step(world, "deployer", &["stop", "greetjs"])
}

fn observe(world: &World) -> Told {
    step(world, "observer", &["node", "ls"])?;
    step(world, "observer", &["ps"])?;
    step(world, "observer", &["node", "info", &world.path("node-id").to_str().map(std::fs::read_to_string).unwrap().unwrap()])?;
    for kept in ["events", "logs"] {
        step(world, "observer", &[kept, "--since", "1h"])?;
    }
    for tail in ["events", "logs"] {
        let tail = world.start(&as_user(&flags("observer"), &[tail]));
        tail.says_either("atching", "error: ")?;
        // A permission that is missing is told after the tail has begun.
        step(world, "observer", &["ps"])?;
        let ended = tail.interrupt();
        if ended.code != 0 {
            return Err(format!("exit code {}: {}", ended.code, ended.stderr));
        }
    }
    Ok(())
}

fn node_id(world: &World) {
    let nodes = world.nex(&as_user(&flags("observer"), &["node", "ls", "--json"])).expect(0).json();
    world.file("node-id", nodes[0]["node_id"].as_str().unwrap());
}

#[test]
fn with_the_permissions_of_the_document_a_node_a_deploy_a_call_and_a_watch_work() {
    let world = with(documented());
    let node = start(&world).unwrap();
    node_id(&world);
    deploy_and_call(&world).unwrap();
    observe(&world).unwrap();
    let ended = node.interrupt().expect(0);
    assert!(!ended.stderr.contains("denied: "), "{}", ended.stderr);
}

#[test]
fn who_may_not_hear_a_workload_may_not_watch_it_and_nothing_is_started() {
    let world = with(documented());
    let _node = start(&world).unwrap();
    let script = script(&world);
    let told = step(&world, "deployer", &["devrun", &script, "--trigger_subject", "fn.greet", "--watch"]).unwrap_err();
    assert!(told.contains("exit code 3") && names(&told, "$NEX."), "{told}");
    let running = world.nex(&as_user(&flags("observer"), &["ps", "--json"])).expect(0).json();
    assert!(running.as_array().unwrap().is_empty(), "{running}");
}

#[test]
fn all_that_is_denied_is_told_at_once_with_the_user_and_as_one_object() {
    let users = "users: [{ user: nobody, password: p, permissions: { publish: { deny: \">\" }, subscribe: { deny: \">\" } } }]";
    let world = with(format!("authorization {{ {users} }}"));
    let as_nobody = |args: &[&str]| world.nex(&[args, &["--user", "nobody", "--password", "p"]].concat()).expect(3);
    let told = as_nobody(&["ps", "--json"]).stderr;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
    let error = told["error"].as_str().unwrap();
    assert!(error.contains("subscribe to \"_INBOX.") && error.contains("publish to \"$NEX.WPING.default\""), "{error}");
    assert_eq!((&told["exit_code"], &told["used"]["user"]), (&3.into(), &"user nobody".into()), "{told}");
    let used = format!("used: server named by the variable NATS_URL; {}; user nobody", world.url());
    for command in
        [&["ps"][..], &["node", "ls"], &["call", "fn.a", "x"], &["logs"], &["events"], &["stop", "a"], &["artifact", "ls"]]
    {
        as_nobody(command).says(&["denied: this user may not", "next: permit it", &used]).says_not("WARN");
    }
}

/// Whether a text says that something was denied on a subject that a permission stands for.
fn names(text: &str, permission: &str) -> bool {
    let literal = permission.split(['*', '>']).next().unwrap();
    text.lines().any(|line| line.contains("denied: this user may not") && line.contains(&format!("\"{literal}")))
}

/// Runs the story without each of a user's permissions; the node starts anew each time if they are its own.
fn without_each(user: &str) {
    let config = documented();
    // Flow control is for servers that want to slow a download down: whether one does, depends on how fast it is read.
    let needed = |it: &Permission| it.user == user && !it.subject.starts_with("$JS.FC.");
    for Permission { line, subject, .. } in permissions(&config).into_iter().filter(needed) {
        // An empty list would permit everything.
        let without =
            |(number, text): (usize, &str)| if number == line { "\"nothing\"\n".to_owned() } else { format!("{text}\n") };
        let world = with(config.lines().enumerate().map(without).collect());
        let told = match start(&world) {
            Err(said) => said,
            Ok(node) => {
                let told = if user == "observer" {
                    let id = std::fs::read_to_string(world.path("state/node/keys/node.nk")).unwrap();
                    world.file("node-id", nkeys::KeyPair::from_seed(id.trim()).unwrap().public_key());
                    observe(&world)
                } else {
                    deploy_and_call(&world)
                };
                let ended = node.interrupt();
                format!("{}\n{}", told.err().unwrap_or_default(), ended.stderr)
            }
        };
        assert!(names(&told, &subject), "{user} without {subject}: {told}");
        if user != "node" {
            assert!(told.contains("exit code 3"), "{user} without {subject}: {told}");
        }
    }
}

#[test]
fn with_what_the_document_says_besides_artifacts_are_removed_and_a_full_bucket_is_given_room() {
    let besides = ["CONSUMER.CREATE.OBJ_NEXCLIFILES", "STREAM.PURGE.OBJ_NEXCLIFILES", "STREAM.UPDATE.OBJ_NEXCLIFILES"];
    let lines =
        besides.map(|api| format!("\"$JS.API.{api}\"\n")).concat() + "\"$JS.FC.OBJ_NEXCLIFILES.>\"\n\"$NEX.WPING.default\"\n";
    let line = "\"$O.NEXCLIFILES.>\"\n";
    let world = with(documented().replacen(line, &(lines + line), 1));
    let node = start(&world).unwrap();
    let large = script(&world);
    step(&world, "deployer", &["devrun", &large, "--bucketmaxbytes", "1000000"]).unwrap_err();
    step(&world, "deployer", &["devrun", &large, "--trigger_subject", "fn.greet"]).unwrap();
    step(&world, "deployer", &["stop", "greetjs"]).unwrap();
    let listed = world.nex(&as_user(&flags("deployer"), &["artifact", "ls", "--json"])).expect(0).json();
    step(&world, "deployer", &["artifact", "rm", listed[0]["url"].as_str().unwrap()]).unwrap();
    node.interrupt().expect(0);
}

#[test]
fn without_any_of_a_nodes_permissions_its_subject_is_named() {
    without_each("node");
}

#[test]
fn without_any_of_a_deployers_permissions_its_subject_is_named() {
    without_each("deployer");
}

#[test]
fn without_any_of_a_callers_or_an_observers_permissions_its_subject_is_named() {
    without_each("caller");
    without_each("observer");
}

#[test]
fn a_node_that_may_not_respond_is_no_empty_list() {
    let line = "allow_responses: { max: 1000, expires: \"1m\" }";
    let config = documented();
    assert!(config.contains(line));
    let world = with(config.replace(line, ""));
    let node = world.start(&as_user(&flags("node"), &["node", "up"]));
    node.waits_for("is ready");
    let script = world.file("echo.js", "(subject, payload) => payload\n");
    let deployer = flags("deployer");
    let observer = flags("observer");
    for (user, command) in
        [(&deployer, &["devrun", &script][..]), (&observer, &["ps"]), (&observer, &["logs", "echojs", "--tail", "1"])]
    {
        let told = world.nex(&as_user(user, &[command, &["--timeout", "1s"]].concat()));
        told.expect(5).says(&["somebody listens on $NEX.PING, and no answer comes", "allow_responses"]);
    }
    node.waits_for("let it respond to what it is asked (allow_responses");
    node.interrupt();
}
