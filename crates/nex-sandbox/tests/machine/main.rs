//! Sandboxes on a real Firecracker in its jail, as far as it gets where KVM runs no guest to its end: how a machine is made, why its creation
//! fails when its guest is not heard of, and that nothing is left of it.
//!
//! Needs `firecracker` and `jailer` (named by `NEX_FIRECRACKER` and `NEX_JAILER`, or on the path), a kernel (`NEX_KERNEL`), `/dev/kvm`,
//! `nft` and root.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod place;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use nex_process::Deadline;
use nex_sandbox::{CreateError, SandboxId, SandboxProvider as _, SandboxRecord, SandboxSpec};
use nex_testkit::{eventually, skip};
use nex_vmm::Vmm as _;
use place::{Place, ask};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_not_heard_of_is_told_with_its_machine_s_words_and_leaves_nothing() {
    let test = "a_guest_that_is_not_heard_of_is_told_with_its_machine_s_words_and_leaves_nothing";
    let place = match Place::open("fca").await {
        Ok(place) => place,
        Err(why) => skip!(test, why),
    };
    let id = SandboxId::parse("vm-1").unwrap();
    let spec = SandboxSpec { id: id.clone(), identity: b"{}".to_vec(), size: None };
    // Long enough for the monitor to give up by itself where its guest cannot run; a guest without an agent ends at once.
    let creating = place.provider.create(spec, Deadline::after(Duration::from_secs(40)));
    let (created, seen) = tokio::join!(creating, look(&place, &id));
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
    assert!(!place.has_device(&tap), "{tap} is gone");
    place.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_is_out_of_time_or_dropped_half_way_leaves_nothing() {
    let test = "a_creation_that_is_out_of_time_or_dropped_half_way_leaves_nothing";
    let place = match Place::open("fcb").await {
        Ok(place) => place,
        Err(why) => skip!(test, why),
    };
    let spec = |id: &str| SandboxSpec { id: SandboxId::parse(id).unwrap(), identity: b"{}".to_vec(), size: None };
    let error = place.provider.create(spec("late"), Deadline::after(Duration::from_millis(1500))).await.err().unwrap();
    let text = nex_protocol::envelope::chain(&error);
    eprintln!("{text}");
    // Where its time was over depends on how fast the host is; on a slow one the monitor has only just been started.
    let is_late = matches!(error, CreateError::NotUp { .. } | CreateError::Died(_)) || text.contains("was over");
    assert!(is_late, "{text}");
    assert!(!place.agent("late").exists());
    for moment in [0, 5, 20, 40, 80, 160] {
        let id = format!("dropped-{moment}");
        let creating = place.provider.create(spec(&id), Deadline::after(SOON));
        drop(tokio::time::timeout(Duration::from_millis(moment), creating).await);
        assert!(eventually(SOON, || async { !place.agent(&id).exists() }).await, "{id} is gone");
    }
    assert!(eventually(SOON, || async { place.taps() == 0 }).await, "their taps are gone");
    place.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jailed_machine_whose_node_was_killed_before_it_wrote_it_down_is_swept() {
    let test = "a_jailed_machine_whose_node_was_killed_before_it_wrote_it_down_is_swept";
    let place = match Place::open("fcc").await {
        Ok(place) => place,
        Err(why) => skip!(test, why),
    };
    let uid = place::UID_BASE + 7;
    let dir = place.agent("orphan").join("vm");
    fs::create_dir_all(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(uid), Some(uid)).unwrap();
    let machine = place.vmm.boot(place.machine("orphan", dir, uid), Deadline::after(SOON)).await.unwrap();
    assert!(machine.process().is_alive());
    assert_eq!(place.provider.sweep(Deadline::after(SOON)).await, 1);
    assert!(!machine.process().is_alive() && !place.agent("orphan").exists());
    place.close().await;
}

/// What is to be seen of a machine while its guest boots.
async fn look(place: &Place, id: &SandboxId) -> SandboxRecord {
    let record = place.agent(id.as_str()).join("record.json");
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
    assert_eq!(owner.trim(), uid.to_string(), "nobody else opens its tap");

    let instance = ask(&jail, "/").await;
    assert_eq!(instance["state"], "Running", "{instance}");
    let config = ask(&jail, "/vm/config").await;
    let nic = &config["network-interfaces"][0];
    assert_eq!(nic["host_dev_name"], link.tap.as_str(), "{config}");
    for limiter in [&nic["rx_rate_limiter"], &nic["tx_rate_limiter"], &config["drives"][0]["rate_limiter"]] {
        assert_eq!(limiter["bandwidth"]["size"], place::RATE, "{config}");
    }
    assert_eq!(config["mmds-config"]["version"], "V2", "{config}");
    assert_eq!(config["drives"][0]["is_read_only"], true, "{config}");
    found
}
