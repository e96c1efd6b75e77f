//! `nex devrun`: a file becomes a workload.

use std::path::Path;

use nex_testkit::{dist_binary, guest};
use serde_json::Value;

use crate::world::{Ended, World};

/// The service that tells how it was started.
const TELLER: &str = env!("CARGO_BIN_EXE_teller");

fn field(ended: Ended, name: &str) -> Value {
    ended.expect(0).json()[name].clone()
}

/// A component that is one without doubt, and no command: the node says what it misses.
const COMPONENT: &str = "(component)";

#[test]
fn the_kind_of_a_file_is_found_in_its_content() {
    let world = World::new();
    let _up = world.up(&[]);
    let service = dist_binary("echo-service");
    let nats_url = format!("NATS_URL={}", world.url());
    assert_eq!(field(world.nex(&["devrun", service.to_str().unwrap(), &nats_url, "--json"]), "type"), "native");
    // Names that say nothing, or lie.
    let script = world.file("function", guest::ECHO_JS);
    assert_eq!(field(world.nex(&["devrun", &script, "--json"]), "type"), "v8");
    let module = world.file("module.js", guest::assemble(guest::ECHO_WAT));
    assert_eq!(field(world.nex(&["devrun", &module, "--json"]), "type"), "wasm");
    let es_module = world.file("greet.mjs", guest::GREET_MJS);
    assert_eq!(field(world.nex(&["devrun", &es_module, "--json"]), "type"), "v8");
    let typescript = world.file("order.ts", include_str!("../../../examples/functions/order.ts"));
    assert_eq!(field(world.nex(&["devrun", &typescript, "--json"]), "type"), "v8");
    world.nex(&["call", "orderts", r#"{"item":"pen","quantity":2}"#]).expect(0).says(&[r#""total":6"#]);
    let component = world.file("empty.bin", guest::assemble(COMPONENT));
    world.nex(&["devrun", &component]).expect(1).says(&["wasi:cli"]);

    for (name, content, what) in [
        ("note.txt", &b"just a note"[..], "is plain text"),
        ("README.md", b"# Use it\n\nexport NATS_URL, then import it as a function => done\n", "is plain text"),
        ("echo.wat", b"(module (import \"a\" \"b\" (func $function)))\n", "WebAssembly as text"),
        ("echo.tsx", b"const echo = (text: string) => text;\n", "TypeScript with JSX, which has to be compiled"),
        ("service.sh", b"#!/bin/sh\r\nexec sleep 9\r\n", "lines end as on Windows"),
        ("letter", b"only words\n", "text that does not look like JavaScript"),
        ("packed.gz", b"\x1f\x8b\x08\0", "a gzip archive"),
        ("nothing", b"", "empty"),
        ("data", b"a\0b\x01", "binary data of an unknown kind"),
    ] {
        let file = world.file(name, content);
        world.nex(&["devrun", &file]).expect(2).says(&[&file, what, "next: "]);
    }
    world.nex(&["devrun", &world.text_path("missing.js")]).expect(1).says(&["cannot read", "missing.js", "next: "]);
    world.nex(&["devrun", &world.text_path("home")]).expect(2).says(&["is a directory"]);
    let blank = world.file("my function.js", guest::ECHO_JS);
    world.nex(&["devrun", &blank]).expect(2).says(&["--name"]);
    world.nex(&["devrun", &blank, "--name", "mine"]).expect(0).says(&["Workload 'mine' accepted"]);
    assert_eq!(world.ps().len(), 6);
}

#[test]
fn a_file_that_no_engine_takes_is_refused_with_the_reason_and_leaves_nothing() {
    let world = World::new();
    let _up = world.up(&[]);
    let broken = world.file("broken.js", "(subject, payload) => {");
    world.nex(&["devrun", &broken]).expect(1).says(&["SyntaxError"]);
    let module = world.file("broken.wasm", b"\0asm\x01\0\0\0\xff\xff");
    world.nex(&["devrun", &module]).expect(1).says(&["error: "]);
    let elf = world.file("broken", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0");
    world.nex(&["devrun", &elf]).expect(1).says(&["error: "]);
    let shell = world.file("service.sh", "#!/no/such/interpreter\n");
    world.nex(&["devrun", &shell]).expect(1).says(&["error: "]);
    assert_eq!(world.ps(), Vec::<Value>::new());
}

#[test]
fn an_empty_list_of_trusted_nodes_neither_trusts_everybody_nor_is_a_riddle() {
    let mut world = World::with_nats();
    let script = world.file("echo.js", guest::ECHO_JS);
    for empty in ["", " ", ","] {
        world.set("NEX_TRUSTED_NODES", empty);
        world.nex(&["devrun", &script]).expect(2).says(&["no node is named; next: name one, or unset NEX_TRUSTED_NODES"]);
    }
}

#[test]
fn again_it_replaces_the_copy_that_ran_and_says_all_of_it_plainly() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("greet.js", "() => 'one'");
    let first = world.nex(&["devrun", &file]).expect(0);
    let first = first.says(&["Wrote new issuer account key: ", "uploaded (", "its name calls it: greetjs", "nex call greetjs"]);
    assert!(
        !first.stderr.contains(['\r', '\x1b']) && !first.text().contains(['\r', '\x1b']),
        "no bar where nobody looks: {first:?}"
    );
    world.nex(&["call", "greetjs", ""]).expect(0).says(&["one"]);
    let before = world.ps();

    let unchanged = world.nex(&["devrun", &file]).expect(0);
    unchanged.says(&["is there already, unchanged", "already exists on node"]).says_not("Reusing existing");
    let told = world.nex(&["devrun", &file, "--loglevel", "debug"]).expect(0);
    assert!(told.stderr.contains("Reusing existing issuer account key: "), "{told:?}");
    world.file("greet.js", "() => 'two'");
    world.nex(&["devrun", &file]).expect(0).says(&["uploaded (", "Replaced "]);
    world.nex(&["call", "greetjs", ""]).expect(0).says(&["two"]);
    let after = world.ps();
    assert_eq!((before.len(), after.len()), (1, 1), "one is left");
    assert_ne!(before[0]["id"], after[0]["id"]);

    world.nex(&["devrun", &file, "--no-stop"]).expect(0).says_not("already exists");
    assert_eq!(world.ps().len(), 2);
}

#[test]
fn environment_and_arguments_reach_the_workload_and_no_process_list_shows_them() {
    let world = World::new();
    let _up = world.up(&[]);
    let logs = world.start(&["logs", "--workload_name", "teller"]);
    logs.waits_for("");
    world.eventually("the tail listens", || logs.err().contains("Watching"));
    let argv = r#"-v --name 'my service' "" "it's" a\ b"#;
    // Of this run alone: another may be deploying its own.
    let secret = &format!("hunter2-of-{}", std::process::id());
    let ended = world.nex(&["devrun", TELLER, "GREETING=hello world", "lower=x", &format!("TOKEN={secret}"), "--argv", argv]);
    ended.expect(0).says_not(secret);
    let told = logs.waits_for("that is all");
    for argument in ["-v", "--name", "my service", "", "it's", "a b"] {
        assert!(told.contains(&format!("argument [{argument}]\n")), "[{argument}] in {told}");
    }
    for variable in ["GREETING=[hello world]", "LOWER=[x]", &format!("TOKEN=[{secret}]")] {
        assert!(told.contains(&format!("variable {variable}\n")), "{variable} in {told}");
    }
    assert!(!told.contains("NATS_URL="), "nothing of the node's own environment: {told}");
    logs.waits_for("this goes to standard error");
    let listed = listed_with(secret);
    assert!(listed.is_empty(), "{listed:?}");

    let script = world.file("told.js", "() => Object.entries(env).map(([name, value]) => name + '=' + value).join()");
    world.nex(&["devrun", &script, &format!("TOKEN={secret}"), "lower=x"]).expect(0);
    let reply = world.nex(&["call", "toldjs", ""]).expect(0).text();
    assert!(reply.contains(&format!("TOKEN={secret}")) && reply.contains("lower=x"), "{reply}");
    assert!(listed_with(secret).is_empty());
    // Neither is it in the journal, in the buckets or in the node's log: it is written sealed only. What a workload writes itself is kept.
    let mut files = 0;
    each_file(&world.path("state"), &mut |file, content| {
        files += 1;
        if file.parent().is_some_and(|ring| ring.ends_with("history/default.logs")) {
            return;
        }
        let there = content.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!there, "the secret is in {}", file.display());
    });
    assert!(files > 5, "the journal, keys, artifacts and logs are files");
    for wrong in ["--argv='open", "--argv=\\"] {
        world.nex(&["devrun", TELLER, wrong]).expect(2).says(&["--argv cannot be split into words"]);
    }
    world.nex(&["devrun", TELLER, "novalue"]).expect(2).says(&["write it as KEY=value"]);
    world.nex(&["devrun", TELLER, "--trigger_subject", "a"]).expect(2).says(&["is not called by subjects"]);
}

fn each_file(dir: &Path, see: &mut impl FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            each_file(&path, see);
        } else if kind.is_file() {
            // The teller itself is large and holds no secret; what cannot be read is of a sandbox that ends.
            std::fs::read(&path).map(|content| see(&path, &content)).ok();
        }
    }
}

