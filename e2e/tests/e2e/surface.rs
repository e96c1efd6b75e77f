//! What is there without any server: help, version, completion.

use crate::world::World;

/// Every command, with the commands above it.
const COMMANDS: [&[&str]; 53] = [
    &[],
    &["up"],
    &["version"],
    &["node"],
    &["node", "up"],
    &["node", "preflight"],
    &["node", "ls"],
    &["node", "info"],
    &["node", "probe"],
    &["node", "lameduck"],
    &["node", "stop"],
    &["node", "upgrade"],
    &["devrun"],
    &["new"],
    &["run"],
    &["apply"],
    &["export"],
    &["rollback"],
    &["stop"],
    &["call"],
    &["ps"],
    &["top"],
    &["describe"],
    &["dead"],
    &["dead", "ls"],
    &["dead", "show"],
    &["dead", "rm"],
    &["dead", "redrive"],
    &["replay"],
    &["logs"],
    &["events"],
    &["artifact"],
    &["artifact", "ls"],
    &["artifact", "rm"],
    &["artifact", "gc"],
    &["image"],
    &["image", "push"],
    &["image", "pull"],
    &["image", "ls"],
    &["image", "rm"],
    &["image", "gc"],
    &["secret"],
    &["secret", "set"],
    &["secret", "ls"],
    &["secret", "rm"],
    &["issuer"],
    &["issuer", "add"],
    &["issuer", "ls"],
    &["issuer", "rm"],
    &["whoami"],
    &["help"],
    &["rootfs"],
    &["completion"],
];

#[test]
fn small_things_are_as_one_expects() {
    let world = World::new();
    world.nex(&["version"]).expect(0).says(&["nex v"]);
    assert!(world.nex(&["version", "--json"]).expect(0).json()["version"].is_string());
    for (args, member) in [(&["help", "triggers", "--json"][..], "text"), (&["completion", "bash", "--json"], "script")] {
        assert!(world.nex(args).expect(0).json()[member].as_str().is_some_and(|text| text.lines().count() > 5), "{args:?}");
    }
    world.nex(&["up", "--port", "0"]).expect(2).says(&["0 is not in 1..=65535"]);
    let failed = world.nex(&["ps", "--json"]).expect(6);
    let told: serde_json::Value = serde_json::from_str(&failed.stderr).unwrap();
    assert_eq!((told["exit_code"].as_i64(), told["next"].as_array().map(Vec::is_empty)), (Some(6), Some(false)), "{told}");
    assert!(told["error"].as_str().is_some_and(|error| error.contains(&world.url())) && failed.stdout.is_empty(), "{told}");

    let _up = world.up(&[]);
    let name = world.nodes()[0]["tags"]["node_name"].as_str().unwrap().to_owned();
    let by_name = world.nex(&["node", "info", &name]).expect(0);
    by_name.says(&[&world.node_id()]);
    world.nex(&["node", "info", "nosuch"]).expect(2).says(&["neither the id nor the name", "nex node ls"]);

    // Open, and nobody writes to it.
    let mut silent = world.command("nex", &["call", "echojs", "--timeout", "300ms"]);
    silent.stdin(std::process::Stdio::piped());
    let mut silent = world.block_on(async { silent.spawn() }).unwrap();
    let stdin = silent.stdin.take();
    let ended = world.block_on(silent.wait_with_output()).unwrap();
    drop(stdin);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(2) && said.contains("standard input is open"), "{said}");
}

#[test]
fn every_command_has_help() {
    let world = World::new();
    for command in COMMANDS {
        let line = |flag| [command, &[flag]].concat();
        let long = world.nex(&line("--help")).expect(0).says(&["Usage: nex", "--help"]).text();
        assert_eq!(world.nex(&line("-h")).expect(0).text(), long, "{command:?}");
        // A list of commands names those that are tried here, and no others.
        let listed = long.split_once("\nCommands:\n").map(|(_, rest)| rest.split("\n\n").next().unwrap_or_default());
        let names = listed.into_iter().flat_map(str::lines).filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        for name in names.filter(|name| !name.is_empty() && *name != "help") {
            let known = COMMANDS.contains(&[command, &[name]].concat().as_slice()) || name == "lameduck";
            assert!(known, "nex {command:?} {name} is not tried");
        }
    }
    world.nex(&["lameduck", "--help"]).expect(0).says(&["Usage: nex lameduck"]);
    for alias in [&["nodes", "ls", "--help"][..], &["secrets", "ls", "--help"], &["yeet", "--help"], &["fs", "--help"]] {
        world.nex(alias).expect(0).says(&["Usage: nex"]);
    }
}

