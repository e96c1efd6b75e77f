//! Guests that do whatever harms: real machines, whose init is `examples/hostile-init`. Whatever they do, nothing is left of them.

use std::time::Duration;

use nex_process::Deadline;
use nex_sandbox::{CreateError, SandboxId, SandboxProvider as _, SandboxSpec};
use nex_testkit::skip;
use nex_vmm::VmmKind;

use crate::fixture::{Fixture, WITHIN};

/// How long a guest may take that never does what it is to do. It need not even be up by then.
const BOOT_TIMEOUT: Duration = Duration::from_secs(8);
const GRACE: Duration = Duration::from_millis(500);

fn spec() -> SandboxSpec {
    let id = SandboxId::parse("vm-1").unwrap();
    SandboxSpec { id, identity: b"{}".to_vec(), size: None, memory_mib: None, image: None }
}

/// Guests that never become sandboxes.
async fn refuses_them(test: &str, name: &str, monitor: VmmKind) {
    for manner in ["panics", "hangs", "says nothing", "floods before it is ready", "is ready again and again"] {
        let fixture = match Fixture::hostile(name, monitor, manner).await {
            Ok(fixture) => fixture,
            Err(why) => skip!(test, why),
        };
        let boot_timeout = if ["panics", "floods before it is ready"].contains(&manner) { WITHIN } else { BOOT_TIMEOUT };
        let error = fixture.provider.create(spec(), Deadline::after(boot_timeout)).await.err().unwrap();
        let text = format!("a guest that {manner}: {}", nex_protocol::envelope::chain(&error));
        match manner {
            // A monitor may take its time to end after its guest.
            "panics" => assert!(matches!(error, CreateError::Died(_)) || text.contains("channel broke"), "{text}"),
            "floods before it is ready" => assert!(text.contains("something else than was asked"), "{text}"),
            _ => assert!(text.contains("in time") || text.contains("was over"), "{text}"),
        }
        assert!(!fixture.agent("vm-1").exists(), "{text}");
        fixture.close().await;
    }
}

/// Guests that are sandboxes first.
async fn ends_them(test: &str, name: &str, monitor: VmmKind) {
    for manner in ["panics later", "fills its memory", "floods later", "opens channel after channel"] {
        let fixture = match Fixture::hostile(name, monitor, manner).await {
            Ok(fixture) => fixture,
            Err(why) => skip!(test, why),
        };
        let sandbox = fixture.provider.create(spec(), Deadline::after(WITHIN)).await.unwrap();
        if ["panics later", "fills its memory"].contains(&manner) {
            let ended = Deadline::after(WITHIN).bound(sandbox.exited()).await;
            assert!(ended.is_ok(), "a guest that {manner} runs on after its kernel");
        }
        sandbox.stop(GRACE).await;
        assert!(!sandbox.record().leader.is_alive() && !fixture.agent("vm-1").exists(), "a guest that {manner}");
        fixture.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_panics_hangs_or_floods_its_channel_is_no_sandbox_under_qemu() {
    refuses_them("a_guest_that_panics_hangs_or_floods_its_channel_is_no_sandbox_under_qemu", "hsa", VmmKind::Qemu).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_panics_hangs_or_floods_its_channel_is_no_sandbox_under_firecracker() {
    let test = "a_guest_that_panics_hangs_or_floods_its_channel_is_no_sandbox_under_firecracker";
    refuses_them(test, "hsb", VmmKind::Firecracker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_turns_hostile_is_ended_and_leaves_nothing_under_qemu() {
    ends_them("a_guest_that_turns_hostile_is_ended_and_leaves_nothing_under_qemu", "hsc", VmmKind::Qemu).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_turns_hostile_is_ended_and_leaves_nothing_under_firecracker() {
    ends_them("a_guest_that_turns_hostile_is_ended_and_leaves_nothing_under_firecracker", "hsd", VmmKind::Firecracker).await;
}
