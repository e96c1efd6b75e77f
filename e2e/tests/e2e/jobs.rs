//! Jobs: run, waited for, and asked about when they have ended.

use serde_json::Value;

use crate::world::World;

#[test]
fn a_job_that_is_waited_for_prints_what_it_writes_and_ends_as_it_did() {
    let world = World::new();
    let up = world.up(&[]);
    let good = world.file("good.sh", "#!/bin/sh\nsleep 0.3\nseq 1 200\necho careful >&2\n");
    let ended = world.nex(&["devrun", &good, "--job", "--wait"]).expect(0);
    let lines: String = (1..=200).map(|number| format!("{number}\n")).collect();
    assert_eq!(ended.text(), lines);
    assert!(ended.stderr.contains("careful"), "{}", ended.stderr);
    let bad = world.file("bad.sh", "#!/bin/sh\necho tried\nexit 7\n");
    let ended = world.nex(&["devrun", &bad, "--job", "--retries", "1", "--wait"]).expect(7);
    assert_eq!(ended.text(), "tried\ntried\n");
    ended.says(&["the job has failed with exit code 7", "starting again in"]);
    let slow = world.file("slow.sh", "#!/bin/sh\ntrap '' INT TERM\necho began\nwhile :; do sleep 0.1; done\n");
    let flags = ["devrun", &slow, "--job", "--deadline", "2s", "--stop-grace", "200ms", "--wait", "--json"];
    let ended = world.nex(&flags).expect(124);
    let told: Vec<Value> = ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&told[0]["text"], &told.last().unwrap()["cause"]), (&"began".into(), &"deadline".into()));
    world.nex(&["devrun", &good, "--wait"]).expect(2).says(&["--job"]);

    up.interrupt().expect(0);
    let _up = world.up(&[]);
    let all = world.nex(&["ps", "--all", "--json"]).expect(0).json();
    let codes: Vec<_> =
        all.as_array().unwrap().iter().map(|it| (it["name"].as_str().unwrap(), it["code"].as_i64().unwrap())).collect();
    assert_eq!(codes, [("goodsh", 0), ("badsh", 7), ("slowsh", -1)], "{all}");
    world.nex(&["ps", "--all"]).expect(0).says(&["Ended lately", "deadline"]);
    world.nex(&["logs", "badsh", "--tail", "5"]).expect(0).says(&["tried"]);
}

#[test]
fn a_job_of_a_file_is_run_until_it_has_ended_well_and_then_no_more() {
    let world = World::new();
    let _up = world.up(&[]);
    world.file("job.sh", "#!/bin/sh\necho done $MODE\n[ \"$MODE\" = good ]\n");
    let file = |mode: &str| {
        world.file(
            "nex.toml",
            format!("project = 'p'\n[workloads.job]\nfile = 'job.sh'\njob = true\nenvironment = {{ MODE = '{mode}' }}\n"),
        );
    };
    let runs = |count: usize| {
        world.eventually("it has ended", || {
            let all = world.nex(&["ps", "--all", "--json"]).expect(0).json();
            all.as_array().unwrap().iter().filter(|it| it["state"] == "ended").count() == count
        });
    };
    file("bad");
    world.nex(&["apply"]).expect(0).says(&["+ job: start 1 copy"]);
    runs(1);
    world.nex(&["apply"]).expect(0).says(&["+ job: start 1 copy"]);
    runs(2);
    file("good");
    world.nex(&["apply"]).expect(0).says(&["+ job: start 1 copy"]);
    runs(3);
    world.nex(&["apply"]).expect(0).says(&["= job: unchanged, 1 copy", "All is as it should be"]);
}
