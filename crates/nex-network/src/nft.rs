//! The packet filter's program: `nft -f -`, which takes a file as one transaction.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nex_process::{ChildSpec, Deadline, Stdin};

use crate::error::NetworkError;
use crate::program;

/// Finds the program in the system's directories, not on the node's `PATH`.
pub(crate) fn find() -> Option<PathBuf> {
    let dirs = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/run/current-system/sw/bin"];
    dirs.iter().map(|dir| Path::new(dir).join("nft")).find(|path| path.is_file())
}

/// Loads a file atomically.
pub(crate) async fn load(action: &'static str, rules: String, by: Deadline) -> Result<(), NetworkError> {
    run(action, rules, None, by).await
}

/// Loads a file in another network namespace.
pub(crate) async fn load_in(netns: Arc<OwnedFd>, rules: String, by: Deadline) -> Result<(), NetworkError> {
    run("load the rules of a namespace", rules, Some(netns), by).await
}

async fn run(action: &'static str, rules: String, netns: Option<Arc<OwnedFd>>, by: Deadline) -> Result<(), NetworkError> {
    let failed = |said: String| NetworkError::Filter { action, said };
    let nft = find().ok_or_else(|| failed("the program nft is not installed".to_owned()))?;
    let mut spec = ChildSpec::new(nft).args(["-f", "-"]).stdin(Stdin::Bytes(rules.into_bytes()));
    if let Some(netns) = netns {
        spec = spec.netns_fd(netns);
    }
    let ran = program::run(spec, by).await.map_err(|error| failed(error.to_string()))?;
    if ran.exit.is_success() { Ok(()) } else { Err(failed(format!("{}: {}", ran.exit, ran.stderr.trim()))) }
}

/// Removes a table; one that is gone already is fine.
pub(crate) async fn delete(table: &str, by: Deadline) -> Result<(), NetworkError> {
    // Declared first, so that deleting it cannot fail.
    load("delete the table", format!("table inet {table} {{ }}\ndelete table inet {table}\n"), by).await
}

/// Whether the table is there.
pub(crate) async fn exists(table: &str, by: Deadline) -> bool {
    let Some(nft) = find() else { return false };
    let spec = ChildSpec::new(nft).args(["list", "table", "inet", table]);
    program::run(spec, by).await.is_ok_and(|ran| ran.exit.is_success())
}