#[test]
fn the_version_is_one_line_and_a_wrong_word_exits_2() {
    let world = World::new();
    let version = format!("nex v{}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(world.nex(&["--version"]).expect(0).text(), version);
    assert_eq!(world.nex(&["-V"]).expect(0).text(), version);
    world.nex(&["devrum"]).expect(2).says(&["error: ", "devrun"]);
    world.nex(&[]).expect(2).says(&["Usage: nex"]);
    assert!(!world.path("home/.nex").exists(), "nothing is written by looking");
}

#[test]
fn completion_scripts_parse_in_their_shells() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.nex(&["completion", shell]).expect(0).text();
        assert!(script.contains("NEX_COMPLETE"), "{shell}");
        let file = world.file(&format!("completion.{shell}"), &script);
        if matches!(shell, "bash" | "zsh" | "fish") && is_there(shell) {
            world.end(world.command(shell, &["-n", &file])).expect(0);
        }
    }
    world.nex(&["completion", "tcsh"]).expect(2);
}

fn is_there(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(program).is_file())
}

#[test]
fn bash_completes_commands_workloads_nodes_namespaces_secrets_and_contexts() {
    if !is_there("bash") {
        nex_testkit::skip!("bash_completes_commands_workloads_nodes_namespaces_secrets_and_contexts", "no bash");
    }
    let world = World::new();
    let _up = world.up(&[]);
    let script = world.file("service.sh", "#!/bin/sh\nexec sleep 1000\n");
    world.nex(&["devrun", &script, "--name", "alpha"]).expect(0);
    world.nex(&["devrun", &script, "--name", "beta", "--namespace", "shop"]).expect(0);
    world.nex_reading(&["secret", "set", "pass"], b"x").expect(0);
    let node = world.nodes()[0]["tags"]["node_name"].as_str().unwrap().to_owned();
    let completion = world.file("completion.bash", world.nex(&["completion", "bash"]).expect(0).text());
    let complete = |words: &[&str]| {
        let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        let last = words.last().unwrap();
        let script = format!(
            "source {completion}; COMP_WORDS=({line}); COMP_CWORD={}; COMP_TYPE=9; _clap_complete_nex nex '{last}' ''; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.len() - 1
        );
        let text = world.end(world.command("bash", &["--norc", "-c", &script])).expect(0).text();
        text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let has = |words: &[&str], wanted: &str| {
        let found = complete(words);
        assert!(found.iter().any(|it| it == wanted), "{words:?}: {found:?}");
    };
    has(&["nex", "devr"], "devrun");
    has(&["nex", "stop", ""], "alpha");
    has(&["nex", "logs", "al"], "alpha");
    has(&["nex", "--namespace", "shop", "stop", "b"], "beta");
    has(&["nex", "ps", "--namespace", "s"], "shop");
    has(&["nex", "node", "info", ""], &node);
    has(&["nex", "secret", "rm", "p"], "pass");
    has(&["nex", "ps", "--context", "nex"], &format!("nex-{}", world.port()));
    assert!(!complete(&["nex", "stop", ""]).contains(&"beta".to_owned()), "that is in another namespace");
    // Where nobody answers, nothing is completed, and nothing is said.
    assert!(!complete(&["nex", "-s", "nats://127.0.0.1:9", "stop", ""]).contains(&"alpha".to_owned()));
}

#[test]
fn help_is_there_for_commands_and_topics() {
    let world = World::new();
    for topic in ["contexts", "permissions", "policies", "sandbox", "secrets", "triggers"] {
        world.nex(&["help", topic]).expect(0).says(&["nex "]);
    }
    world.nex(&["help", "node", "up"]).expect(0).says(&["Usage: nex node up"]);
    world.nex(&["help"]).expect(0).says(&["Usage: nex", "devrun"]);
    world.nex(&["help", "me"]).expect(2).says(&["neither a command nor a topic", "triggers"]);
}
