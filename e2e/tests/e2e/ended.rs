//! A command that has ended: its exit code, its output, and assertions on them.

use std::time::Duration;

use serde_json::Value;

/// Longest time of a command. Most take a few seconds; emulated machines, of which tests boot several at once, and compilers that begin with
/// nothing take many times longer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(480);

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code; 128 and the signal, if one ended it.
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) async fn of(args: &[&str], output: impl Future<Output = std::io::Result<std::process::Output>>) -> Self {
        let Ok(output) = tokio::time::timeout(TIMEOUT, output).await else {
            panic!("{} did not end within {TIMEOUT:?}", args.join(" "))
        };
        let output = output.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: exit_code(output.status), stdout: output.stdout, stderr }
    }

    /// Fails the test unless it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    /// Fails the test unless it printed each of these, to either stream.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            let there = self.text().contains(part) || self.stderr.contains(part);
            assert!(there, "'{part}' is not in\nstdout: {}\nstderr: {}", self.text(), self.stderr);
        }
        self
    }

    /// Fails the test if it printed this.
    #[track_caller]
    pub(crate) fn says_not(self, part: &str) -> Self {
        let there = self.text().contains(part) || self.stderr.contains(part);
        assert!(!there, "'{part}' is in\nstdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    /// What it printed to standard output.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The same, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }
}

pub(crate) fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
