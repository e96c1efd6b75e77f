//! Real guests under QEMU, emulated: what a machine can do from its boot to its end.
//!
//! Needs `qemu-system-x86_64`, `busybox` and `mkfs.erofs`, and a guest kernel named by `NEX_KERNEL`.

use std::time::{Duration, Instant};

use crate::fixture::{Fixture, Guest, Netns, by, program, size_and_digest};
use nex_process::Exit;
use nex_testkit::{eventually, skip};
use nex_vmm::{Accel, Mac, MachineSpec, Nic, Qemu, RateLimiter, TokenBucket, Vmm, VmmError};

fn qemu() -> Option<Qemu> {
    // The fixture's KVM runs guests; nested emulation would be too slow.
    let accel = if std::env::var_os("NEX_LAB").is_some() { Accel::Kvm } else { Accel::Tcg };
    program("NEX_QEMU", "qemu-system-x86_64").map(|binary| Qemu::new(binary, accel))
}

macro_rules! fixture {
    ($test:expr) => {
        match (qemu(), Fixture::open().await) {
            (Some(qemu), Ok(fixture)) => (qemu, fixture),
            (None, _) => skip!($test, "no qemu-system-x86_64"),
            (_, Err(why)) => skip!($test, why),
        }
    };
}

#[tokio::test]
async fn a_machine_boots_talks_reads_a_replaced_drive_and_goes_down() {
    let (qemu, fixture) = fixture!("a_machine_boots_talks_reads_a_replaced_drive_and_goes_down");
    assert!(qemu.version(by(10)).await.unwrap().starts_with(|first: char| first.is_ascii_digit()));
    let begun = Instant::now();
    let machine = qemu.boot(fixture.spec("one"), by(10)).await.unwrap();
    eprintln!("boot returned after {:?}", begun.elapsed());
    let mut guest = Guest::connect(machine.as_ref()).await;
    assert_eq!(guest.recv().await, "ready");
    eprintln!("guest ready after {:?}", begun.elapsed());
    assert_eq!(guest.ask("drive vdb").await, size_and_digest(&fixture.path("placeholder")).await);
    for (name, blocks) in [("artifact", 700), ("smaller", 3), ("bigger", 5000)] {
        let image = fixture.image(name, blocks);
        machine.swap_drive(0, &image, by(10)).await.unwrap();
        assert_eq!(guest.ask("drive vdb").await, size_and_digest(&image).await, "{name}");
    }
    let missing = machine.swap_drive(0, &fixture.path("nowhere"), by(10)).await.unwrap_err();
    assert!(missing.to_string().contains("nowhere"), "{missing}");
    assert!(machine.swap_drive(1, &fixture.path("artifact"), by(10)).await.is_err());
    assert!(matches!(machine.press_power(by(1)).await, Err(VmmError::Unsupported { .. })));
    // A stream that was dropped is followed by another.
    drop(guest);
    let mut guest = Guest::connect(machine.as_ref()).await;
    assert_eq!(guest.ask("ping again").await, "pong again");
    guest.send("off").await;
    assert_eq!(by(20).bound(machine.exited()).await.unwrap(), Exit { code: Some(0), signal: None });
    assert!(fixture.console().iter().any(|line| line == "the guest is up"), "{:?}", fixture.console());
    let gone = machine.channel(by(5)).await.unwrap_err();
    assert!(matches!(gone, VmmError::Ended { .. }), "{gone}");
}

fn unprivileged(fixture: &Fixture, id: &str) -> MachineSpec {
    let limiter =
        RateLimiter { bandwidth: Some(TokenBucket { size: 64 << 20, refill_time_ms: 1000, one_time_burst: None }), ops: None };
    let root = nix::unistd::geteuid().is_root();
    MachineSpec { run_as: root.then_some(65534), balloon: true, drive_limiter: Some(limiter), ..fixture.spec(id) }
}

