//! What the documents show is what happens: the commands in them, and the example program.
//!
//! A block of `sh` is run when the line right above its fence is `<!-- test -->`: in a directory with the repository's
//! examples and programs, against a running `nex up`.

use std::path::{Path, PathBuf};

use nex_testkit::{dist_binary, guest, skip};

use crate::triggers::stream;
use crate::world::World;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The marked blocks of a document.
fn marked(document: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "<!-- test -->" {
            let fence = lines.next().unwrap_or_default().trim();
            assert_eq!(fence, "```sh", "a marked block is one of sh");
            let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

/// Commands that never end by themselves.
fn stays(line: &str) -> bool {
    ["nex logs", "nex events", "nex up", "nex node up"].iter().any(|start| line.starts_with(start))
}

fn run(world: &World, block: &str) {
    let lines = || block.lines().map(|line| line.trim().strip_prefix("$ ").unwrap_or(line.trim()));
    let usage = std::fs::read_to_string(repository().join("xtask/src/main.rs")).unwrap();
    for task in lines().filter_map(|line| line.strip_prefix("cargo xtask ")) {
        let name = task.split_whitespace().next().unwrap_or_default();
        assert!(usage.contains(&format!("\n  {name} ")), "there is no 'cargo xtask {name}'");
    }
    let mut tails = Vec::new();
    for line in lines().filter(|line| stays(line) && !line.starts_with("nex up")) {
        let words: Vec<&str> = line.split('#').next().unwrap().split_whitespace().skip(1).filter(|word| *word != "&").collect();
        let tail = world.start(&words);
        tail.waits_for("atching");
        tails.push(tail);
    }
    let elsewhere = |line: &&str| ["cargo ", "git ", "cd ", "docker "].iter().any(|start| line.starts_with(start));
    let script: Vec<&str> = lines().filter(|line| !stays(line)).filter(|line| !elsewhere(line)).collect();
    let mut command = world.command("sh", &["-euc", &script.join("\n")]);
    command.current_dir(world.path("repository"));
    world.end(command).expect(0);
    for tail in tails {
        tail.interrupt().expect(0);
    }
}

/// Documents for users.
const DOCUMENTS: [&str; 6] =
    ["README.md", "CONTRIBUTING.md", "examples/functions/README.md", "docs/triggers.md", "docs/secrets.md", "docs/new.md"];

#[test]
fn the_marked_commands_of_the_documents_work() {
    let read = |name: &str| std::fs::read_to_string(repository().join(name)).unwrap_or_default();
    let blocks: Vec<String> = DOCUMENTS.iter().flat_map(|name| marked(&read(name))).collect();
    if blocks.is_empty() {
        skip!("the_marked_commands_of_the_documents_work", "no block is marked by <!-- test -->");
    }
    let world = World::new();
    stage(&world);
    let _up = world.up(&[]);
    // The one that documents speak of.
    stream(&world, "ORDERS", "orders.>");
    for block in blocks {
        run(&world, &block);
    }
}

#[test]
fn the_marked_commands_about_images_work() {
    const TEST: &str = "the_marked_commands_about_images_work";
    if !nix::unistd::geteuid().is_root() {
        skip!(TEST, "images need root");
    }
    if nex_testkit::image::busybox().is_none() {
        skip!(TEST, "no busybox");
    }
    let world = World::new();
    let script = std::fs::read(repository().join("examples/images/hello.sh")).unwrap();
    world.file("repository/examples/images/hello.sh", script);
    let _up = world.up(&[]);
    for block in marked(&std::fs::read_to_string(repository().join("docs/images.md")).unwrap()) {
        run(&world, &block);
    }
}

/// What a checkout has: the examples, and the programs that were built. What documents write stays in this world.
fn stage(world: &World) {
    for name in ["echo.js", "greet.mjs", "kv-counter.js", "echo.wat"] {
        let text = std::fs::read(repository().join("examples/functions").join(name)).unwrap();
        world.file(&format!("repository/examples/functions/{name}"), &text);
        world.file(&format!("repository/{name}"), text);
    }
    let manifest = std::fs::read(repository().join("examples/nex.toml")).unwrap();
    world.file("repository/examples/nex.toml", manifest);
    for place in ["repository/echo.wasm", "repository/examples/functions/echo.wasm"] {
        world.file(place, guest::assemble(guest::ECHO_WAT));
    }
    std::fs::create_dir(world.path("repository/target")).unwrap();
    std::os::unix::fs::symlink(dist_binary("nex").parent().unwrap(), world.path("repository/target/dist")).unwrap();
}

#[test]
fn blocks_are_found_by_their_mark_only() {
    let text = "a\n```sh\nnex no\n```\n<!-- test -->\n```sh\nnex ps\nnex call a b\n```\n";
    assert_eq!(marked(text), ["nex ps\nnex call a b"]);
}

#[test]
fn the_example_program_deploys_calls_and_stops() {
    let here = std::env::current_exe().unwrap();
    let example = here.ancestors().map(|dir| dir.join("examples/deploy_and_call")).find(|file| file.is_file());
    let Some(example) = example else {
        skip!("the_example_program_deploys_calls_and_stops", "it is not built: `cargo test --workspace` builds examples");
    };
    let world = World::new();
    let _up = world.up(&[]);
    let ended = world.end(world.command(example.to_str().unwrap(), &[world.context_file().to_str().unwrap()]));
    assert_eq!(ended.expect(0).text(), "\"hello, world\"\n", "a function's result is JSON");
    assert!(world.ps().is_empty());
}
