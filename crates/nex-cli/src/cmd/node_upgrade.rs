//! `nex node upgrade`: has the node of this host's state directory go on as the program that is installed now, while all that runs on it
//! runs on.
//!
//! What cannot work is refused before anything is begun: a program that does not take the node's configuration, or that speaks another
//! protocol with agents than those that run.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use nex_node::state_dir;
use nex_process::{ProcessId, Signal};
use serde::Deserialize;
use serde_json::json;

use super::running_node::{self, RunningNode};
use crate::check::{self, Usage};
use crate::env::Env;
use crate::output::Output;

/// Pause between two looks at a node that is upgraded.
const LOOK: Duration = Duration::from_millis(50);
/// Longest time that a program may take to say what it is.
const ANSWER: Duration = Duration::from_secs(20);

/// `nex node upgrade`
#[derive(Debug, Args)]
pub(crate) struct NodeUpgradeArgs {
    /// Where the node keeps its state [default: nex in the user's data directory]
    #[arg(long, value_name = "DIR", env = "NEX_STATE_DIR", hide_env_values = true)]
    state_dir: Option<PathBuf>,
    /// Longest wait until the new program is ready
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = check::duration)]
    wait: Duration,
    /// Say only whether it would be done
    #[arg(long)]
    dry_run: bool,
}

/// What a program says of itself.
#[derive(Debug, Deserialize)]
struct Version {
    version: String,
    /// Absent in what is older than the upgrade itself.
    agent_protocol: Option<u32>,
}

/// Has the node become the program at its path, and waits until that is ready.
pub(crate) async fn run(args: &NodeUpgradeArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let Some(root) = args.state_dir.clone().or_else(|| env.data.clone()) else {
        return Err(Usage("there is no home directory to look for a node in; next: name one with --state-dir".to_owned()).into());
    };
    let root = root.join("node");
    let Some(process) = state_dir::holder(&root)? else {
        anyhow::bail!("no node runs on the state directory {}; next: start one with `nex node up`", root.display());
    };
    let old = RunningNode::read(&root, process).with_context(|| {
        format!("process {} is not ready, or is a `nex up`; next: wait, or upgrade what `nex node up` runs", process.pid)
    })?;
    let new = compatible(&old, process).await?;
    let (before, after) = (&old.version, &new.version);
    if args.dry_run {
        return match output.is_json() {
            true => output.document(&json!({"upgraded": false, "would": true, "from": before, "to": after})),
            false => output.line(format_args!("✅ The node (process {}) would go on as nex v{after}, is v{before}", process.pid)),
        };
    }
    let pid = process.pid;
    process.signal(Signal::SIGUSR2).with_context(|| format!("cannot signal process {pid}; next: run this as its user"))?;
    until_ready(&root, &old, args.wait).await?;
    match output.is_json() {
        true => output.document(&json!({"upgraded": true, "pid": pid, "from": before, "to": after})),
        false => output.line(format_args!(
            "✅ The node (process {pid}) is nex v{after} now, was v{before}; what runs on it went on running"
        )),
    }
}

/// What the program at the node's path is, if the node may become it.
async fn compatible(old: &RunningNode, process: ProcessId) -> anyhow::Result<Version> {
    let program = &old.program;
    let said = ask(program, &["version".into(), "--json".into()], None).await?;
    let new: Version = serde_json::from_str(&said)
        .with_context(|| format!("{} is no nex that can be upgraded to; next: install nex there", program.display()))?;
    if new.agent_protocol != Some(old.agent_protocol) {
        let speaks = new.agent_protocol.map_or_else(|| "an older protocol".to_owned(), |number| format!("protocol {number}"));
        anyhow::bail!(
            "nex v{} speaks {speaks} with its agents, and those that run speak protocol {}: their workloads would be started anew; next: \
             `nex lameduck` this node and start the new one when it has ended, or accept that and restart it",
            new.version,
            old.agent_protocol
        );
    }
    let arguments = words(&read_of(process, "cmdline")?).into_iter().skip(1);
    let arguments: Vec<OsString> = running_node::again(arguments).into_iter().chain(["--check".into()]).collect();
    ask(program, &arguments, Some(process)).await.with_context(|| {
        format!("nex v{} cannot run this node; nothing was changed; next: mend what it says, and run this again", new.version)
    })?;
    Ok(new)
}

/// Runs a program, in the place and with the variables of a process if one is named; gives what it says.
async fn ask(program: &Path, arguments: &[OsString], like: Option<ProcessId>) -> anyhow::Result<String> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).kill_on_drop(true).stdin(std::process::Stdio::null());
    if let Some(process) = like {
        let variables = words(&read_of(process, "environ")?);
        let pairs = variables.into_iter().filter_map(|variable| {
            let bytes = variable.into_vec();
            let at = bytes.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (bytes.get(..at)?.to_vec(), bytes.get(at + 1..)?.to_vec());
            Some((OsString::from_vec(name), OsString::from_vec(value)))
        });
        command.env_clear().envs(pairs).current_dir(format!("/proc/{}/cwd", process.pid));
    }
    let shown = program.display();
    let ran = tokio::time::timeout(ANSWER, command.output()).await;
    let ran = ran.with_context(|| format!("{shown} does not answer"))?.with_context(|| format!("cannot run {shown}"))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        anyhow::bail!("{}", said.trim().strip_prefix("error: ").unwrap_or(said.trim()));
    }
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}

fn read_of(process: ProcessId, what: &str) -> anyhow::Result<Vec<u8>> {
    let path = format!("/proc/{}/{what}", process.pid);
    std::fs::read(&path).with_context(|| format!("cannot read {path}; next: run this as the node's user"))
}

/// The words of a list that ends each with a zero.
fn words(bytes: &[u8]) -> Vec<OsString> {
    let whole = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    whole.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// Waits until the node's process is ready again.
async fn until_ready(root: &Path, old: &RunningNode, wait: Duration) -> anyhow::Result<()> {
    let ready = async {
        loop {
            if !old.process.is_alive() {
                anyhow::bail!(
                    "the new program ended before it was ready, its log says why; what ran goes on; next: start the node again on the same \
                     state directory, with the old program if need be"
                );
            }
            if RunningNode::read(root, old.process).is_some_and(|now| now.ready_at != old.ready_at) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let late = || "the new program is not ready yet, what runs goes on meanwhile; next: see the node's log";
    tokio::time::timeout(wait, ready).await.with_context(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_taken_apart_as_the_kernel_tells_them() {
        assert_eq!(words(b"nex\0node\0up\0\0"), ["nex", "node", "up", ""]);
        assert_eq!(words(b"nex"), ["nex"]);
    }
}
