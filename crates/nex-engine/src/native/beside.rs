//! Programs that are run beside a service for a moment, as its health check is: with its environment, in its directory, in a process group
//! of their own of which nothing is left.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::group::Group;
use super::leader::{limit_memory, watch_death};

/// A first word that means the service's own program.
const OWN_PROGRAM: &str = "artifact";
/// Bytes of standard error that are kept for the reason of a failure.
const KEPT: usize = 512;
/// What the kernel adds to its share of memory when it looks for whom to kill: before the service.
const OOM_SCORE: &str = "900";

/// What a program beside a service is run with.
#[derive(Clone)]
pub struct Beside {
    pub(super) artifact: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) directory: PathBuf,
    pub(super) memory_bytes: u64,
}

impl std::fmt::Debug for Beside {
    // The environment holds secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beside").field("artifact", &self.artifact).finish_non_exhaustive()
    }
}

/// A group that is killed when nobody waits for it any more. Dropped before its leader is reaped.
struct Killed(Group);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.retire();
    }
}

impl Beside {
    /// Runs a program to its end; what it has started is killed then, or when the future is dropped.
    ///
    /// # Errors
    /// Why it cannot be run, or its exit code and the beginning of what it wrote to standard error.
    pub async fn run(&self, words: &[String]) -> Result<(), String> {
        let (program, arguments) = words.split_first().ok_or("there is no program to run")?;
        let mut command = match program.as_str() {
            OWN_PROGRAM => Command::new(&self.artifact),
            other => Command::new(other),
        };
        command.args(arguments).env_clear().envs(&self.environment).current_dir(&self.directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("'{program}' cannot be run: {error}"))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| format!("'{program}' has no process id"))?;
        let group = Killed(Group::new(pid));
        std::fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()), OOM_SCORE).ok();
        let cannot = |error: crate::StartError| format!("'{program}' cannot be watched: {error}");
        limit_memory(pid, self.memory_bytes).map_err(cannot)?;
        let death = watch_death(pid).map_err(cannot)?;
        let mut said = Vec::new();
        {
            let ended = death.readable();
            let reading = read(child.stderr.take(), &mut said);
            tokio::pin!(ended, reading);
            let (dead, is_read) = tokio::select! {
                dead = &mut ended => (dead, false),
                () = &mut reading => (ended.await, true),
            };
            drop(dead.map_err(|error| format!("'{program}' cannot be watched: {error}"))?);
            // Not reaped yet: the rest of its group can be killed safely, and then nobody writes any more.
            group.0.signal(Signal::KILL);
            if !is_read {
                drop(tokio::time::timeout(super::DRAIN_TIMEOUT, reading).await);
            }
        }
        drop(group);
        let status = child.wait().await.map_err(|error: io::Error| format!("'{program}' cannot be waited for: {error}"))?;
        if status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&said);
        let said = said.trim();
        Err(format!("'{program}' ended with {status}{}{said}", if said.is_empty() { "" } else { ": " }))
    }
}

/// Keeps the beginning and reads the rest, so that whoever writes is not kept waiting.
async fn read(stream: Option<tokio::process::ChildStderr>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 4 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = KEPT.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
}
