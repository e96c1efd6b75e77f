//! `--isolation`, and the same in `nex.toml`: how far a workload is kept apart, asked for and shown.

use nex_testkit::guest;

use crate::world::World;

#[test]
fn a_function_is_kept_apart_as_it_is_asked_for_and_that_is_shown() {
    let world = World::new();
    let _up = world.up(&[]);
    let function = world.file("greet.mjs", guest::GREET_MJS);
    let service = world.file("service.sh", "#!/bin/sh\nexec sleep 1000\n");
    for name in ["one", "two"] {
        world.nex(&["devrun", &function, "--name", name, "--isolation", "isolate"]).expect(0);
        world.nex(&["call", name, "you"]).expect(0).says(&["Hello, you!"]);
    }
    world.nex(&["devrun", &function, "--name", "own", "--isolation", "process"]).expect(0);
    world.nex(&["devrun", &service]).expect(0);
    let isolations = |name: &str| -> Vec<String> {
        let all = world.ps();
        let named = all.iter().filter(|workload| workload["name"] == name);
        named.map(|workload| workload["isolation"].as_str().unwrap().to_owned()).collect()
    };
    for (name, isolation) in [("one", "isolate"), ("two", "isolate"), ("own", "process"), ("servicesh", "process")] {
        assert_eq!(isolations(name), [isolation], "{name}");
    }
    world.nex(&["describe", "one"]).expect(0).says(&["Isolation", "isolate"]);
    world.nex(&["ps"]).expect(0).says(&["Isolation"]);

    // What cannot be is refused: before anything is sent, or by the node, which says why it makes no bid.
    world
        .nex(&["devrun", &service, "--isolation", "isolate"])
        .expect(2)
        .says(&["a service shares no agent with others", "next: "]);
    world.nex(&["devrun", &function, "--isolation", "none"]).expect(2).says(&["expected isolate, process or microvm"]);
    let refused = world.nex(&["devrun", &function, "--isolation", "microvm"]).expect(4);
    refused.says(&["no node takes this workload", "give isolate,process, not microvm"]);

    world.file("nex.toml", "project = 'p'\n[workloads.three]\nfile = 'greet.mjs'\nisolation = 'isolate'\n");
    world.nex(&["apply"]).expect(0).says(&["✅ Applied"]);
    world.nex(&["apply"]).expect(0).says(&["= three: unchanged, 1 copy"]);
    assert_eq!(isolations("three"), ["isolate"]);
    world.file("nex.toml", "project = 'p'\n[workloads.three]\nfile = 'greet.mjs'\nisolation = 'process'\n");
    world.nex(&["apply"]).expect(0).says(&["~ three: replace 1 copy: its settings have changed"]);
    assert_eq!(isolations("three"), ["process"]);
}
