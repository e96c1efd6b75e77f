//! Functions, called on both ways: the agent's own subscription, and the node's relay where the node's credentials must not leave it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_nats::Message;
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use nex_bus::settings::ConnectionSettings;
use nex_node::artifacts::Artifacts;
use nex_protocol::deploy::{ConnectionDetails, WorkloadType};
use nex_protocol::digest::Digest;
use nex_testkit::{NatsOptions, NatsServer, guest, machines};
use serde_json::{Value, json};

use crate::world::{World, kill9};

/// Does what its payload says.
const MOODY: &str = r#"
const moods = {
  throw: () => { throw new Error("it failed on purpose"); },
  inject: () => { throw "first\r\nNats-Service-Error-Code: 200\r\n\r\nsecond"; },
  long: () => { throw new Error("x".repeat(2000000)); },
  loop: () => { console.log("looping"); for (;;) {} },
  big: () => "x".repeat(3000000),
  medium: () => "x".repeat(100000),
  nothing: () => undefined,
};
(subject, payload) => {
  const text = String.fromCharCode(...payload);
  return moods[text] ? moods[text]() : { subject, text };
};
"#;

/// A node that has credentials of its own: it relays. Its server takes small messages only.
pub(crate) async fn relaying(config: Value) -> World {
    let users = "authorization { user: me, password: secret }\nmax_payload: 65536\n";
    let nats = NatsServer::start_with(NatsOptions { config: users.into(), ..NatsOptions::default() }).await;
    let connection = ConnectionSettings {
        user: Some("me".into()),
        password: Some("secret".into()),
        ..ConnectionSettings::to_servers(&nats.url())
    };
    World::start_on(nats, connection, config).await
}

/// A node without credentials, on a server that takes small messages only: its agents subscribe by themselves.
async fn direct() -> World {
    let nats = NatsServer::start_with(NatsOptions { config: "max_payload: 65536\n".into(), ..NatsOptions::default() }).await;
    let connection = ConnectionSettings::to_servers(&nats.url());
    World::start_on(nats, connection, json!({})).await
}

fn error_of(message: &Message) -> (u16, String) {
    let headers = message.headers.as_ref().unwrap_or_else(|| panic!("no headers: {message:?}"));
    let code = headers.get(NATS_SERVICE_ERROR_CODE).unwrap().as_str().parse().unwrap();
    (code, headers.get(NATS_SERVICE_ERROR).unwrap().as_str().to_owned())
}

/// Calls at once; exactly one answer to each.
async fn call_all(world: &World, calls: &[(&str, &str)]) -> Vec<Message> {
    let questions: Vec<_> = calls.iter().map(|(subject, text)| ((*subject).to_owned(), text.as_bytes().to_vec())).collect();
    let answers = world.ask_all(&questions).await.into_iter().zip(calls);
    answers
        .map(|(mut answers, call)| {
            assert_eq!(answers.len(), 1, "answers to {call:?}: {answers:?}");
            answers.remove(0)
        })
        .collect()
}

/// A payload over the limit of the function that is asked.
const TOO_LONG: &str = match std::str::from_utf8(&[b'x'; 1_001]) {
    Ok(text) => text,
    Err(_not) => "",
};

