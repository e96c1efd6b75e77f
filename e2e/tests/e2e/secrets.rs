//! `nex secret`: set, used, rotated, removed; and who may see what.

use std::io::{Read as _, Write as _};

use nex_testkit::NatsOptions;
use nix::pty::openpty;
use serde_json::Value;

use crate::permissions::{documented, flags, step};
use crate::world::World;

const SERVICE: &str = "#!/bin/sh\necho I say $WORDS\nexec sleep 1000\n";

fn listed(world: &World) -> Vec<Value> {
    world.nex(&["secret", "ls", "--json"]).expect(0).json().as_array().unwrap().clone()
}

#[test]
fn a_secret_is_set_used_rotated_and_removed() {
    let world = World::new();
    let _up = world.up(&[]);
    let script = world.file("service.sh", SERVICE);
    world.nex(&["secret", "ls"]).expect(0).says(&["No secrets of ours"]);
    let line = ["devrun", &script, "WORDS=secret:words"];
    world.nex(&line).expect(1).says(&["there is no secret 'words'", "nex secret set words"]);
    world.nex_reading(&["secret", "set", "words"], b"").expect(2).says(&["the value is empty"]);
    world
        .nex_reading(&["secret", "set", "words"], b"a secret\n")
        .expect(0)
        .says(&["can open it: 0", "secret:words"])
        .says_not("a secret");
    world.nex(&line).expect(0);
    world.nex(&["logs", "service", "--tail", "5"]).expect(1);
    world.nex(&["logs", "servicesh", "--tail", "5"]).expect(0).says(&["I say a secret"]);
    let all = listed(&world);
    assert_eq!((all.len(), &all[0]["name"], &all[0]["used_by"]), (1, &"words".into(), &1.into()));
    assert_eq!(all[0]["nodes"], serde_json::json!([world.node_id()]));
    world.nex(&["secret", "ls"]).expect(0).says(&["words", "sealed"]).says_not("a secret");
    world.nex(&["describe", "servicesh"]).expect(0).says(&["Secrets", "words"]).says_not("a secret");

    let told = world.nex_reading(&["secret", "set", "words"], b"another one\n").expect(0);
    told.says(&["can open it: 1", "Used by servicesh"]);
    world.nex(&["secret", "rm", "words"]).expect(2).says(&["is used by 'servicesh'", "--force"]);
    world.nex(&["stop", "servicesh"]).expect(0);
    world.nex(&["secret", "rm", "words"]).expect(0).says(&["Removed words"]);
    world.nex(&["secret", "rm", "words"]).expect(1).says(&["there is no secret 'words'"]);
    assert!(listed(&world).is_empty());
}

#[test]
fn apply_replaces_what_uses_a_secret_that_was_set_since() {
    let world = World::new();
    let _up = world.up(&[]);
    world.file("service.sh", SERVICE);
    world.file("value", "first\n");
    let toml = "project = 'shop'\n[workloads.service]\nfile = 'service.sh'\nenvironment = { WORDS = { secret = 'words' } }\n";
    world.file("nex.toml", toml);
    world.nex(&["apply", "--dry-run"]).expect(1).says(&["there is no secret 'words'"]);
    world.nex(&["secret", "set", "words", "--file", &world.text_path("value")]).expect(0);
    world.nex(&["apply"]).expect(0).says(&["✅ Applied"]);
    world.nex(&["logs", "service", "--tail", "5"]).expect(0).says(&["I say first"]);
    world.nex(&["apply"]).expect(0).says(&["All is as it should be"]);
    world.nex_reading(&["secret", "set", "words", "--forget-nodes"], b"second").expect(0).says(&["can open it: 0"]);
    world.nex(&["apply"]).expect(0).says(&["~ service: replace 1 copy: its settings have changed"]);
    world.nex(&["logs", "service", "--tail", "5"]).expect(0).says(&["I say second"]);
}

