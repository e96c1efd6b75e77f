//! Skips of tests that cannot run on a machine. They are printed, and can be turned into failures.

use std::io::Write as _;

/// Skips a test that cannot run on this machine: prints `SKIP <test>: <why>` and returns from the function, with
/// the third argument if there is one.
///
/// With `NEX_REQUIRE=kvm,nats` a skip whose reason contains one of these words is a failure, with `NEX_REQUIRE=all` every skip.
///
/// ```no_run
/// fn a_vm_boots() {
///     if !std::path::Path::new("/dev/kvm").exists() {
///         nex_testkit::skip!("a_vm_boots", "no /dev/kvm");
///     }
/// }
/// ```
#[macro_export]
macro_rules! skip {
    ($test:expr, $why:expr) => {{
        $crate::announce(&$test, &$why);
        return;
    }};
    ($test:expr, $why:expr, $value:expr) => {{
        $crate::announce(&$test, &$why);
        return $value;
    }};
}

/// Reports a skipped test.
///
/// # Panics
/// When `NEX_REQUIRE` names what is missing.
#[doc(hidden)]
#[expect(clippy::panic, reason = "a required test that cannot run is a failed test")]
#[expect(clippy::disallowed_methods, reason = "set by the test runner")]
pub fn announce(test: &dyn std::fmt::Display, why: &dyn std::fmt::Display) {
    let why = why.to_string();
    let required = std::env::var("NEX_REQUIRE").unwrap_or_default();
    if is_required(&why, &required) {
        panic!("{test} must run here (NEX_REQUIRE={required}), but: {why}");
    }
    // Write to the stream directly: the test harness captures the output of passing tests.
    drop(writeln!(std::io::stderr(), "SKIP {test}: {why}"));
}

fn is_required(why: &str, required: &str) -> bool {
    let why = why.to_ascii_lowercase();
    let mut words = required.split(',').map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty());
    words.any(|word| word == "all" || why.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::is_required;

    #[test]
    fn a_skip_is_a_failure_only_where_its_reason_is_required() {
        for (why, required, expected) in [
            ("no /dev/kvm", "", false),
            ("no /dev/kvm", "nats", false),
            ("no /dev/kvm", "nats, KVM", true),
            ("not root", "all", true),
            ("not root", " , ", false),
        ] {
            assert_eq!(is_required(why, required), expected, "{why} / {required}");
        }
    }
}
