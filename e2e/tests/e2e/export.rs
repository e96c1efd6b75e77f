//! `nex export`: what runs becomes a file, and applying that changes nothing.

use std::os::unix::fs::PermissionsExt as _;

use nex_testkit::guest;

use crate::world::World;

const SERVICE: &str = "#!/bin/sh\necho \"$WORDS\"\nexec sleep 1000\n";

#[test]
fn what_runs_is_written_and_applying_it_changes_nothing() {
    let mut world = World::new();
    let _up = world.up(&["--tag", "region=eu"]);
    let node = world.node_id();
    world.nex(&["export"]).expect(1).says(&["nothing of ours runs"]);
    let service = world.file("service.sh", SERVICE);
    let greet = world.file("greet.mjs", guest::GREET_MJS);
    world.nex_reading(&["secret", "set", "db"], b"hunter2").expect(0);
    let policy = ["--restart", "always", "--stop-signal", "TERM", "--stop-grace", "3s", "--settle", "none"];
    let environment = ["WORDS=two words\nand a line", "PASSWORD=secret:db", "--argv", "-v 'two words'"];
    world.nex(&[&["devrun", &service][..], &policy, &environment].concat()).expect(0);
    world.nex(&["devrun", &greet, "--trigger_subject", "fn.greet", "--memory-mib", "32", "--copies", "2"]).expect(0);
    world.nex(&["devrun", &greet, "--name", "plain"]).expect(0);
    world.nex(&["devrun", &greet, "--name", "placed", "--node", &node, "--tag", "region=eu", "--spread"]).expect(0);
    let toml = "project = 'shop'\n[workloads.applied]\nfile = 'service.sh'\nenvironment = { WORDS = 'x' }\nhealth = 'cmd:true'\n";
    world.file("shop/nex.toml", toml);
    world.file("shop/service.sh", SERVICE);
    world.nex(&["apply", "shop/nex.toml"]).expect(0);

    world.nex(&["export", "all.toml"]).expect(0).says(&["✅ Wrote all.toml, and 2 values"]);
    let written = std::fs::read_to_string(world.path("all.toml")).unwrap();
    assert!(!written.contains("two words\\nand") && !written.contains("hunter2"), "{written}");
    assert!(written.contains("project = \"shop\"") && written.contains("secret = \"db\""), "{written}");
    assert!(written.contains(&format!("nodes = [\"{node}\"]")) && written.contains("spread = true"), "{written}");
    assert!(written.contains("[workloads.placed.tags]\nregion = \"eu\""), "{written}");
    for file in ["all.toml", "all.env/servicesh/WORDS"] {
        let mode = std::fs::metadata(world.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let planned = world.nex(&["apply", "all.toml", "--dry-run"]).expect(0);
    let unchanged = [
        "= applied: unchanged, 1 copy",
        "= greetmjs: unchanged, 2 copies",
        "= plain: unchanged",
        "= placed: unchanged",
        "= servicesh: unchanged",
    ];
    planned.says(&unchanged).says(&["All is as it should be"]);

    world.nex(&["export", "all.toml"]).expect(2).says(&["is there already", "--force"]);
    world.nex(&["export", "all.toml", "--force", "--name", "plain"]).expect(0).says(&["0 values"]);
    world.nex(&["export", "-"]).expect(0).says(&["[workloads.greetmjs]"]).says_not("two words\\nand");
    // Stopped and applied, it is as it was.
    world.nex(&["export", "again.toml"]).expect(0);
    world.nex(&["stop", "servicesh"]).expect(0);
    world.nex(&["apply", "again.toml"]).expect(0).says(&["+ servicesh: start 1 copy"]);
    world.nex(&["logs", "servicesh", "--tail", "5"]).expect(0).says(&["two words", "and a line"]);

    // What a deployer said is told to nobody else.
    world.file("elsewhere/.nex/issuer.nk", std::fs::read(world.path("home/.nex/issuer.nk")).unwrap());
    world.set("HOME", &world.text_path("elsewhere"));
    world.nex(&["export", "other.toml"]).expect(0).says(&["Left out 'servicesh': another curve key", "0 values"]);
}
