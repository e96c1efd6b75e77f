//! Groups on this very host. What it does not have is skipped aloud.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use nex_process::cgroup::{CgroupLimits, Cgroups, Controller};
use nex_process::{ChildSpec, Deadline};

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

fn usable(test: &str, wanted: &[Controller]) -> Option<Cgroups> {
    let cgroups = Cgroups::detect();
    if wanted.iter().all(|controller| cgroups.controllers().contains(controller)) {
        return Some(cgroups);
    }
    nex_testkit::skip!(test, cgroups.layer().reason.unwrap(), None);
}

fn name(test: &str) -> String {
    format!("nex-test-{test}-{}", std::process::id())
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["", "..", "a/b", ".hidden", "a\nb", &"x".repeat(200)] {
        assert!(Cgroups::default().create(name, &CgroupLimits::default()).is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn a_fork_bomb_stays_in_its_group_and_goes_with_it() {
    let Some(cgroups) = usable("fork bomb", &[Controller::Pids]) else { return };
    let limits = CgroupLimits { pids: Some(20), ..CgroupLimits::default() };
    let group = cgroups.create(&name("bomb"), &limits).unwrap();
    // Reads first, so that it is in the group before it does anything.
    let bomb = ChildSpec::new("/bin/sh")
        .args(["-c", "read x; b() { b | b & }; b; sleep 60"])
        .stdin(nex_process::Stdin::Held)
        .spawn()
        .unwrap();
    group.add(bomb.id().pid).unwrap();
    bomb.feed(b"go\n").await.unwrap();
    let full = group.paths().iter().map(|dir| dir.join("pids.events")).find(|path| path.exists()).unwrap();
    let hit = async {
        while std::fs::read_to_string(&full).unwrap().trim() == "max 0" {
            tokio::task::yield_now().await;
        }
    };
    soon().bound(hit).await.unwrap();
    group.destroy(soon()).await.unwrap();
    assert!(!bomb.id().is_alive());
    assert!(group.paths().iter().all(|dir| !dir.exists()));
    group.destroy(soon()).await.unwrap();
}

#[tokio::test]
async fn who_eats_more_memory_than_allowed_is_killed_and_counted() {
    let Some(cgroups) = usable("memory", &[Controller::Memory]) else { return };
    let limits = CgroupLimits { memory_bytes: Some(32 << 20), ..CgroupLimits::default() };
    let group = cgroups.create(&name("memory"), &limits).unwrap();
    let eater =
        ChildSpec::new("/bin/sh").args(["-c", "read x; exec tail /dev/zero"]).stdin(nex_process::Stdin::Held).spawn().unwrap();
    group.add(eater.id().pid).unwrap();
    eater.feed(b"go\n").await.unwrap();
    assert_eq!(soon().bound(eater.exited()).await.unwrap().signal, Some(9));
    assert!(group.out_of_memory_kills() > 0);
    group.destroy(soon()).await.unwrap();
}

#[tokio::test]
async fn leftovers_are_found_by_prefix_and_removed_from_a_record() {
    let Some(cgroups) = usable("leftovers", &[Controller::Memory]) else { return };
    let all = CgroupLimits { memory_bytes: Some(64 << 20), pids: Some(9), cpu_percent: Some(50) };
    let name = name("left");
    let group = cgroups.create(&name, &all).unwrap();
    assert!(cgroups.create(&name, &all).is_err(), "a taken name is refused, and the first group is left alone");
    assert_eq!(cgroups.leftovers(&name), std::slice::from_ref(&group));
    let sleeper = ChildSpec::new("/bin/sleep").args(["60"]).spawn().unwrap();
    group.add(sleeper.id().pid).unwrap();
    assert!(group.remove().is_err());
    let record = serde_json::to_string(&group).unwrap();
    serde_json::from_str::<nex_process::cgroup::Cgroup>(&record).unwrap().destroy(soon()).await.unwrap();
    assert!(cgroups.leftovers(&name).is_empty());
    assert_eq!(soon().bound(sleeper.exited()).await.unwrap().signal, Some(9));
}