#[tokio::test]
async fn two_machines_are_restored_from_one_snapshot_by_another_user_and_stay_apart() {
    let (qemu, fixture) = fixture!("two_machines_are_restored_from_one_snapshot_by_another_user_and_stay_apart");
    let template = qemu.boot(unprivileged(&fixture, "template"), by(10)).await.unwrap();
    let mut guest = Guest::connect(template.as_ref()).await;
    assert_eq!(guest.recv().await, "ready");
    assert_eq!(guest.ask("count").await, "1");
    let into = fixture.path("snapshot");
    std::fs::create_dir(&into).unwrap();
    let begun = Instant::now();
    let snapshot = template.snapshot(&into, by(20)).await.unwrap();
    eprintln!("snapshot written in {:?}", begun.elapsed());
    template.kill().await;
    // It comes out of a journal like this, with nothing in memory.
    let snapshot = serde_json::from_str(&serde_json::to_string(&snapshot).unwrap()).unwrap();
    let mut machines = Vec::new();
    for id in ["first", "second", "third"] {
        let begun = Instant::now();
        let machine = qemu.restore(unprivileged(&fixture, id), &snapshot, by(20)).await.unwrap();
        let restored = begun.elapsed();
        let mut guest = Guest::connect(machine.as_ref()).await;
        assert_eq!(guest.ask("count").await, "2", "each goes on from the same point");
        let memory = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", machine.process().pid)).unwrap_or_default();
        let share = memory.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default();
        eprintln!("{id} restored in {restored:?}, answers after {:?}, {share}", begun.elapsed());
        machines.push((machine, guest));
    }
    for (machine, guest) in &mut machines {
        let image = fixture.image("artifact", 100);
        machine.swap_drive(0, &image, by(10)).await.unwrap();
        assert_eq!(guest.ask("drive vdb").await, size_and_digest(&image).await, "{:?}", fixture.console());
        assert_eq!(guest.ask("sleep 20000").await, "slept", "timers go on");
        let status = std::fs::read_to_string(format!("/proc/{}/status", machine.process().pid)).unwrap();
        if nix::unistd::geteuid().is_root() {
            assert!(
                status.contains("Uid:\t65534") && status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"),
                "{status}"
            );
        }
        let again = machine.snapshot(&into, by(5)).await.unwrap_err();
        assert!(matches!(again, VmmError::Unsupported { .. }), "{again}");
    }
    let (machine, guest) = machines.first_mut().unwrap();
    let free = |answer: String| answer.parse::<u64>().unwrap();
    let before = free(guest.ask("free").await);
    machine.set_balloon(32, by(5)).await.unwrap();
    let mut shrunk = false;
    for _ in 0..200 {
        shrunk = free(guest.ask("free").await) + 20_000 < before;
        if shrunk {
            break;
        }
    }
    assert!(shrunk, "the guest gives memory to the balloon");
    let other = MachineSpec { memory_mib: 256, ..fixture.spec("other") };
    assert!(matches!(qemu.restore(other, &snapshot, by(5)).await, Err(VmmError::Invalid(_))));
}

#[tokio::test]
async fn a_machine_in_a_network_namespace_has_its_tap_and_its_address() {
    let (qemu, fixture) = fixture!("a_machine_in_a_network_namespace_has_its_tap_and_its_address");
    let Some(netns) = Netns::with_tap("nexvmmq").await else {
        skip!("a_machine_in_a_network_namespace_has_its_tap_and_its_address", "taps and namespaces need root and iproute2")
    };
    let mac = Mac::local([0, 0, 0, 0xab, 1]);
    let nic = Nic { tap: "tap0".to_owned(), mac, rx: None, tx: None };
    let spec = MachineSpec { nic: Some(nic.clone()), netns: Some(netns.path()), vcpus: 2, ..unprivileged(&fixture, "networked") };
    let machine = qemu.boot(spec, by(10)).await.unwrap();
    let mut guest = Guest::connect(machine.as_ref()).await;
    assert_eq!(guest.recv().await, "ready");
    assert_eq!(guest.ask("mac").await, mac.to_string());
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
    assert_ne!(namespace(&machine.process().to_string()), namespace("self"));
    let limits = machine.limit_network(RateLimiter::default(), RateLimiter::default(), by(1)).await;
    assert!(matches!(limits, Err(VmmError::Unsupported { .. })));
    let nowhere = Nic { tap: "tap1".to_owned(), ..nic };
    let spec = MachineSpec { nic: Some(nowhere), netns: Some(netns.path()), ..fixture.spec("nowhere") };
    let error = qemu.boot(spec, by(10)).await.unwrap_err();
    assert!(error.to_string().contains("tap1"), "{error}");
}

#[tokio::test]
async fn what_a_guest_writes_arrives_in_bounded_lines_and_it_can_be_killed_meanwhile() {
    let (qemu, fixture) = fixture!("what_a_guest_writes_arrives_in_bounded_lines_and_it_can_be_killed_meanwhile");
    let machine = qemu.boot(fixture.spec("loud"), by(10)).await.unwrap();
    let mut guest = Guest::connect(machine.as_ref()).await;
    assert_eq!(guest.recv().await, "ready");
    guest.send("flood").await;
    let flooded = || async { fixture.console().iter().map(String::len).sum::<usize>() > 200_000 };
    assert!(eventually(Duration::from_secs(30), flooded).await);
    assert_eq!(machine.kill().await, Exit { code: None, signal: Some(9) });
    assert!(fixture.console().iter().all(|line| line.len() <= nex_process::lines::MAX_LINE));
}

#[tokio::test]
async fn a_dropped_machine_is_gone_and_a_failed_one_says_why() {
    let (qemu, fixture) = fixture!("a_dropped_machine_is_gone_and_a_failed_one_says_why");
    let machine = qemu.boot(fixture.spec("dropped"), by(10)).await.unwrap();
    let id = machine.process();
    drop(machine);
    id.wait_gone(by(10)).await.unwrap();

    let no_kernel = MachineSpec { kernel: fixture.path("placeholder"), ..fixture.spec("nokernel") };
    let error = qemu.boot(no_kernel, by(10)).await.unwrap_err();
    assert!(matches!(&error, VmmError::Ended { said, .. } if said.contains("kernel")), "{error}");
    let metadata = MachineSpec { metadata: true, ..fixture.spec("metadata") };
    assert!(matches!(qemu.boot(metadata, by(10)).await, Err(VmmError::Unsupported { .. })));
    let late = qemu.boot(fixture.spec("late"), by(0)).await.unwrap_err();
    assert!(matches!(late, VmmError::Late { .. }), "{late}");
}
