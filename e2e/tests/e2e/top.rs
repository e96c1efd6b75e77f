//! `nex top`: what is used is what is really used, and it fits a terminal.

use serde_json::Value;

use crate::world::World;

fn of(told: &Value, name: &str) -> Value {
    told["workloads"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{told}")).clone()
}

#[test]
fn the_busy_one_is_busy_and_the_calm_one_is_not() {
    let world = World::new();
    let _up = world.up(&[]);
    world.nex(&["top", "--once", "--interval", "200ms"]).expect(0).says(&["Nodes", "No workloads"]);
    let busy = world.file("busy.sh", "#!/bin/sh\nwhile :; do :; done\n");
    // It holds what it has read in memory.
    let holding = world
        .file("holding.sh", "#!/bin/sh\nx=$(head -c 30000000 /dev/zero | tr '\\0' x)\necho ready\nwhile :; do sleep 1; done\n");
    for file in [&busy, &holding] {
        world.nex(&["devrun", file]).expect(0);
    }
    world.eventually("it is large", || world.nex(&["logs", "holdingsh", "--tail", "5"]).expect(0).text().contains("ready"));
    let told = world.nex(&["top", "--once", "--interval", "1s", "--json"]).expect(0).json();
    let (busy, holding) = (of(&told, "busysh"), of(&told, "holdingsh"));
    let number = |it: &Value, name: &str| it[name].as_f64().unwrap_or_else(|| panic!("{name} of {it}"));
    assert!(number(&busy, "cpu_percent") > 3.0 * number(&holding, "cpu_percent"), "{told}");
    assert!(number(&holding, "memory_bytes") > 25e6 && number(&busy, "memory_bytes") < 25e6, "{told}");
    let node = &told["nodes"][0];
    assert!(node["workloads"] == 2 && number(node, "memory_total_bytes") > 1e8 && number(node, "cpu_percent") > 0.0, "{told}");
    let text = world.nex(&["top", "--once", "--interval", "300ms", "--sort", "memory"]).expect(0).text();
    let at = |name: &str| text.find(name).unwrap_or_else(|| panic!("{text}"));
    assert!(at("holdingsh") < at("busysh"), "{text}");
    world.nex(&["top", "--once", "--limit", "1", "--interval", "200ms"]).expect(0).says(&["busysh", "and 1 more"]);
    let live = world.start(&["top", "--interval", "200ms", "--json"]);
    world.eventually("it goes on", || live.out().lines().count() > 2);
    for line in live.interrupt().expect(0).text().lines() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["nodes"].as_array().map(Vec::len), Some(1));
    }
    world.nex(&["top", "--interval", "0s"]).expect(2);
}
