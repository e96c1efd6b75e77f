//! `nex node stop`: ends the node of this host's state directory, and all that runs on it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use nex_node::state_dir::{self, StateError};
use nex_process::Signal;
use serde_json::json;

use crate::check::{self, Usage};
use crate::env::Env;
use crate::output::Output;

/// Pause between two looks at a node that stops.
const LOOK: Duration = Duration::from_millis(50);

/// `nex node stop`
#[derive(Debug, Args)]
pub(crate) struct NodeStopArgs {
    /// Where the node keeps its state [default: nex in the user's data directory]
    #[arg(long, value_name = "DIR", env = "NEX_STATE_DIR", hide_env_values = true)]
    state_dir: Option<PathBuf>,
    /// Longest wait for its end
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = check::duration)]
    wait: Duration,
}

/// Asks the node to stop as Ctrl-C would, and waits until it has.
pub(crate) async fn run(args: &NodeStopArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let Some(root) = args.state_dir.clone().or_else(|| env.data.clone()) else {
        return Err(Usage("there is no home directory to look for a node in; next: name one with --state-dir".to_owned()).into());
    };
    let root = root.join("node");
    let holder = |root| -> Result<_, StateError> { state_dir::holder(root) };
    let Some(node) = holder(&root)? else {
        let left = "what an earlier one left running goes on with the next, or ends with `nex node up --fresh`";
        anyhow::bail!("no node runs on the state directory {}; next: {left}", root.display());
    };
    node.signal(Signal::SIGINT).with_context(|| format!("cannot signal process {}; next: run this as its user", node.pid))?;
    let ended = async {
        while node.is_alive() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(args.wait, ended).await.is_err() {
        anyhow::bail!("the node (process {}) has not stopped yet; next: wait, or run this again to stop it at once", node.pid);
    }
    match output.is_json() {
        true => output.document(&json!({"stopped": true, "pid": node.pid})),
        false => output.line(format_args!("✅ The node (process {}) has stopped, and all that ran on it", node.pid)),
    }
}
