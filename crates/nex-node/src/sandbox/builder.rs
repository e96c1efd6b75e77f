//! Where a node with microVMs builds the roots of images: in jailed processes of its own that have no network, beside the machines, with
//! directories, cgroups and uids that are not theirs.

use std::collections::BTreeSet;

use nex_process::Deadline;
use nex_process::confinement::Part;
use nex_protocol::envelope::chain;
use nex_sandbox::process::{ProcessConfig, ProcessNetwork, ProcessProvider};

use super::host::{BUILDER_UID_BASE, Host, SWEEP};
use super::{PROBE, process_config};
use crate::config::NodeConfig;

/// Its directory below the node's state.
const DIRECTORY: &str = "builder";

/// Opens it, and removes what an earlier one left.
///
/// # Errors
/// Why this host jails no processes, for people.
pub(super) async fn open(config: &NodeConfig, host: Host<'_>) -> Result<ProcessProvider, String> {
    let mut process = process_config(config, host);
    // A tool is given no network at all, so it does not matter whether it could have one of its own.
    process.require.retain(|part| *part != Part::Network);
    let process = ProcessConfig {
        node: format!("{}b", process.node),
        state_dir: process.state_dir.join(DIRECTORY),
        uid_base: BUILDER_UID_BASE,
        ..process
    };
    let network = ProcessNetwork::Shared { reason: "tools have none".to_owned() };
    let builder = ProcessProvider::open(process, network, Deadline::after(PROBE)).await;
    let builder = builder.map_err(|error| format!("images are built in jailed processes: {}", chain(&error)))?;
    builder.sweep(&BTreeSet::new(), Deadline::after(SWEEP)).await;
    Ok(builder)
}
