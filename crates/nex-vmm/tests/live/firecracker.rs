//! A real Firecracker, bare and jailed: everything that it answers before its guest is up, for many a `/dev/kvm` runs no guest to its end.
//!
//! Needs `firecracker` and `jailer` (named by `NEX_FIRECRACKER` and `NEX_JAILER`, or on the path), `/dev/kvm`, root, and what the tests
//! under QEMU need.

use std::time::Instant;

use crate::fixture::{Fixture, Netns, by, program};
use nex_process::Exit;
use nex_testkit::skip;
use nex_vmm::{Firecracker, Jailer, Mac, Machine, MachineSpec, Nic, RateLimiter, TokenBucket, Vmm, VmmError};
use serde_json::json;

struct Place {
    fixture: Fixture,
    netns: Netns,
    binary: std::path::PathBuf,
}

async fn place(name: &str) -> Result<Place, &'static str> {
    let binary = program("NEX_FIRECRACKER", "firecracker").ok_or("no firecracker")?;
    if !std::path::Path::new("/dev/kvm").exists() {
        return Err("no /dev/kvm");
    }
    let fixture = Fixture::open().await?;
    let netns = Netns::with_tap(name).await.ok_or("taps and namespaces need root and iproute2")?;
    Ok(Place { fixture, netns, binary })
}

fn limiter(size: u64) -> RateLimiter {
    RateLimiter { bandwidth: Some(TokenBucket { size, refill_time_ms: 100, one_time_burst: None }), ops: None }
}

impl Place {
    fn spec(&self, id: &str) -> MachineSpec {
        let (rx, tx) = (Some(limiter(1 << 20)), Some(limiter(2 << 20)));
        MachineSpec {
            nic: Some(Nic { tap: "tap0".to_owned(), mac: Mac::local([0, 0, 0, 0, 9]), rx, tx }),
            netns: Some(self.netns.path()),
            drive_limiter: Some(limiter(64 << 20)),
            balloon: true,
            metadata: true,
            ..self.fixture.spec(id)
        }
    }

    /// All that can be asked of a machine whose guest is not up.
    async fn exercise(&self, machine: &dyn Machine) {
        machine.set_metadata(&json!({"nex": {"identity": "x".repeat(4096)}}), by(5)).await.unwrap();
        machine.swap_drive(0, &self.fixture.image("artifact", 100), by(5)).await.unwrap();
        machine.limit_network(limiter(4096), RateLimiter::default(), by(5)).await.unwrap();
        let missing = machine.swap_drive(0, &self.fixture.path("nowhere"), by(5)).await.unwrap_err();
        assert!(missing.to_string().contains("nowhere"), "{missing}");
        let balloon = machine.set_balloon(16, by(5)).await;
        assert!(matches!(&balloon, Err(VmmError::Refused { message, .. }) if message.contains("not activated")), "{balloon:?}");
        let huge = machine.set_metadata(&json!("x".repeat(60_000)), by(5)).await.unwrap_err();
        assert!(matches!(huge, VmmError::Refused { .. } | VmmError::Malformed { .. }), "{huge}");
        assert!(matches!(machine.channel(by(0)).await, Err(VmmError::Late { .. })));
    }

    /// From a boot to two machines of its snapshot.
    async fn live(&self, vmm: &Firecracker, spec: impl Fn(&str) -> MachineSpec) {
        let begun = Instant::now();
        let machine = vmm.boot(spec("template"), by(10)).await.unwrap();
        eprintln!("running after {:?}", begun.elapsed());
        self.exercise(machine.as_ref()).await;
        let into = self.fixture.path("snapshot");
        std::fs::create_dir(&into).unwrap();
        let begun = Instant::now();
        let snapshot = machine.snapshot(&into, by(20)).await.unwrap();
        eprintln!("snapshot written in {:?}", begun.elapsed());
        assert_eq!(machine.kill().await, Exit { code: None, signal: Some(9) });
        for id in ["first", "second"] {
            let begun = Instant::now();
            let machine = vmm.restore(spec(id), &snapshot, by(10)).await.unwrap();
            eprintln!("{id} restored in {:?}", begun.elapsed());
            let status = std::fs::read_to_string(format!("/proc/{}/status", machine.process().pid)).unwrap();
            assert!(status.contains("NoNewPrivs:\t1"), "{status}");
            let user = spec("unused").run_as.unwrap_or_default();
            std::fs::remove_dir(self.fixture.path("unused")).unwrap();
            assert!(status.contains(&format!("Uid:\t{user}\t{user}\t{user}\t{user}")), "{status}");
            machine.set_metadata(&json!({"nex": id}), by(5)).await.unwrap();
            machine.swap_drive(0, &self.fixture.path("artifact"), by(5)).await.unwrap();
            machine.press_power(by(5)).await.unwrap();
            let process = machine.process();
            drop(machine);
            process.wait_gone(by(10)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_bare_machine_is_configured_written_and_restored_twice() {
    let place = match place("nexvmmb").await {
        Ok(place) => place,
        Err(why) => skip!("a_bare_machine_is_configured_written_and_restored_twice", why),
    };
    let vmm = Firecracker::new(place.binary.clone(), None);
    assert!(vmm.version(by(5)).await.unwrap().starts_with(|first: char| first.is_ascii_digit()));
    place.live(&vmm, |id| place.spec(id)).await;

    let no_kernel = MachineSpec { kernel: place.fixture.path("placeholder"), ..place.spec("nokernel") };
    let error = vmm.boot(no_kernel, by(5)).await.unwrap_err();
    assert!(matches!(error, VmmError::Refused { .. }), "{error}");
    assert!(Firecracker::new("/bin/true".into(), None).version(by(5)).await.is_err());
    let ended = Firecracker::new("/bin/false".into(), None).boot(place.spec("false"), by(5)).await.unwrap_err();
    assert!(matches!(ended, VmmError::Ended { .. }), "{ended}");
}

#[tokio::test]
async fn a_jailed_machine_lives_in_a_chroot_as_another_user() {
    let test = "a_jailed_machine_lives_in_a_chroot_as_another_user";
    let place = match place("nexvmmj").await {
        Ok(place) => place,
        Err(why) => skip!(test, why),
    };
    let Some(jailer) = program("NEX_JAILER", "jailer") else { skip!(test, "no jailer") };
    let vmm = Firecracker::new(place.binary.clone(), Some(Jailer { binary: jailer }));
    place.live(&vmm, |id| MachineSpec { run_as: Some(65534), ..place.spec(id) }).await;
    assert!(matches!(vmm.boot(place.spec("nobody"), by(5)).await, Err(VmmError::Invalid(_))));
}
