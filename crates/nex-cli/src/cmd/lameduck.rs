//! `nex lameduck` and `nex node lameduck`.

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use crate::check;
use crate::complete;
use crate::node_ref::NodeRef;
use crate::output::Output;
use crate::session::Session;

/// `nex lameduck`
#[derive(Debug, Args)]
pub(crate) struct LameduckArgs {
    /// Id of the node (N…), or its name
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(complete::nodes))]
    node: NodeRef,
    /// Time until what still runs is stopped and the node ends [default: it ends when nothing runs any more]
    #[arg(long, value_name = "TIME", value_parser = check::duration)]
    deadline: Option<Duration>,
}

/// Sends the command and prints the answer.
pub(crate) async fn run(args: &LameduckArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let node = args.node.resolve(session).await?;
    let answer = session.client.drain(&node, args.deadline).await?;
    if output.is_json() {
        output.document(&answer)?;
    }
    if !answer.success {
        anyhow::bail!("Failed to issue lame duck command: node {node} says no; next: read the node's own log");
    }
    if output.is_json() { Ok(()) } else { output.line(format_args!("Command to enter lame duck mode issued to {node}")) }
}
