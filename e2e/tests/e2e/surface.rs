//! What is there without any server: help, version, completion.

use crate::world::World;

/// Every command, with the commands above it.
const COMMANDS: [&[&str]; 18] = [
    &[],
    &["up"],
    &["node"],
    &["node", "up"],
    &["node", "preflight"],
    &["node", "ls"],
    &["node", "info"],
    &["node", "probe"],
    &["node", "lameduck"],
    &["devrun"],
    &["run"],
    &["stop"],
    &["call"],
    &["ps"],
    &["logs"],
    &["events"],
    &["rootfs"],
    &["completion"],
];

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
    for alias in [&["nodes", "ls", "--help"][..], &["yeet", "--help"], &["fs", "--help"]] {
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
        assert!(script.contains("devrun") && script.contains("preflight"), "{shell}");
        let file = world.file(&format!("completion.{shell}"), &script);
        let there = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(shell).is_file());
        if matches!(shell, "bash" | "zsh" | "fish") && there {
            world.end(world.command(shell, &["-n", &file])).expect(0);
        }
    }
    world.nex(&["completion", "tcsh"]).expect(2);
}