async fn failures_are_answered_at_once_and_told(mut world: World) {
    let mut moody = world.prepare("moody", WorkloadType::V8, MOODY.as_bytes()).await;
    // A large reply takes an emulated processor a while.
    let limit_ms = machines::timeout(Duration::from_secs(1)).as_millis();
    let too_long = format!("function ran longer than its limit of {limit_ms} ms and was stopped (call_timeout_ms)");
    moody.limits.call_timeout_ms = Some(u64::try_from(limit_ms).unwrap());
    moody.limits.payload_bytes = Some(1_000);
    let started = world.deploy(&moody).await;
    let began = Instant::now();
    for (mood, code, text) in [
        ("throw", 500, "it failed on purpose"),
        ("inject", 500, "first  Nats-Service-Error-Code: 200    second"),
        ("long", 500, "xxxx"),
        ("loop", 504, too_long.as_str()),
        (TOO_LONG, 413, "payload of 1001 bytes is over the limit of 1000 bytes (payload_bytes)"),
        ("big", 500, "over the limit of"),
        ("medium", 500, "over the limit of"),
    ] {
        let answers = call_all(&world, &[("moody", mood), ("moody", "well")]).await;
        let (told, message) = error_of(&answers[0]);
        assert!(told == code && message.contains(text), "{mood}: {told} {message:.200}");
        assert!(!answers[0].payload.is_empty(), "the body has the text as well");
        assert!(answers[1].payload.starts_with(br#"{"subject":"moody","text":"well"}"#), "the next call works: {answers:?}");
    }
    assert!(began.elapsed() < machines::timeout(Duration::from_secs(15)), "answered at once: {:?}", began.elapsed());
    assert_eq!(world.call("moody", "nothing").await, "");
    world.until("failures are told", |it| it.events("function_exec_failed").len() >= 6).await;
    let event = &world.events("function_exec_failed")[0];
    assert_eq!((&event.data["workload_name"], &event.data["trigger_subject"]), (&json!("moody"), &json!("moody")));
    assert!(event.data["error"].as_str().unwrap().contains("it failed on purpose"), "{event:?}");
    for text in ["it failed on purpose", "longer than its limit", "over the limit of"] {
        world.until(text, |it| it.has_logged(text)).await;
    }
    // Said before the first call. A jailed agent is told by the kernel what a call wrote, if anybody is.
    assert!(!world.has_logged("written pages are dropped") || !kernel_tells_written_pages(), "{:?}", world.logs());
    for (subject, line) in world.logs().iter().filter(|(_, line)| line.text.contains("on purpose")) {
        assert_eq!(line.level.as_str(), "ERROR");
        assert!(subject.ends_with(&format!(".moody.{}", started.id)), "{subject}");
    }
    world.until("successes are told", |it| succeeded(it, "moody") == 8).await;
    world.stop().await;
}

/// Since Linux 6.7; in machines, what their kernel is built with decides.
fn kernel_tells_written_pages() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    machines::sandbox() == "process" && (numbers.next(), numbers.next()) >= (Some(6), Some(7))
}

/// How many successful calls the events tell of.
fn succeeded(world: &World, trigger: &str) -> u64 {
    let events = world.events("function_exec_succeeded").into_iter().filter(|event| event.data["trigger_subject"] == trigger);
    events.map(|event| event.data.get("executions").map_or(1, |count| count.as_u64().unwrap())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_answered_at_once_where_the_agent_is_called_directly() {
    failures_are_answered_at_once_and_told(direct().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_answered_at_once_where_the_node_relays() {
    failures_are_answered_at_once_and_told(relaying(json!({})).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wasm_functions_fail_as_loudly() {
    let mut world = World::start(json!({})).await;
    for (name, text, code, words) in [
        ("failing", guest::FAILING_WAT, 500, "3"),
        ("looping", guest::LOOPING_WAT, 504, "longer than its limit of "),
        ("greedy", guest::GREEDY_WAT, 500, ""),
        ("echo", guest::ECHO_WAT, 200, ""),
    ] {
        let mut deployment = world.prepare(name, WorkloadType::Wasm, &guest::assemble(text)).await;
        // What ends by itself has the time that a busy machine takes for it.
        let limit = if code == 504 { Duration::from_millis(300) } else { Duration::from_secs(10) };
        deployment.limits.call_timeout_ms = u64::try_from(machines::timeout(limit).as_millis()).ok();
        world.deploy(&deployment).await;
        for answer in call_all(&world, &[(name, "one"), (name, "two")]).await {
            if code == 200 {
                assert!(answer.headers.is_none() && [&b"one"[..], b"two"].contains(&answer.payload.as_ref()), "{answer:?}");
                continue;
            }
            let (told, message) = error_of(&answer);
            assert!(told == code && message.contains(words), "{name}: {told} {message}");
        }
    }
    world.until("its words are logged", |it| it.has_logged("it failed on purpose")).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_a_function_share_its_calls() {
    let mut world = World::start(json!({"machine_pool_size": 3})).await;
    let whoami = b"(subject, payload) => env.COPY + subject";
    let mut copy = world.prepare("whoami", WorkloadType::V8, whoami).await;
    copy.triggers = vec!["who.*.am.>".into(), "else".into()];
    for number in 1..=3 {
        copy.environment.insert("COPY".into(), number.to_string());
        world.deploy(&copy).await;
    }
    let answers = call_all(&world, &[("who.x.am.i.not", ""); 60]).await;
    let answered: BTreeSet<_> = answers.iter().map(|answer| String::from_utf8(answer.payload.to_vec()).unwrap()).collect();
    let expected = ["1", "2", "3"].map(|copy| format!("\"{copy}who.x.am.i.not\""));
    assert_eq!(answered, BTreeSet::from(expected), "each has a share, and sees the subject it was called on");
    assert!(world.call("else", "").await.ends_with("else\""));
    world.until("the calls are told under the subscribed pattern", |it| succeeded(it, "who.*.am.>") == 60).await;
    assert_eq!(succeeded(&world, "who.x.am.i.not"), 0);
    let machines = world.client.info(&world.target().node).await.unwrap().machines;
    assert!(machines.iter().any(|machine| machine.workload.runtime != "0ns"), "{machines:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_serves_many_calls_at_once_and_sees_wildcards() {
    let mut world = relaying(json!({})).await;
    let mut moody = world.prepare("moody", WorkloadType::V8, MOODY.as_bytes()).await;
    moody.triggers = vec!["mood.*".into()];
    moody.limits.concurrency = Some(4);
    let started = world.deploy(&moody).await;
    let answers = call_all(&world, &[("mood.swing", "up"); 200]).await;
    assert!(answers.iter().all(|answer| answer.payload.as_ref() == br#"{"subject":"mood.swing","text":"up"}"#), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.headers.is_none()), "nothing of the inside is told");
    world.until("the calls are told", |it| succeeded(it, "mood.*") == 200).await;
    world.run("echo", WorkloadType::Wasm, &guest::assemble(guest::ECHO_WAT)).await;
    assert_eq!(world.call("echo", "over the relay").await, "over the relay");
    world.stop_workload(&started).await;
    let gone = world.client.call("mood.swing", "".into(), Duration::from_secs(2)).await;
    assert!(matches!(gone, Err(nex_client::call::CallError::NobodyListens(_))), "{gone:?}");
    world.stop().await;
}

/// Neither a jail nor a machine has files of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_knows_languages_and_time_zones_wherever_it_runs() {
    let mut world = World::start(json!({})).await;
    let options = "{ dateStyle: 'long', timeStyle: 'long', timeZone: 'Europe/Berlin' }";
    let source = format!("() => new Date(0).toLocaleString('de', {options})");
    world.run("dates", WorkloadType::V8, source.as_bytes()).await;
    assert_eq!(world.call("dates", "").await, r#""1. Januar 1970 um 01:00:00 MEZ""#);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_compiled_for_later_starts_by_a_process_that_runs_no_guest() {
    if machines::in_machines() {
        let test = "a_module_is_compiled_for_later_starts_by_a_process_that_runs_no_guest";
        nex_testkit::skip!(test, "a machine compiles for itself");
    }
    let mut world = World::start(json!({})).await;
    let module = guest::assemble(guest::ECHO_WAT);
    let (artifacts, digest) = (Artifacts::new(world.state().join("artifacts")), Digest::of(&module));
    world.run("echo", WorkloadType::Wasm, &module).await;
    world.until("it is compiled", |_world| artifacts.compiled(&digest).is_some()).await;
    let compiled = artifacts.compiled(&digest).unwrap();
    assert_eq!(Digest::of(&std::fs::read(&compiled.path).unwrap()), compiled.digest);
    world.until("the compiler is gone", |world| world.agents().len() == 2).await;
    world.run("again", WorkloadType::Wasm, &module).await;
    assert_eq!(world.call("again", "compiled").await, "compiled");
    // Whoever changes the code without the node's doing changes nothing.
    std::fs::remove_file(&compiled.path).unwrap();
    std::fs::write(&compiled.path, b"poison").unwrap();
    world.run("once-more", WorkloadType::Wasm, &module).await;
    assert_eq!(world.call("once-more", "unharmed").await, "unharmed");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_module_is_compiled_before_an_agent_is_asked_to_run_it() {
    if machines::in_machines() {
        let test = "a_large_module_is_compiled_before_an_agent_is_asked_to_run_it";
        nex_testkit::skip!(test, "a machine compiles for itself");
    }
    let mut world = World::start(json!({})).await;
    // A section that nobody reads: the name "x" and two megabytes.
    let large = |mut module: Vec<u8>| {
        module.extend([0, 0x82, 0x80, 0x80, 0x01, 1, b'x']);
        module.extend(vec![0; 2 << 20]);
        module
    };
    let module = large(guest::assemble(guest::ECHO_WAT));
    let (artifacts, digest) = (Artifacts::new(world.state().join("artifacts")), Digest::of(&module));
    world.run("echo", WorkloadType::Wasm, &module).await;
    assert!(artifacts.compiled(&digest).is_some(), "its agent has compiled it");
    assert_eq!(world.call("echo", "large").await, "large");
    let damaged = world.prepare("damaged", WorkloadType::Wasm, &large(b"\0asm\x01\0\0\0\x0b".to_vec())).await;
    let failure = world.refused(&damaged).await;
    assert!(failure.message.contains("failed to compile module"), "{failure}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_called_on_the_connection_its_deployer_brings() {
    let other = NatsServer::start().await;
    let mut world = World::start(json!({"allow_nats_urls": [other.url(), "nats://127.0.0.1:1"]})).await;
    let mut greet = world.prepare("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    greet.trigger_connection = Some(ConnectionDetails { nats_url: other.url(), ..ConnectionDetails::default() });
    world.deploy(&greet).await;
    let answer = other.client().await.request("greet", "you".into()).await.unwrap();
    assert_eq!(answer.payload, "\"Hello, you!\"");
    assert!(world.client.call("greet", "you".into(), Duration::from_secs(1)).await.is_err(), "nobody listens on the node's");
    greet.trigger_connection = Some(ConnectionDetails { nats_url: "nats://127.0.0.1:1".into(), ..ConnectionDetails::default() });
    let failure = world.refused(&greet).await;
    assert!(failure.message.contains("its own NATS connection cannot be made"), "{failure}");
    greet.trigger_connection = Some(ConnectionDetails { nats_url: "nats://127.0.0.1:2".into(), ..ConnectionDetails::default() });
    let failure = world.refused(&greet).await;
    assert!(failure.message.contains("not among those that this node connects workloads to"), "{failure}");
    assert_eq!(world.node().registry().count(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_does_not_compile_is_refused_and_nothing_is_told_of_it() {
    let mut world = World::start(json!({})).await;
    for (kind, bytes, text) in [
        (WorkloadType::V8, &b"(subject payload) => {"[..], "workload rejected by agent: failed to validate workload"),
        (WorkloadType::V8, b"7", "workload rejected by agent: failed to validate workload"),
        (WorkloadType::Wasm, b"(subject) => 1", "workload rejected by agent: failed to validate workload"),
        (WorkloadType::Wasm, b"\0asm\x01\0\0\0garbage", "workload rejected by agent: failed to validate workload"),
    ] {
        let failure = world.refused(&world.prepare("broken", kind, bytes).await).await;
        assert!(failure.message.starts_with("Failed to deploy workload: ") && failure.message.contains(text), "{failure}");
    }
    assert_eq!(world.node().registry().count(), 0);
    world.run("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"");
    world.until("the good one is told", |it| !it.events("workload_deployed").is_empty()).await;
    assert_eq!((world.events("workload_deployed").len(), world.events("workload_undeployed").len()), (1, 0));
    world.stop().await;
}

/// Takes its time.
const SLOW: &[u8] = b"() => { console.log('begun'); const end = Date.now() + 250; while (Date.now() < end); return 'done'; }";

async fn calls_under_way_are_answered_when_a_copy_is_stopped(mut world: World) {
    let mut slow = world.prepare("slow", WorkloadType::V8, SLOW).await;
    slow.limits.concurrency = Some(4);
    let stopped = world.deploy(&slow).await;
    world.deploy(&slow).await;
    let calls = [("slow", ""); 24];
    let answers = futures::future::join(call_all(&world, &calls), async {
        let begun = |it: &World| it.logs().iter().filter(|(_, line)| line.text == "begun" && line.id == stopped.id).count();
        world.until("calls are under way", |it| begun(it) > 0).await;
        world.stop_workload(&stopped).await;
    });
    let (answers, ()) = answers.await;
    assert!(answers.iter().all(|answer| answer.payload.as_ref() == b"\"done\""), "{answers:?}");
    assert_eq!(world.call("slow", "").await, "\"done\"");
    world.stop().await;
    world.until("every call is told, to the last", |it| succeeded(it, "slow") == 25).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_are_answered_when_a_copy_is_stopped_that_is_called_directly() {
    calls_under_way_are_answered_when_a_copy_is_stopped(World::start(json!({"stop_grace_ms": 5_000})).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_are_answered_when_a_copy_is_stopped_that_is_relayed() {
    calls_under_way_are_answered_when_a_copy_is_stopped(relaying(json!({"stop_grace_ms": 5_000})).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relayed_call_whose_agent_is_killed_is_answered_at_once() {
    let mut world = relaying(json!({})).await;
    let mut moody = world.prepare("moody", WorkloadType::V8, MOODY.as_bytes()).await;
    moody.limits.call_timeout_ms = Some(30_000);
    let (_, agent) = world.deploy_watched(&moody).await;
    assert!(world.call("moody", "well").await.contains("well"));
    let began = Instant::now();
    let (answers, ()) = futures::future::join(call_all(&world, &[("moody", "loop")]), async {
        world.until("it loops", |it| it.has_logged("looping")).await;
        kill9(agent);
    })
    .await;
    let (code, text) = error_of(&answers[0]);
    assert!(code == 500 && text.contains("the agent"), "{code} {text}");
    assert!(began.elapsed() < Duration::from_secs(15), "at once: {:?}", began.elapsed());
    world.stop().await;
}
