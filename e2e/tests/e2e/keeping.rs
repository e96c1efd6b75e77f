//! Services with policies, by flags and by file.

use crate::world::World;

#[test]
fn a_service_is_accepted_when_it_is_well_and_replaced_by_none_that_is_not() {
    let world = World::new();
    let _up = world.up(&[]);
    let well = world.file("well.sh", "#!/bin/sh\nsleep 0.5; touch /tmp/well; echo well\nexec sleep 1000\n");
    let check = ["--health", "cmd:test -f /tmp/well", "--health-interval", "200ms"];
    let flags =
        [&["devrun", &well, "--name", "service", "--restart", "on-failure", "--stop-signal", "TERM"], &check[..]].concat();
    world.nex(&[&flags[..], &["--health-threshold", "50"]].concat()).expect(0).says(&["accepted"]);
    let before = world.ps();
    assert_eq!((before.len(), before[0]["state"].as_str()), (1, Some("running")));
    let sick = world.file("sick.sh", "#!/bin/sh\necho 'no database' >&2\nexec sleep 1000\n");
    let flags = [&["devrun", &sick, "--name", "service"], &check[..]].concat();
    let failed = world.nex(&flags).expect(1);
    failed.says(&["did not pass its health check within 0.6 s", "no database", "the old copy still runs"]);
    assert_eq!(world.ps()[0]["id"], before[0]["id"]);
    world.nex(&["devrun", &well, "--restart", "sometimes"]).expect(2).says(&["always, on-failure or never"]);
    world.nex(&["devrun", &well, "--health", "ping"]).expect(2).says(&["cmd:WORDS, tcp:PORT, http:PORT/PATH or nats:SUBJECT"]);
    // A file says the same.
    let file = "project = 'p'\n[workloads.service]\nfile = 'well.sh'\nrestart = 'always'\nstop_signal = 'SIGTERM'\n\
                health = 'cmd:test -f /tmp/well'\nhealth_interval = '200ms'\nhealth_threshold = 50\n";
    world.file("nex.toml", file);
    world.nex(&["apply"]).expect(0).says(&["~ service: replace 1 copy"]);
    world.nex(&["apply"]).expect(0).says(&["= service: unchanged, 1 copy"]);
    world.file("nex.toml", file.replace("= 50", "= 60"));
    world.nex(&["apply"]).expect(0).says(&["its settings have changed"]);
    world.nex(&["stop", "service"]).expect(0);
}

#[test]
fn a_service_hears_of_signals_that_its_node_was_started_without() {
    let world = World::with_nats();
    let node = world.start_command(world.command("nohup", &["nex", "node", "up"]));
    node.waits_for("is ready");
    let service = world.file("service.sh", "#!/bin/sh\ngrep SigIgn /proc/self/status\nexec sleep 1000\n");
    world.nex(&["devrun", &service, "--name", "service"]).expect(0);
    let mut ignored = None;
    world.eventually("it says what it ignores", || {
        let said = world.nex(&["logs", "service", "--tail", "5"]).text();
        ignored = said.split("SigIgn:").nth(1).and_then(|rest| u64::from_str_radix(rest.split_whitespace().next()?, 16).ok());
        ignored.is_some()
    });
    assert_eq!(ignored.unwrap() & 1, 0, "SIGHUP is the first: {ignored:x?}");
    node.interrupt().expect(0);
    assert_eq!(world.processes(), []);
}

#[test]
fn a_deploy_that_is_interrupted_says_that_it_goes_on() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("service.sh", "#!/bin/sh\nexec sleep 1000\n");
    let line =
        ["devrun", &file, "--name", "service", "--health", "tcp:1", "--health-interval", "1s", "--health-threshold", "100"];
    let deploy = world.start(&line);
    world.eventually("it is being checked", || world.ps().iter().any(|it| it["state"] == "starting"));
    deploy.interrupt().expect(130).says(&["interrupted", "next: a deploy that a node has begun goes on there"]);
    world.nex(&["stop", "service"]).expect(0);
}
