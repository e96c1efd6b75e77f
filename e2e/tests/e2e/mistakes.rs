//! The tables of `docs/mistakes.md`, run line by line: each ends with its code, and its text says what to do.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;

use nex_testkit::NatsOptions;

use crate::world::World;

/// A line of a table.
struct Mistake {
    what: String,
    words: Vec<String>,
    code: i32,
    text: String,
}

/// The lines of the document, by the world that they are made in.
fn documented() -> BTreeMap<String, Vec<Mistake>> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/mistakes.md");
    let text = std::fs::read_to_string(document).unwrap();
    let (mut place, mut found) = (String::new(), BTreeMap::<String, Vec<Mistake>>::new());
    for line in text.lines() {
        if let Some(named) = line.strip_prefix("<!-- mistakes: ").and_then(|rest| rest.strip_suffix(" -->")) {
            named.clone_into(&mut place);
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [what, command, code, text] = cells.as_slice() else { continue };
        let (Some(command), Ok(code)) = (command.strip_prefix("`nex ").and_then(|rest| rest.strip_suffix('`')), code.parse())
        else {
            continue;
        };
        let words = shlex::split(command).unwrap_or_else(|| panic!("{line}"));
        found.entry(place.clone()).or_default().push(Mistake { what: (*what).to_owned(), words, code, text: (*text).to_owned() });
    }
    found
}

/// The files that the lines name.
fn stage(world: &World) {
    let files: [(&str, &[u8]); 28] = [
        ("echo.js", b"(subject, payload) => payload\n"),
        ("bad.js", b"(a, b => {"),
        ("empty.js", b""),
        ("my file.js", b"() => 1\n"),
        ("enum.ts", b"enum A { B }\nexport default () => A.B;\n"),
        ("README.md", b"# hello\n"),
        ("photo.png", b"\x89PNG\r\n\x1a\n"),
        ("echo.c", b"int main(){}"),
        ("echo.wat", b"(module)"),
        ("python.py", b"print(1)\n"),
        ("service.sh", b"#!/bin/sh\nexec sleep 1000\n"),
        ("crash.sh", b"#!/bin/sh\necho it broke >&2\nexit 7\n"),
        ("crlf.sh", b"#!/bin/sh\r\necho hi\r\n"),
        ("nopy", b"#!/usr/bin/python99\n"),
        ("mac", b"\xcf\xfa\xed\xfe\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("wrong.env", b"A s3cret\n"),
        ("cert.pem", b"x"),
        ("typo.toml", b"[workloads.a]\nfiel = 'echo.js'\n"),
        ("empty.toml", b"[workloads.a]\n"),
        ("none.toml", b"[workloads.a]\nfile = 'echo.js'\ncopies = 0\n"),
        ("typo.json", b"{\"machine_pool_sise\": 1}"),
        ("list.json", b"[]"),
        ("zero.json", b"{\"workload_limits\": {\"memory_mib\": 0}}"),
        ("over.json", b"{\"workload_limits\": {\"memory_mib\": 512, \"max_memory_mib\": 256}}"),
        ("vast.json", b"{\"workload_limits\": {\"memory_mib\": 18446744073709551615}}"),
        ("never.json", b"{\"deploy_timeout_ms\": 0}"),
        ("shop.zip", b"PK\x03\x04"),
        ("home/.keep", b""),
    ];
    for (name, content) in files {
        world.file(name, content);
    }
}

/// Runs them all, and says of all at once which are not as the document says.
fn check(world: &World, mistakes: &[Mistake], named: &[(&str, String)]) {
    stage(world);
    let mut wrong = Vec::new();
    for Mistake { what, words, code, text } in mistakes {
        let words: Vec<String> =
            words.iter().map(|word| named.iter().fold(word.clone(), |word, (name, value)| word.replace(name, value))).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ended = world.nex(&words);
        let said = format!("{}{}", ended.text(), ended.stderr);
        if ended.code != *code || !said.contains(text.as_str()) {
            wrong.push(format!("{what}: nex {}\n  expected {code} and '{text}', got {}:\n{said}", words.join(" "), ended.code));
        }
        if said.contains("Usage: ") && said.contains("--server") {
            wrong.push(format!("{what}: nex {}\n  names a flag that a variable gives:\n{said}", words.join(" ")));
        }
        // A program gets the same as one object, and nothing else.
        let told = world.nex(&[&["--json"], words.as_slice()].concat());
        let object = told.stderr.lines().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        match object {
            Some(object) if object["exit_code"] == *code && object["error"].is_string() => {}
            _ => wrong.push(format!(
                "{what}: nex --json {}\n  is no JSON with exit code {code}:\n{}",
                words.join(" "),
                told.stderr
            )),
        }
        assert!(!said.contains("s3cret"), "{said}");
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), mistakes.len(), wrong.join("\n"));
}

#[test]
fn there_are_fifty_of_them_and_more() {
    let all = documented();
    assert!(all.values().map(Vec::len).sum::<usize>() >= 70, "{:?}", all.keys());
    assert_eq!(all.keys().collect::<Vec<_>>(), ["nex up", "nothing runs", "password", "strangers"]);
}

#[test]
fn mistakes_before_anything_is_sent_say_what_to_do() {
    check(&World::new(), &documented()["nothing runs"], &[]);
}

#[test]
fn mistakes_with_a_node_say_what_to_do() {
    let world = World::new();
    let _up = world.up(&[]);
    check(&world, &documented()["nex up"], &[]);
}

#[test]
fn mistakes_on_a_server_that_asks_who_one_is_say_what_to_do() {
    let config = "authorization { users: [{ user: me, password: s3cret }] }".to_owned();
    check(&World::with_nats_like(NatsOptions { config, ..NatsOptions::default() }), &documented()["password"], &[]);
}

#[test]
fn mistakes_where_something_else_listens_say_what_to_do() {
    let (silent, ssh) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port().to_string();
    let named = [("{silent}", port(&silent)), ("{ssh}", port(&ssh))];
    // They end with the test's process; nobody waits for them.
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in ssh.incoming().flatten() {
            let mut stream = stream;
            drop(stream.write_all(b"SSH-2.0-OpenSSH\r\n"));
            held.push(stream);
        }
    });
    std::thread::spawn(move || silent.incoming().flatten().collect::<Vec<_>>());
    check(&World::new(), &documented()["strangers"], &named);
}
