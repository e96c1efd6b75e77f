//! Somebody on this machine, a jailed workload for one, who finds the NATS server of `nex up` and has no credentials.

use std::time::Duration;

use async_nats::Request;
use futures::StreamExt as _;
use nex_testkit::guest;

use crate::world::World;

fn with_function() -> (World, crate::running::Running) {
    let world = World::new();
    let up = world.up(&[]);
    let script = world.file("greet.mjs", guest::GREET_MJS);
    world.nex(&["devrun", &script, "--trigger_subject", "fn.greet"]).expect(0);
    (world, up)
}

#[test]
fn without_credentials_nobody_reaches_the_node_or_a_bucket_of_nex_up() {
    let (world, up) = with_function();
    let (node, nobody) = (world.node_id(), world.stranger());
    let silent = |subject: String| {
        let request = Request::new().payload("".into()).timeout(Some(Duration::from_millis(300)));
        let answer = world.block_on(nobody.send_request(subject.clone(), request));
        assert!(answer.is_err(), "{subject} was answered: {answer:?}");
    };
    for verb in ["PING", "AUCTION", "WPING.default", &format!("INFO.default.{node}"), &format!("DEPLOY.default.{node}")] {
        silent(format!("$NEX.{verb}"));
    }
    silent(format!("$NEX.LAMEDUCK.{node}"));
    for api in ["INFO", "STREAM.NAMES", "STREAM.INFO.OBJ_NEXCLIFILES", "STREAM.PURGE.OBJ_NEXCLIFILES"] {
        silent(format!("$JS.API.{api}"));
    }
    assert_eq!(world.nodes()[0]["tags"].get("nex.lameduck"), None);

    // A function is for everybody.
    let answer = world.block_on(nobody.request("fn.greet", "you".into())).unwrap();
    assert_eq!(answer.payload, "\"Hello, you!\"");
    up.interrupt().expect(0);
}

#[test]
fn without_credentials_nobody_overhears_nodes_or_answers_to_others() {
    let (world, up) = with_function();
    let nobody = world.stranger();
    let mut heard = world.block_on(async {
        let subjects = [">", "$NEX.>", "_INBOX_NEX.>", "$O.>", "$JS.>"];
        let ears = futures::future::join_all(subjects.map(|subject| nobody.subscribe(subject))).await;
        nobody.flush().await.unwrap();
        futures::stream::select_all(ears.into_iter().map(Result::unwrap))
    });
    let script = world.file("other.js", guest::ECHO_JS);
    world.nex(&["devrun", &script, "KEY=value"]).expect(0);
    world.nex(&["call", "otherjs", "mine"]).expect(0);
    world.nex(&["stop", "otherjs"]).expect(0);
    // What was said before it has come when this has.
    world.block_on(nobody.publish("over", "".into())).unwrap();
    loop {
        let message = world.block_on(heard.next()).unwrap();
        if message.subject.as_str() == "over" {
            break;
        }
        // The function's own agent has no credentials either: what it tells itself, all of those hear.
        let is_fence = message.subject.ends_with(".nex-fence") && message.payload.is_empty();
        assert!(is_fence || message.subject.as_str() == "otherjs", "overheard: {}", message.subject);
    }
    up.interrupt().expect(0);
}

#[test]
fn who_started_it_needs_no_flag_and_neither_does_the_nats_cli() {
    let (mut world, up) = with_function();
    let selected = std::fs::read_to_string(world.path("home/config/nats/context.txt")).unwrap();
    assert_eq!(selected, format!("nex-{}", world.port()));
    world.unset("NATS_URL");
    assert_eq!(world.ps().len(), 1, "by the selected context");
    let url = format!("nats://127.0.0.1:{}", world.port());
    world.nex(&["ps", "-s", &url]).expect(0).says(&["greetmjs"]);
    world.set("NATS_URL", &url);
    assert_eq!(world.ps().len(), 1, "by the server");
    let context: serde_json::Value = serde_json::from_slice(&std::fs::read(world.context_file()).unwrap()).unwrap();
    assert_eq!(context["url"], url);
    for private in [world.context_file(), context["nkey"].as_str().unwrap().into()] {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(private).unwrap().permissions().mode() & 0o077, 0);
    }
    up.interrupt().expect(0);
    let again = world.up(&[]);
    assert_eq!(world.nodes().len(), 1, "the next one has the same key");
    again.interrupt().expect(0);
}
