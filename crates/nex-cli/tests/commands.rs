//! The binary against a real nats-server and nodes that answer like nodes: what it prints and how it exits.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "../../nex-client/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use nex_protocol::deploy::WorkloadType;
use serde_json::Value;
use support::{Nats, Properties, TestNode, settle};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

struct Nex<'a> {
    server: &'a str,
    home: tempfile::TempDir,
}

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl<'a> Nex<'a> {
    fn at(server: &'a str) -> Self {
        Self { server, home: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nex"));
        command.args(arguments).env_clear().env("HOME", self.home.path()).env("NATS_URL", self.server);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments).output().await.unwrap())
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn ended(output: Output) -> Ended {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Ended {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            let there = self.stdout.contains(part) || self.stderr.contains(part);
            assert!(there, "'{part}' in\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        }
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}", self.stdout))
    }
}

#[tokio::test]
async fn without_a_server_every_command_says_what_to_do_and_exits_6() {
    let nex = Nex::at("nats://127.0.0.1:1");
    let expected = ["error: no NATS server at nats://127.0.0.1:1", "cause: ", "next: start one"];
    for command in [&["node", "ls"][..], &["ps"], &["events"], &["stop", "echo"], &["call", "echo"]] {
        nex.run(command).await.expect(6).says(&expected);
    }
}

#[tokio::test]
async fn a_wrong_command_line_exits_2_without_connecting() {
    let nex = Nex::at("nats://127.0.0.1:1");
    let text = nex.file("note.txt", b"hello");
    let script = nex.file("echo.js", b"() => 1");
    let unknown = nex.run(&["ps", "--context", "nowhere"]).await.expect(2);
    unknown.says(&["unknown context provided: 'nowhere'", "next: "]);
    nex.run(&["nod", "ls"]).await.expect(2);
    nex.run(&["devrun", &text]).await.expect(2).says(&["is plain text, but nodes run", "--type"]);
    nex.run(&["devrun", &script, "novalue"]).await.expect(2).says(&["KEY=value"]);
    nex.run(&["devrun", &script, "--argv", "'open"]).await.expect(2).says(&["never closed"]);
    nex.run(&["--namespace", "system", "events"]).await.expect(2).says(&["automatically subscribed"]);
}

#[tokio::test]
async fn a_function_lives_its_life_on_the_command_line() {
    let nats = Nats::start(true).await;
    let node = TestNode::start(&nats, Properties::default()).await;
    let nex = Nex::at(&nats.url);
    let file = nex.file("echo.js", b"(subject, payload) => payload");

    let first = nex.run(&["devrun", &file, "TOKEN=s3cret"]).await.expect(0);
    let first =
        first.says(&["🚀 Workload 'echojs' accepted", "its name calls it: echojs", "nex call echojs", "Wrote new issuer"]);
    assert!(first.stdout.contains("nex logs echojs") && first.stderr.contains("uploaded"));
    let issuer = node.deployed(|all| {
        let own = all.values().next().unwrap();
        assert_eq!(own.environment["TOKEN"], "s3cret");
        let digest = nex_protocol::digest::Digest::of(b"(subject, payload) => payload").to_string();
        assert_eq!(own.claims.nats.hash.as_deref(), Some(digest.as_str()));
        assert_eq!(own.request.description.as_deref(), Some("Workload published in devmode"));
        own.issuer.clone()
    });

    let second = nex.run(&["devrun", &file, "--json"]).await.expect(0);
    assert_eq!((&second.json()["started"], &second.json()["issuer"]), (&Value::Bool(true), &Value::String(issuer)));
    assert_eq!(node.deployed(BTreeMap::len), 1, "the older copy is replaced");
    let id = second.json()["id"].as_str().unwrap().to_owned();

    let reply = nex.run(&["call", "echojs", "hi"]).await.expect(0);
    assert_eq!(reply.stdout, "hi", "the reply is printed as it is");
    let mut piped = nex.command(&["call", "echojs"]).stdin(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"piped\n").await.unwrap();
    assert_eq!(ended(piped.wait_with_output().await.unwrap()).stdout, "piped\n");

    nex.run(&["ps"]).await.expect(0).says(&["Workloads", &id, "echojs", "running", "quiet-lamp"]);
    assert_eq!(nex.run(&["--json", "ps"]).await.json()[0]["triggers"][0], "echojs");
    nex.run(&["node", "probe", "--workload", "echojs"]).await.expect(0).says(&["Discovered Workloads", &id]);
    nex.run(&["node", "info", node.id().as_str(), "--full"]).await.expect(0).says(&["NEX Node Information", "🟢", "devmode"]);

    nex.run(&["stop", &id]).await.expect(0).says(&["✅ Workload 'echojs' stopped."]);
    nex.run(&["ps"]).await.expect(0).says(&["No workloads in namespace default"]);
    nex.run(&["stop", "echojs"]).await.expect(1).says(&["error: No such workload", "next: see what runs with `nex ps`"]);
    nex.run(&["call", "nobody.there", "x"]).await.expect(1).says(&["nothing listens on 'nobody.there'"]);
}

#[tokio::test]
async fn a_function_is_called_by_its_name_when_its_trigger_is_another() {
    let nats = Nats::start(true).await;
    let _node = TestNode::start(&nats, Properties::default()).await;
    let nex = Nex::at(&nats.url);
    let file = nex.file("echo.js", b"(subject, payload) => payload");
    nex.run(&["devrun", &file, "--trigger_subject", "loud.*", "--trigger_subject", "quiet"]).await.expect(0);
    let reply = nex.run(&["call", "echojs", "{\"a\":1}", "--json"]).await.expect(0);
    assert_eq!((&reply.json()["subject"], &reply.json()["reply"]["a"]), (&Value::from("quiet"), &Value::from(1)));
}

#[tokio::test]
async fn the_commands_of_0_2_7_run_and_stop_by_node_and_files() {
    let nats = Nats::start(true).await;
    let (node, nex) = (TestNode::start(&nats, Properties::default()).await, Nex::at(&nats.url));
    let file = nex.file("echo", b"#!/bin/sh\n");
    let uploaded = nex.run(&["devrun", &file, "--no-stop", "--json"]).await.expect(0).json();
    let url = uploaded["location"].as_str().unwrap();
    let (issuer, xkey) = (nex.home.path().join(".nex/issuer.nk"), nex.home.path().join(".nex/publisher.xk"));
    let (issuer, xkey) = (issuer.to_str().unwrap(), xkey.to_str().unwrap());
    let id = node.id().as_str();
    let run = ["run", url, id, "A=b", "--name", "two", "--issuer", issuer, "--xkey", xkey, "--argv", "-v"];
    let ended = nex.run(&[&run[..], &["--hs_url", "nats://h", "--json"]].concat()).await.expect(0);
    let workload = ended.json()["id"].as_str().unwrap().to_owned();
    node.deployed(|all| {
        let request = &all[&workload].request;
        assert_eq!(request.argv.as_deref(), Some(&["-v".to_owned()][..]));
        assert_eq!(request.host_services.as_ref().unwrap().nats_url, "nats://h");
        assert_eq!(request.trigger_subjects, None);
    });
    nex.run(&["stop", id, &workload, "--name", "two", "--issuer", issuer]).await.expect(0).says(&["✅ Workload 'two' stopped."]);
    let stranger = Nex::at(&nats.url);
    stranger.run(&["stop", "echo"]).await.expect(3).says(&["the only entity allowed to terminate"]);
    stranger.run(&["run", "nats://NEXCLIFILES/none", id, "--name", "x"]).await.expect(1).says(&["there is no artifact"]);
}

#[tokio::test]
async fn nobody_bids_and_denials_have_their_own_exit_codes_and_reasons() {
    let nats = Nats::start(true).await;
    let nex = Nex::at(&nats.url);
    let file = nex.file("echo.js", b"() => 1");
    nex.run(&["devrun", &file]).await.expect(4).says(&["no nodes discovered", "next: start one with `nex up`"]);
    let node = TestNode::start(&nats, Properties { types: vec![WorkloadType::Native], ..Default::default() }).await;
    let reasons = [node.id().as_str(), "quiet-lamp", "it does not take type v8, only native", "next: "];
    nex.run(&["devrun", &file]).await.expect(4).says(&reasons);
    let script = nex.file("forbidden", b"#!/bin/sh\n");
    nex.run(&["devrun", &script]).await.expect(3).says(&["invalid workload issuer"]);
    let _silent = {
        let client = nats.connect().await;
        let subscription = client.subscribe("silent").await.unwrap();
        settle(&client).await;
        subscription
    };
    nex.run(&["call", "silent", "x", "--timeout", "50ms"]).await.expect(5).says(&["no answer on 'silent' within 50ms"]);
}

#[tokio::test]
async fn copies_of_a_name_are_replaced_on_every_node() {
    let nats = Nats::start(true).await;
    let nodes = [TestNode::start(&nats, Properties::default()).await, TestNode::start(&nats, Properties::default()).await];
    let nex = Nex::at(&nats.url);
    let file = nex.file("echo.js", b"() => 1");
    for _ in 0..3 {
        nex.run(&["devrun", &file, "--no-stop"]).await.expect(0);
    }
    let running = || nodes.iter().map(|node| node.deployed(BTreeMap::len)).sum::<usize>();
    assert_eq!(running(), 3);
    assert!(nodes.iter().all(|node| node.deployed(|all| !all.is_empty())), "the emptiest node wins");
    nex.run(&["devrun", &file]).await.expect(0).says(&["is there already, unchanged", "already exists on node"]);
    assert_eq!(running(), 3, "as many as before");
    assert!(nodes.iter().all(|node| node.deployed(|all| !all.is_empty())), "each where the old one was");
}

#[tokio::test]
async fn a_lame_duck_is_marked_and_bids_no_more() {
    let nats = Nats::start(true).await;
    let (node, nex) = (TestNode::start(&nats, Properties::default()).await, Nex::at(&nats.url));
    nex.run(&["node", "ls"]).await.expect(0).says(&["NATS Execution Nodes", "quiet-lamp", "10m15s"]);
    nex.run(&["lameduck", node.id().as_str()]).await.expect(0).says(&["Command to enter lame duck mode issued to"]);
    assert!(node.is_lame());
    nex.run(&["node", "ls", "--full"]).await.expect(0).says(&[&format!("{}*", node.id()), "Sandboxed", "linux"]);
    assert_eq!(nex.run(&["node", "ls", "--json"]).await.json()[0]["tags"]["nex.lameduck"], "true");
    let file = nex.file("echo.js", b"() => 1");
    nex.run(&["devrun", &file]).await.expect(4).says(&["lame duck mode"]);
}

#[tokio::test]
async fn without_jetstream_devrun_says_how_to_get_it() {
    let nats = Nats::start(false).await;
    let (_node, nex) = (TestNode::start(&nats, Properties::default()).await, Nex::at(&nats.url));
    let file = nex.file("echo.js", b"() => 1");
    nex.run(&["devrun", &file]).await.expect(1).says(&["error: JetStream is off", "next: start nats-server with `-js`"]);
}

#[tokio::test]
async fn logs_and_events_are_told_as_they_happen() {
    let nats = Nats::start(false).await;
    let (nex, node) = (Nex::at(&nats.url), nats.connect().await);
    for (arguments, subject, body, expected) in [
        (
            &["logs", "--workload_name", "echo"][..],
            "$NEX.logs.default.N1.echo.cpv1o2s0tq5c73f0abcd",
            r#"{"text":"hello\n","level":"INFO","id":"x"}"#,
            "INFO  echo/abcd hello",
        ),
        (
            &["logs", "--json", "--workload_name", "echo"],
            "$NEX.logs.default.N1.cpv1o2s0tq5c73f0abcd.echo",
            r#"{"text":"hello","level":"WARN+1","id":"x"}"#,
            r#""workload_name":"echo""#,
        ),
        (
            &["events"],
            "$NEX.events.default.workload_deployed",
            r#"{"specversion":"1.0","id":"a","source":"N1","type":"workload_deployed","data":{"workload_name":"echo"}}"#,
            "default workload_deployed workload_name=echo source=N1",
        ),
    ] {
        let mut child = nex.command(arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Said again until heard: nobody knows when the command listens.
        let heard = async {
            loop {
                node.publish(subject, body.into()).await.unwrap();
                if let Ok(line) = tokio::time::timeout(Duration::from_millis(100), lines.next_line()).await {
                    return line.unwrap().unwrap();
                }
            }
        };
        let line = tokio::time::timeout(Duration::from_secs(20), heard).await.unwrap();
        assert!(line.contains(expected), "{line}");
        drop(lines);
        let ended = async {
            while child.try_wait().unwrap().is_none() {
                node.publish(subject, body.into()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
        let status = child.wait().await.unwrap();
        assert_eq!(status.code(), Some(0), "a closed pipe ends {arguments:?} well");
    }
}

#[tokio::test]
async fn a_closed_pipe_and_completions_are_no_failure() {
    let nex = Nex::at("nats://127.0.0.1:1");
    let script = nex.run(&["completion", "bash"]).await.expect(0);
    assert!(script.stdout.contains("NEX_COMPLETE"));
    let help = nex.run(&["--help"]).await.expect(0);
    help.says(&["Exit codes", "nex devrun ./echo.js", "Connection"]);
    let mut child = nex.command(&["completion", "zsh"]).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn the_selected_context_is_used_when_nothing_else_is_said() {
    let nats = Nats::start(false).await;
    let nex = Nex::at("");
    let nats_config = nex.home.path().join(".config/nats");
    std::fs::create_dir_all(nats_config.join("context")).unwrap();
    std::fs::write(nats_config.join("context/work.json"), format!("{{\"url\":\"{}\"}}", nats.url)).unwrap();
    std::fs::write(nats_config.join("context.txt"), "work").unwrap();
    let listed = nex.command(&["node", "ls"]).env_remove("NATS_URL").output().await.unwrap();
    ended(listed).expect(0).says(&["No nodes discovered"]);
    let other = nex.command(&["node", "ls", "-s", "nats://127.0.0.1:1"]).env_remove("NATS_URL").output().await.unwrap();
    ended(other).expect(6);
    let path = nats_config.join("context/work.json");
    nex.run(&["node", "ls", "--context", path.to_str().unwrap()]).await.expect(0);
    assert!(!Path::exists(&nex.home.path().join(".nex")), "nothing is written that is not needed");
}