#[test]
fn apply_leaves_alone_what_nodes_renew_when_a_secret_is_set() {
    let world = World::new();
    let _up = world.up(&[]);
    world.file("say.js", "() => env.WORDS\n");
    world.file("service.sh", "#!/bin/sh\ntell() { echo \"I say $(cat $WORDS_FILE)\"; }\ntrap tell HUP\ntell\nsleep 1000 &\nwhile kill -0 $!; do wait $!; done\n");
    world.nex_reading(&["secret", "set", "words"], b"first").expect(0);
    let toml = "project = 'shop'\n[workloads.say]\nfile = 'say.js'\nenvironment = { WORDS = { secret = 'words' } }\n\
                [workloads.service]\nfile = 'service.sh'\nenvironment = { WORDS_FILE = { secret_file = 'words' } }\n\
                on_secret_change = 'signal:HUP'\n";
    world.file("nex.toml", toml);
    world.nex(&["apply"]).expect(0).says(&["✅ Applied"]);
    let before = world.ps();
    world.nex_reading(&["secret", "set", "words"], b"second").expect(0);
    world.eventually("the service says it", || world.nex(&["logs", "service", "--tail", "5"]).text().contains("I say second"));
    world.eventually("the function says it", || world.nex(&["call", "say", ""]).text().contains("second"));
    world.nex(&["apply"]).expect(0).says(&["All is as it should be"]);
    let ids = |list: &[Value]| list.iter().map(|one| one["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&world.ps()), ids(&before));
    // By hand it is the same version, and what is exported says the same.
    world.nex(&["export", "again.toml"]).expect(0);
    let again = std::fs::read_to_string(world.path("again.toml")).unwrap();
    assert!(again.contains("secret_file = \"words\"") && again.contains("signal:SIGHUP"), "{again}");
    for (arguments, expected) in [
        (&["devrun", "say.js", "A=secret-file:words"][..], "write A=secret:words"),
        (&["devrun", "service.sh", "A=secret:words", "--on-secret-change", "signal:HUP"], "write A=secret-file:words"),
        (&["devrun", "service.sh", "A=secret-file:words", "--on-secret-change", "signal:KILL"], "signal:NAME"),
    ] {
        world.nex(arguments).expect(2).says(&[expected]);
    }
}

#[test]
fn what_is_typed_is_not_shown() {
    let world = World::new();
    let _up = world.up(&[]);
    let pty = openpty(None, None).unwrap();
    let mut command = world.command("nex", &["secret", "set", "typed"]);
    command.stdin(pty.slave.try_clone().unwrap()).stdout(pty.slave.try_clone().unwrap()).stderr(pty.slave.try_clone().unwrap());
    let mut child = world.block_on(async { command.spawn().unwrap() });
    drop((command, pty.slave));
    let mut terminal = std::fs::File::from(pty.master);
    let (mut shown, mut part, mut typed) = (Vec::new(), [0; 4096], false);
    while let Ok(count @ 1..) = terminal.read(&mut part) {
        shown.extend_from_slice(&part[..count]);
        if !typed && String::from_utf8_lossy(&shown).contains("(it is not shown): ") {
            typed = true;
            terminal.write_all(b"hunter2\n").unwrap();
        }
    }
    assert!(world.block_on(child.wait()).unwrap().success());
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(typed && shown.contains("Secret 'typed' is set") && !shown.contains("hunter2"), "{shown}");
    let echo = world.file("say.sh", SERVICE);
    world.nex(&["devrun", &echo, "WORDS=secret:typed"]).expect(0);
    world.nex(&["logs", "saysh", "--tail", "1"]).expect(0).says(&["I say hunter2"]);
}

#[test]
fn with_what_the_document_says_besides_secrets_are_set_used_and_listed() {
    let line = |subject: &str| format!("\"{subject}\"\n");
    let of_deployer = [
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.KV_NEXSECRETS_default",
        "$JS.API.STREAM.CREATE.KV_NEXSECRETS_default",
        "$JS.API.DIRECT.GET.KV_NEXSECRETS_default.>",
        "$JS.API.CONSUMER.CREATE.KV_NEXSECRETS_default.>",
        "$JS.API.CONSUMER.CREATE.KV_NEXSECRETS_default",
        "$JS.FC.KV_NEXSECRETS_default.>",
        "$KV.NEXSECRETS_default.>",
        "$NEX.WPING.default",
    ];
    let of_node = line("$JS.API.DIRECT.GET.KV_NEXSECRETS_default.>");
    let config = |of_node: &str| {
        let deployer = "\"$O.NEXCLIFILES.>\"\n";
        let node = "\"$NEX.logs.>\"\n";
        let all = documented().replacen(deployer, &(of_deployer.map(line).concat() + deployer), 1);
        all.replacen(node, &(of_node.to_owned() + node), 1)
    };
    for (of_node, works) in [(of_node.as_str(), true), ("", false)] {
        let world = World::with_nats_like(NatsOptions { config: config(of_node), ..NatsOptions::default() });
        let node = world.start(&[&["node", "up"][..], &flags("node").iter().map(String::as_str).collect::<Vec<_>>()].concat());
        node.waits_for("is ready");
        let (script, value) = (world.file("service.sh", SERVICE), world.file("value", "a secret"));
        step(&world, "deployer", &["secret", "set", "words", "--file", &value]).unwrap();
        step(&world, "deployer", &["secret", "ls"]).unwrap();
        let told = step(&world, "deployer", &["devrun", &script, "WORDS=secret:words"]);
        match works {
            true => told.unwrap(),
            false => {
                let why = told.unwrap_err();
                assert!(
                    why.contains("exit code 3") && why.contains("may not publish to \"$JS.API.DIRECT.GET.KV_NEXSECRETS"),
                    "{why}"
                );
            }
        }
        node.interrupt();
    }
}
