//! Golden files of requests and command lines: a difference is shown, and `NEX_GOLDEN=write` accepts it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::spec::{Mac, MachineSpec, Nic, RateLimiter, TokenBucket};

/// A machine with every option set.
pub(crate) fn full_spec() -> MachineSpec {
    let bucket = |size, one_time_burst| Some(TokenBucket { size, refill_time_ms: 100, one_time_burst });
    MachineSpec {
        nic: Some(Nic {
            tap: "tap0".to_owned(),
            mac: Mac::local([0, 0, 0, 0, 1]),
            rx: Some(RateLimiter { bandwidth: bucket(1_000_000, Some(5_000_000)), ops: None }),
            tx: Some(RateLimiter { bandwidth: None, ops: bucket(1000, None) }),
        }),
        drives: vec!["/images/one".into(), "/images/two".into(), "/images/three".into()],
        drive_limiter: Some(RateLimiter { bandwidth: bucket(10_000_000, None), ops: bucket(100, None) }),
        netns: Some("/run/netns/one".into()),
        run_as: Some(1234),
        balloon: true,
        ..minimal_spec()
    }
}

/// A machine with only the required options.
pub(crate) fn minimal_spec() -> MachineSpec {
    MachineSpec {
        id: "one".to_owned(),
        dir: "/machines/one".into(),
        vcpus: 2,
        memory_mib: 256,
        kernel: "/images/kernel".into(),
        boot_args: "quiet".to_owned(),
        root: "/images/root".into(),
        drives: Vec::new(),
        drive_limiter: None,
        nic: None,
        netns: None,
        run_as: None,
        balloon: false,
        metadata: false,
        console: Arc::new(|_: &str| {}),
    }
}

/// Compares a text with a golden file.
#[expect(clippy::disallowed_methods, reason = "a developer's switch, read in this one place")]
pub(crate) fn check(name: &str, text: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var("NEX_GOLDEN").as_deref() == Ok("write") {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name} differs; if it is meant, run again with NEX_GOLDEN=write");
}
