//! Sandboxes on a real Firecracker in its jail, on hosts where KVM may not run a guest to its end: how a machine is made, why its creation
//! fails when its guest does not answer, and that nothing is left of it.
//!
//! Needs `firecracker` and `jailer` (named by `NEX_FIRECRACKER` and `NEX_JAILER`, or on the path), a kernel (`NEX_KERNEL`), `/dev/kvm`,
//! `nft` and root.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod fixture;
mod hostile;
mod mute;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use fixture::{Fixture, ask};
use nex_process::Deadline;
use nex_sandbox::{CreateError, SandboxId, SandboxProvider as _, SandboxRecord, SandboxSpec};
use nex_testkit::{eventually, skip};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_answer_is_an_error_with_its_console_and_leaves_nothing() {
    let test = "a_guest_that_does_not_answer_is_an_error_with_its_console_and_leaves_nothing";
    let fixture = match Fixture::open("fca").await {
        Ok(fixture) => fixture,
        Err(why) => skip!(test, why),
    };
    let id = SandboxId::parse("vm-1").unwrap();
    let spec = SandboxSpec { id: id.clone(), identity: b"{}".to_vec(), size: None, memory_mib: None, image: None };
    // Long enough for the monitor to exit if its guest cannot run; a guest without an agent powers off at once.
    let creating = fixture.provider.create(spec, Deadline::after(Duration::from_secs(40)));
    let (created, seen) = tokio::join!(creating, check_machine(&fixture, &id));
    let error = created.err().expect("there is no agent in the image");
    let text = nex_protocol::envelope::chain(&error);
    eprintln!("{text}");
    match &error {
        CreateError::Died(report) => assert!(!report.stderr_tail.is_empty(), "{text}"),
        CreateError::NotUp { console, .. } => assert!(!console.is_empty(), "{text}"),
        _ => panic!("{text}"),
    }
    assert!(!seen.leader.is_alive() && !seen.dir.exists());
    let tap = seen.network.unwrap().tap;
    assert!(!fixture.has_device(&tap), "{tap} is gone");
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_is_out_of_time_or_dropped_half_way_leaves_nothing() {
    let test = "a_creation_that_is_out_of_time_or_dropped_half_way_leaves_nothing";
    let fixture = match Fixture::open("fcb").await {
        Ok(fixture) => fixture,
        Err(why) => skip!(test, why),
    };
    let spec = |id: &str| SandboxSpec {
        id: SandboxId::parse(id).unwrap(),
        identity: b"{}".to_vec(),
        size: None,
        memory_mib: None,
        image: None,
    };
    let error = fixture.provider.create(spec("late"), Deadline::after(Duration::from_millis(1500))).await.err().unwrap();
    let text = nex_protocol::envelope::chain(&error);
    eprintln!("{text}");
    // The step that times out depends on the speed of the host; on a slow one the monitor has just been started.
    let is_late = matches!(error, CreateError::NotUp { .. } | CreateError::Died(_)) || text.contains("was over");
    assert!(is_late, "{text}");
    assert!(!fixture.agent("late").exists());
    for moment in [0, 5, 20, 40, 80, 160] {
        let id = format!("dropped-{moment}");
        let creating = fixture.provider.create(spec(&id), Deadline::after(SOON));
        drop(tokio::time::timeout(Duration::from_millis(moment), creating).await);
        assert!(eventually(SOON, || async { !fixture.agent(&id).exists() }).await, "{id} is gone");
    }
    assert!(eventually(SOON, || async { fixture.taps() == 0 }).await, "their taps are gone");
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jailed_machine_whose_node_was_killed_before_it_was_recorded_is_swept() {
    let test = "a_jailed_machine_whose_node_was_killed_before_it_was_recorded_is_swept";
    let fixture = match Fixture::open("fcc").await {
        Ok(fixture) => fixture,
        Err(why) => skip!(test, why),
    };
    let uid = fixture::UID_BASE + 7;
    let dir = fixture.agent("orphan").join("vm");
    fs::create_dir_all(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(uid), Some(uid)).unwrap();
    let machine = fixture.vmm.boot(fixture.machine("orphan", dir, uid), Deadline::after(SOON)).await.unwrap();
    assert!(machine.process().is_alive());
    assert_eq!(fixture.provider.sweep(&BTreeSet::new(), Deadline::after(SOON)).await, 1);
    assert!(!machine.process().is_alive() && !fixture.agent("orphan").exists());
    fixture.close().await;
}

/// Checks a machine while its guest boots; returns its record.
async fn check_machine(fixture: &Fixture, id: &SandboxId) -> SandboxRecord {
    let record = fixture.agent(id.as_str()).join("record.json");
    let read = || serde_json::from_slice::<SandboxRecord>(&fs::read(&record).ok()?).ok().filter(|it| it.cgroup.is_some());
    assert!(eventually(SOON, || async { read().is_some() }).await, "the machine is recorded");
    let found = read().unwrap();
    let uid = found.uid.unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", found.leader.pid)).unwrap();
    for part in [format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"), "NoNewPrivs:\t1".to_owned(), "CapEff:\t0000000000000000".to_owned()]
    {
        assert!(status.contains(&part), "{part} in {status}");
    }
    let jail = found.dir.join("vm/firecracker").join(id.as_str()).join("root");
    let root = fs::metadata(format!("/proc/{}/root", found.leader.pid)).unwrap();
    assert_eq!(root.ino(), fs::metadata(&jail).unwrap().ino(), "it is in its jail");
    let link = found.network.clone().unwrap();
    let owner = fs::read_to_string(format!("/sys/class/net/{}/owner", link.tap)).unwrap();
    assert_eq!(owner.trim(), uid.to_string(), "only its monitor may open its tap");

    let instance = ask(&jail, "/").await;
    assert_eq!(instance["state"], "Running", "{instance}");
    let config = ask(&jail, "/vm/config").await;
    let nic = &config["network-interfaces"][0];
    assert_eq!(nic["host_dev_name"], link.tap.as_str(), "{config}");
    for limiter in [&nic["rx_rate_limiter"], &nic["tx_rate_limiter"], &config["drives"][0]["rate_limiter"]] {
        assert_eq!(limiter["bandwidth"]["size"], fixture::RATE, "{config}");
    }
    assert_eq!(config["mmds-config"]["version"], "V2", "{config}");
    assert_eq!(config["drives"][0]["is_read_only"], true, "{config}");
    found
}
