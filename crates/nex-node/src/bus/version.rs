//! Which version a NATS server is: a program before it is started, a server that a node is connected to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nex_process::{ChildSpec, Deadline, Exit, Output, SpawnError};

/// Oldest version that a node starts, and is tested with.
const OLDEST: (u64, u64) = (2, 12);
/// Oldest version that keeps schedules.
const SCHEDULES: (u64, u64) = (2, 14);
/// Longest wait for a program to say its version.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most of what it says that is read.
const MAX_SAID: usize = 256;

/// A program is no NATS server that a node can start.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// It does not start.
    #[error(
        "cannot start {program} to ask for its version; next: check that it is a program this user may run, or name another with --nats-server"
    )]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: SpawnError,
    },
    /// It is something else.
    #[error("{program} --version says '{said}', as no NATS server does; next: name another program with --nats-server")]
    Other {
        /// The program.
        program: PathBuf,
        /// What it says.
        said: String,
    },
    /// It is too old.
    #[error(
        "{program} is NATS server {version}, older than {}.{}; next: install a newer one, or name one with --nats-server", OLDEST.0, OLDEST.1
    )]
    Old {
        /// The program.
        program: PathBuf,
        /// Its version.
        version: String,
    },
}

/// The version of a NATS server's program.
///
/// # Errors
/// [`VersionError`].
pub async fn program_version(program: &Path) -> Result<String, VersionError> {
    let said = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&said);
    let hear = move |line: &str| {
        let mut said = sink.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_SAID.saturating_sub(said.len());
        said.extend(line.chars().take(room));
    };
    let spawned = ChildSpec::new(program).args(["--version"]).stdout(Output::Lines(Arc::new(hear))).spawn();
    let child = spawned.map_err(|source| VersionError::Spawn { program: program.to_owned(), source })?;
    let ended = Deadline::after(ANSWER_TIMEOUT).bound(child.exited()).await;
    let said = said.lock().unwrap_or_else(PoisonError::into_inner).trim().to_owned();
    match said.strip_prefix("nats-server: v").filter(|_| ended.is_ok_and(Exit::is_success)) {
        Some(version) if is_at_least(version, OLDEST) => Ok(version.to_owned()),
        Some(version) if parse(version).is_some() => {
            Err(VersionError::Old { program: program.to_owned(), version: version.to_owned() })
        }
        _ => Err(VersionError::Other { program: program.to_owned(), said: said.escape_default().to_string() }),
    }
}

/// What does not work on a server of this version that a node is connected to, and what to do.
#[must_use]
pub fn server_lacks(version: &str) -> Option<String> {
    let what = match version {
        _ if is_at_least(version, SCHEDULES) => return None,
        _ if is_at_least(version, OLDEST) => "it keeps no schedules (--trigger every:…, cron:…)".to_owned(),
        _ => format!("nex is made for {}.{} and newer; schedules do not work, and other things may not", OLDEST.0, OLDEST.1),
    };
    let shown: String = version.chars().take(32).collect();
    Some(format!("the NATS server is version {}: {what}; next: update it", shown.escape_default()))
}

fn is_at_least(version: &str, oldest: (u64, u64)) -> bool {
    parse(version).is_some_and(|version| version >= oldest)
}

/// `2.12.1`, `2.14.0-RC.1`.
fn parse(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_lacks_is_told_with_its_version() {
        assert_eq!(server_lacks("2.14.0-RC.1"), None);
        assert_eq!(server_lacks("3.0.0"), None);
        assert!(server_lacks("2.12.8").unwrap().contains("version 2.12.8: it keeps no schedules"));
        assert!(server_lacks("2.9.25").unwrap().contains("made for 2.12"));
        assert!(server_lacks("\x1b[2J").unwrap().contains("version \\u{1b}[2J: nex is made for 2.12"));
    }

    #[tokio::test]
    async fn a_program_that_is_old_or_something_else_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let program = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = directory.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        for (name, text, expected) in [
            ("old", "echo nats-server: v2.10.26", "is NATS server 2.10.26, older than 2.12"),
            ("other", "echo 'hello; v9.9.9'", "says 'hello; v9.9.9', as no NATS server does"),
            ("mute", "exit 1", "says '', as no NATS server does"),
            ("fails", "echo nats-server: v2.12.1; exit 1", "says 'nats-server: v2.12.1', as no"),
        ] {
            let told = program_version(&program(name, text)).await.unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        }
        assert_eq!(program_version(&program("new", "echo nats-server: v2.14.2")).await.unwrap(), "2.14.2");
        let nothing = directory.path().join("nothing");
        let error = program_version(&nothing).await.unwrap_err();
        assert!(matches!(error, VersionError::Spawn { .. }), "{error:?}");
        let told = error.to_string();
        assert!(
            told.contains(&*nothing.to_string_lossy()) && told.contains("; next: ") && told.contains("--nats-server"),
            "{told}"
        );
    }
}
