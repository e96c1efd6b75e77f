//! The version before, brought back: as it was deployed, in place of every copy, by nobody but who deployed it.

use serde_json::Value;

use crate::world::World;

fn reply(world: &World) -> String {
    String::from_utf8_lossy(&world.nex(&["call", "greetjs", ""]).expect(0).stdout).trim().trim_matches('"').to_owned()
}

fn id(deployed: &Value) -> String {
    deployed["id"].as_str().unwrap().to_owned()
}

#[test]
fn the_version_before_comes_back_with_all_that_it_had_and_once_more_is_forward_again() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("greet.js", "(subject) => 'one ' + subject");
    world.nex(&["rollback", "greetjs"]).expect(1).says(&["no other version of 'greetjs'", "next: "]);
    let triggers = ["--trigger_subject", "greetjs", "--trigger_subject", "old.greet"];
    let one = world.nex(&[&["devrun", &file, "--json"], &triggers[..]].concat()).expect(0).json();
    world.nex(&["rollback", "greetjs"]).expect(1).says(&["no other version of 'greetjs'"]);

    world.file("greet.js", "() => 'two'");
    let two = world.nex(&["devrun", &file, "--json"]).expect(0).json();
    assert_eq!(reply(&world), "two");
    world.nex(&["rollback", "greetjs", "--dry-run"]).expect(0).says(&[&id(&one), "replace the copy that runs"]);
    assert_eq!(reply(&world), "two", "a dry run does nothing");
    // The same version deployed again is no other one.
    let again = world.nex(&["devrun", &file, "--json"]).expect(0).json();

    let back = world.nex(&["rollback", "greetjs", "--json"]).expect(0).json();
    assert_eq!((&back["replaced"][0], &back["digest"]), (&again["id"], &one["digest"]), "{back}");
    assert_eq!(reply(&world), "one greetjs");
    world.nex(&["call", "old.greet", ""]).expect(0).says(&["one old.greet"]);

    world.nex(&["rollback", "greetjs"]).expect(0).says(&["Replaced "]);
    assert_eq!(reply(&world), "two");
    world.nex(&["rollback", "greetjs", "--to", &id(&one)]).expect(0);
    assert_eq!(reply(&world), "one greetjs");
    world.nex(&["rollback", "greetjs", "--to", &id(&two)]).expect(0);
    assert_eq!(reply(&world), "two");
    world.nex(&["rollback", "greetjs", "--to", "nobody"]).expect(1).says(&["no workload nobody of ours", "next: "]);
}

#[test]
fn what_was_stopped_runs_again_with_its_environment_and_as_many_copies() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("say.sh", "#!/bin/sh\necho \"$WORD\"\nexec sleep 1000\n");
    world.nex(&["devrun", &file, "WORD=hello", "--copies", "2"]).expect(0);
    world.nex(&["stop", "saysh"]).expect(0);
    assert!(world.ps().is_empty());
    world.nex(&["rollback", "saysh", "--dry-run"]).expect(0).says(&["start it again; no copy runs"]);
    world.nex(&["rollback", "saysh"]).expect(0);
    assert_eq!(world.ps().len(), 2);
    world.nex(&["logs", "saysh", "--tail", "20"]).expect(0).says(&["hello"]);
}

#[test]
fn a_stranger_and_another_file_bring_nothing_back() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("greet.js", "() => 'one'");
    let one = world.nex(&["devrun", &file, "PASSWORD=hush", "--json"]).expect(0).json();
    world.file("greet.js", "() => 'two'");
    world.nex(&["devrun", &file]).expect(0);
    // Of another issuer's workloads nothing is brought back, and another curve key opens nothing.
    let issuer = world.file("other.nk", nkeys::KeyPair::new_account().seed().unwrap());
    world.nex(&["rollback", "greetjs", "--issuer", &issuer]).expect(1).says(&["no other version of 'greetjs' of ours"]);
    let curve = world.file("other.xk", nkeys::XKey::new().seed().unwrap());
    world.nex(&["rollback", "greetjs", "--xkey", &curve]).expect(1).says(&["told to nobody but the curve key", "next: "]);
    world.nex(&["ps", "-a", "--json"]).expect(0).says_not("hush");
    // Its file is gone.
    world.nex(&["artifact", "rm", one["location"].as_str().unwrap(), "--force"]).expect(0);
    world.nex(&["rollback", "greetjs"]).expect(1).says(&["is not to be had any more", "still runs"]);
    assert_eq!(reply(&world), "two");
}
