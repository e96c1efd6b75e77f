//! Machines come and go; the host stays as it was.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nex_testkit::skip;

use crate::guests::{host_state, monitors, obstacle, on_a_host, world};
use crate::leftovers::{Watch, of_guests};

/// Deploys and stops in turn, unless `NEX_CYCLES` says how many.
const CYCLES: usize = 8;

#[test]
fn after_many_deploys_and_stops_there_is_no_more_on_the_host_than_before() {
    if let Some(why) = obstacle() {
        skip!("after_many_deploys_and_stops_there_is_no_more_on_the_host_than_before", why);
    }
    let cycles = std::env::var("NEX_CYCLES").map_or(CYCLES, |cycles| cycles.parse().unwrap());
    on_a_host(move || {
        let world = world();
        let state = world.path("state");
        let before = host_state();
        let node = world.node_up(&["--pool-size", "1"]);
        let script = world.file("hello.js", "() => 'hello'");
        let deploy = || {
            world.nex(&["devrun", &script, "--name", "hello", "--trigger_subject", "fn.hello"]).expect(0);
            world.nex(&["call", "fn.hello", ""]).expect(0).says(&["hello"]);
            world.nex(&["stop", "hello"]).expect(0);
            world.eventually("one machine is warm", || {
                world.ps().is_empty() && world.nodes()[0]["warm_agents"] == 1 && monitors(&state).len() == 1
            });
        };
        // The first one leaves what is kept: the artifact and its drive.
        deploy();
        let (files, descriptors) = (files(&state), descriptors(node.pid()));
        let began = Instant::now();
        for _ in 0..cycles {
            deploy();
        }
        println!("{cycles} deploys, calls and stops in {:?}", began.elapsed());
        assert_eq!(monitors(&state).len(), 1);
        let now = self::files(&state);
        assert_eq!(now.difference(&files).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
        let open = self::descriptors(node.pid());
        assert!(open <= descriptors + 2, "{open} descriptors are open, {descriptors} were");

        let id = world.node_id();
        let mut watch = Watch::new(node.pid());
        watch.look();
        node.interrupt().expect(0);
        assert_eq!(watch.left(&state), Vec::<String>::new());
        assert_eq!(of_guests(&id, &state), Vec::<String>::new());
        assert_eq!((monitors(&state), host_state()), (vec![], before));
    });
}

/// Every file below a directory, but for those of the one machine that is always there.
fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.parent().unwrap().ends_with("agents") {
            found.extend(files(&path));
        } else if path.is_dir() {
            found.insert(path.with_file_name("a machine"));
        } else {
            found.insert(path);
        }
    }
    found
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
