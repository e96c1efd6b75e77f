//! What `nex node up` says of itself in its state directory, for `nex node upgrade`; and how it becomes another program.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use nex_node::state_dir::write_private;
use nex_process::ProcessId;
use nex_protocol::agent::PROTOCOL;
use serde::{Deserialize, Serialize};

const FILE: &str = "running.json";
/// A file is well below this, bytes.
const MAX_FILE: u64 = 64 * 1024;

/// A node that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningNode {
    /// Its process.
    pub(crate) process: ProcessId,
    /// Its version.
    pub(crate) version: String,
    /// Version of the protocol that its agents speak.
    pub(crate) agent_protocol: u32,
    /// The file that it was started from.
    pub(crate) program: PathBuf,
    /// When it was ready, nanoseconds since 1970: another number after each start.
    pub(crate) ready_at: u128,
}

/// The file with it, removed on drop.
pub(crate) struct Told {
    node: RunningNode,
    file: PathBuf,
}

impl RunningNode {
    /// Writes what this process is, which is ready now.
    pub(crate) fn tell(root: &Path) -> anyhow::Result<Told> {
        let process = ProcessId::own().context("/proc does not know this process")?;
        let ready_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let (version, program) = (env!("CARGO_PKG_VERSION").to_owned(), std::env::current_exe()?);
        let node = Self { process, version, agent_protocol: PROTOCOL, program, ready_at };
        let file = root.join(FILE);
        let written = write_private(&file, &serde_json::to_vec(&node)?);
        written.with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Told { node, file })
    }

    /// What the node of that state directory says of itself, if it is that process and ready.
    pub(crate) fn read(root: &Path, process: ProcessId) -> Option<Self> {
        let file = root.join(FILE);
        if std::fs::metadata(&file).ok()?.len() > MAX_FILE {
            return None;
        }
        let node: Self = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        (node.process == process).then_some(node)
    }
}

impl Told {
    pub(crate) fn node(&self) -> &RunningNode {
        &self.node
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        std::fs::remove_file(&self.file).ok();
    }
}

/// Has this process run that program with its own arguments. Returns only if that fails.
#[expect(clippy::disallowed_methods, reason = "no child: this process itself goes on as another program")]
pub(crate) fn become_program(program: &Path) -> io::Error {
    std::process::Command::new(program).args(again(std::env::args_os().skip(1))).exec()
}

/// The arguments of another start: what this one was to forget must not be forgotten again.
pub(crate) fn again(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    args.filter(|arg| arg != "--fresh").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_known_by_its_process_and_forgotten_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let own = ProcessId::own().unwrap();
        assert_eq!(RunningNode::read(dir.path(), own), None);
        let told = RunningNode::tell(dir.path()).unwrap();
        assert_eq!(RunningNode::read(dir.path(), own).as_ref(), Some(told.node()));
        assert_eq!(RunningNode::read(dir.path(), ProcessId { start_time: 0, ..own }), None);
        drop(told);
        assert_eq!(RunningNode::read(dir.path(), own), None);
    }

    #[test]
    fn another_start_forgets_nothing() {
        let args = ["node", "up", "--fresh", "--config", "a.json"].map(OsString::from);
        assert_eq!(again(args.into_iter()), ["node", "up", "--config", "a.json"]);
    }
}