/// Command lines that contain a text.
fn listed_with(text: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(text)).collect()
}

#[test]
fn without_a_node_it_says_so_and_exits_4() {
    let world = World::with_nats();
    let script = world.file("echo.js", guest::ECHO_JS);
    let ended = world.nex(&["devrun", &script, "--timeout", "300ms"]).expect(4);
    ended.says(&["unable to locate candidate node - no nodes discovered", "next: start one with `nex up`"]);
}

#[test]
fn a_namespace_has_its_own_workloads() {
    let world = World::new();
    let _up = world.up(&[]);
    let script = world.file("echo.js", guest::ECHO_JS);
    world.nex(&["devrun", &script, "--trigger_subject", "fn.one"]).expect(0);
    world.nex(&["devrun", &script, "--trigger_subject", "fn.two", "--namespace", "other"]).expect(0).says_not("already exists");
    let hints =
        world.nex(&["devrun", &script, "--namespace", "other", "-s", &world.url(), "--trigger_subject", "fn.two"]).expect(0);
    let told = |command: &str| format!("nex -s {} --namespace other {command}", world.url());
    hints.says(&[&told("logs echojs"), &told("call fn.two"), &told("stop ")]);
    let ours = world.ps();
    let theirs = world.nex(&["ps", "--json", "--namespace", "other"]).expect(0).json();
    assert_eq!((&ours[0]["triggers"][0], &theirs[0]["triggers"][0]), (&"fn.one".into(), &"fn.two".into()));
    assert_eq!((ours.len(), theirs.as_array().unwrap().len()), (1, 1));
    world.nex(&["stop", theirs[0]["id"].as_str().unwrap()]).expect(1).says(&["No such workload"]);
}
